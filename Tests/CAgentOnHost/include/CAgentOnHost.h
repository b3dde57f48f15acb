// SPDX-License-Identifier: Apache-2.0

#ifndef CAGENTONHOST_H
#define CAGENTONHOST_H

/// Makes orphans of this process's descendants its own children, as those of PID 1 are. 0 or an errno.
int agent_on_host_take_orphans(void);

#endif
