// SPDX-License-Identifier: Apache-2.0

#ifndef CAGENTONHOST_H
#define CAGENTONHOST_H

/// Forks: the child goes on as the agent, and gets 0; the parent supervises it and never returns. An errno on failure.
///
/// The parent kills the agent and all of its descendants when the agent ended, or when the other end of the port is closed: however
/// a test ends, no process is left. It exits with the agent's exit code, or 128 and the signal that ended it.
int agent_on_host_supervise(int port);

#endif
