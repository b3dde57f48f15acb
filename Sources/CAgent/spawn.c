// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static int place_descriptors(const struct agent_program *program, int *report) {
    int moved[16];
    int count = program->descriptor_count;
    if (count > 16) return EINVAL;
    if ((*report = fcntl(*report, F_DUPFD_CLOEXEC, 900)) < 0) return errno;
    for (int i = 0; i < count; i++)
        if ((moved[i] = fcntl(program->descriptors[i], F_DUPFD_CLOEXEC, 900)) < 0) return errno;
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], i) < 0) return errno;
    if (dup3(*report, count, O_CLOEXEC) < 0) return errno;
    *report = count;
    return syscall(SYS_close_range, count + 1, ~0U, 0) < 0 ? errno : 0;
}

/// Sets the limit on descriptors, up to the hard limit where this process may not raise that: only outside of a guest.
static int limit_descriptors(void) {
    struct rlimit files = {65536, 1048576}, present;
    if (setrlimit(RLIMIT_NOFILE, &files) == 0) return 0;
    if (errno != EPERM || getrlimit(RLIMIT_NOFILE, &present) < 0) return errno;
    if (files.rlim_cur > present.rlim_max) files.rlim_cur = present.rlim_max;
    files.rlim_max = present.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &files) < 0 ? errno : 0;
}

static int become_program(const struct agent_program *program, int *report) {
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int number = 1; number < 65; number++) sigaction(number, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (program->cgroup >= 0 && write(program->cgroup, "0", 1) != 1) return errno;
    // The agent is never the out-of-memory killer's choice; its programs are ordinary.
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score < 0 || write(score, "0", 1) != 1) return errno;
    close(score);
    int failure = limit_descriptors();
    if (failure) return failure;
    struct rlimit core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &core) < 0) return errno;
    failure = place_descriptors(program, report);
    if (failure) return failure;
    if (chdir(program->directory) < 0) return errno;
    execve(program->path, program->argv, program->envp);
    return errno;
}

int agent_spawn(const struct agent_program *program, pid_t *pid) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) return errno;
    pid_t child = fork();
    if (child < 0) {
        int failure = errno;
        close(report[0]);
        close(report[1]);
        return failure;
    }
    if (child == 0) {
        int failure = become_program(program, &report[1]);
        ssize_t ignored = write(report[1], &failure, sizeof failure);
        (void)ignored;
        _exit(127);
    }
    close(report[1]);
    int failure = 0;
    ssize_t count;
    do count = read(report[0], &failure, sizeof failure); while (count < 0 && errno == EINTR);
    close(report[0]);
    if (count != sizeof failure) failure = 0;
    // A child that failed is reaped with all the others.
    if (!failure) *pid = child;
    return failure;
}
