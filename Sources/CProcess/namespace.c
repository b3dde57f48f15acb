// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int cprocess_try_user_namespace(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0) return ESRCH;
    // Only a process with one thread may enter a user namespace.
    pid_t child = fork();
    if (child == 0) {
        if (setns(space, CLONE_NEWUSER) < 0) _exit(ESRCH);
        _exit(unshare(CLONE_NEWUSER) < 0 ? errno : 0);
    }
    int failure = child < 0 ? errno : 0, status = 0;
    close(space);
    if (failure) return failure;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : ESRCH;
}
