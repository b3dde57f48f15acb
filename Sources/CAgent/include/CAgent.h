// SPDX-License-Identifier: Apache-2.0

#ifndef CAGENT_H
#define CAGENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

/// A program to start.
struct agent_program {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *directory;
    /// The child's descriptors 0, 1, 2, ...; it gets no others.
    const int *descriptors;
    int descriptor_count;
    /// A cgroup's `cgroup.procs`, opened for writing, that the child enters; -1 for none.
    int cgroup;
};

/// Starts a program in a session of its own. Returns 0 and its pid, or the errno of what failed, of `execve` too.
int agent_spawn(const struct agent_program *program, pid_t *pid);

/// Loads a kernel module from a file; 0 also when it is loaded already, else an errno.
int agent_load_module(const char *path);

/// Gives the kernel's generator randomness and makes it start anew from it; 0 or an errno.
int agent_reseed(const uint8_t *bytes, size_t count);

/// Brings the loopback interface up; 0 or an errno.
int agent_loopback_up(void);

/// A descriptor that reports SIGCHLD, which is blocked from then on; -1 on failure.
int agent_child_signals(void);

/// A file in memory, close-on-exec; -1 on failure.
int agent_memory_file(const char *name);

/// A pipe whose ends are close-on-exec, the end to read first; 0 or -1.
int agent_pipe(int ends[2]);

/// Bytes that a pipe holds now; 0 on failure.
int agent_pending_bytes(int descriptor);

/// Lets this process open as many descriptors as its programs may; 0 or an errno.
int agent_raise_descriptor_limit(void);

/// Puts this process before all others; its children start as ordinary ones. 0 or an errno.
int agent_become_realtime(void);

/// Starts threads that take pointers from a pipe, call with each, and put it into another pipe: work that may block.
/// `jobs` is the end to write to, `done` the end to read from, which does not block. 0 or an errno.
int agent_start_workers(int count, void (*run)(void *), int *jobs, int *done);

/// Makes a file without a name in a directory's file system, if `*file` is negative, and changes the blocks that it holds. They are not
/// written. 0 or an errno.
int agent_hold_blocks(const char *directory, int *file, uint64_t held, uint64_t wanted);

/// Lets the kernel write a file's range to the disk, and waits for it if told to; then its pages can be reused.
void agent_write_back(int descriptor, int64_t offset, int64_t count, int wait);

/// `O_NOFOLLOW`, `O_CLOEXEC`, `O_NONBLOCK` and `O_NOCTTY` together.
int agent_safe_open_flags(void);

/// Restarts the machine, which ends the VM. Does not return.
void agent_reboot(void);

#endif
