// SPDX-License-Identifier: Apache-2.0

#ifndef CPROCESS_H
#define CPROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// What a start was doing when it failed.
enum cprocess_step {
    CPROCESS_STEP_NONE = 0,
    /// Making the pipe that the child reports through.
    CPROCESS_STEP_PIPE,
    CPROCESS_STEP_FORK,
    /// Reading what the child reports.
    CPROCESS_STEP_REPORT,
    /// Having the child killed with the thread that started it.
    CPROCESS_STEP_DEATH_SIGNAL,
    CPROCESS_STEP_CGROUP,
    CPROCESS_STEP_CORE_LIMIT,
    CPROCESS_STEP_NICE,
    CPROCESS_STEP_OOM_SCORE,
    CPROCESS_STEP_FILE_SIZE_LIMIT,
    CPROCESS_STEP_DESCRIPTOR_LIMIT,
    /// Putting the child's descriptors in their places and closing the others.
    CPROCESS_STEP_DESCRIPTORS,
    CPROCESS_STEP_EXECUTE,
};

/// Why a program could not be started. No failure is `{CPROCESS_STEP_NONE, 0}`.
struct cprocess_failure {
    int32_t step;
    /// The errno of the step.
    int32_t error;
};

/// A program to start.
struct cprocess_program {
    const char *path;
    char *const *argv;
    char *const *envp;
    /// The child gets `descriptors[i]` as descriptor i and no other.
    const int *descriptors;
    int descriptor_count;
    /// `cgroup.procs` files, opened for writing, of cgroups that the child enters.
    const int *cgroups;
    int cgroup_count;
    /// The largest file that the child may write, in bytes; beyond it writes fail with EFBIG. 0 for no limit.
    uint64_t file_size_limit;
    /// How many descriptors the child may have open. 0 for the limit of this process.
    uint64_t descriptor_limit;
    /// Added to the child's nice value.
    int nice;
    /// The child's value in /proc/self/oom_score_adj; NULL for that of this process.
    const char *oom_score_adjustment;
};

/// Starts a program that dies with the calling *thread*'s process.
///
/// The child has a session of its own, default signals (but SIGXFSZ ignored under a file size limit), no core dumps, and gets
/// SIGKILL when the thread that called this ends: call it on a thread that lives as long as the process.
///
/// Returns the process id, or what failed, `execve` included; the child is reaped then.
struct cprocess_failure cprocess_spawn(const struct cprocess_program *program, pid_t *pid);

/// A file in memory that can be sealed, close-on-exec; -1 on failure.
int cprocess_memory_file(const char *name);

/// Forbids every further change of a memory file: of its bytes, its size and its seals. 0 or an errno.
int cprocess_seal(int descriptor);

/// Lets this process open as many descriptors as it may; 0 or an errno.
int cprocess_raise_descriptor_limit(void);

/// Kills the children of a process, which must be a child of ours that is not reaped yet. Returns how many were killed.
int cprocess_kill_children(pid_t parent);

/// Enters the user namespace of a process, in a child, and tries to make another one there. 0 where that is possible, the errno
/// that the kernel refuses it with, or ESRCH when the namespace could not be entered.
int cprocess_try_user_namespace(pid_t pid);

/// Sends bytes over a Unix socket together with a descriptor; 0 or an errno.
int cprocess_send_descriptor(int socket, const char *bytes, size_t count, int descriptor);

/// Sets the nice value of all threads of a process; 0 or an errno.
int cprocess_set_nice(pid_t pid, int nice);

/// Lowers the size of the largest file that a process may write; 0 or an errno.
int cprocess_limit_file_size(pid_t pid, uint64_t bytes);

/// The frequency of this processor's time stamp counter in kHz, measured over about 20 ms; 0 where there is none.
uint64_t cprocess_tsc_khz(void);

#endif
