// SPDX-License-Identifier: Apache-2.0

#ifndef CPROCESS_H
#define CPROCESS_H

#include <stdint.h>
#include <sys/types.h>

/// Starts a program that dies with the calling *thread*'s process.
///
/// The child gets `descriptors[i]` as descriptor i and no other, a session of its own, default signals, and SIGKILL when the
/// thread that called this ends: call it on a thread that lives as long as the process.
///
/// Returns 0 and the process id, or the errno of what failed (of `execve` too).
int cprocess_spawn(const char *path, char *const argv[], char *const envp[],
                   const int *descriptors, int descriptor_count, pid_t *pid);

/// The frequency of this processor's time stamp counter in kHz, measured over about 20 ms; 0 where there is none.
uint64_t cprocess_tsc_khz(void);

#endif
