// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

// Only async-signal-safe calls from here on: the parent has other threads.
static int place_descriptors(const int *descriptors, int count, int *report) {
    int moved[64];
    if (count > 64) return EINVAL;
    // First out of the way of the targets, then into place; dup2 clears close-on-exec.
    if ((*report = fcntl(*report, F_DUPFD_CLOEXEC, 256)) < 0) return errno;
    for (int i = 0; i < count; i++)
        if ((moved[i] = fcntl(descriptors[i], F_DUPFD_CLOEXEC, 256)) < 0) return errno;
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], i) < 0) return errno;
    if (fcntl(*report, F_SETFD, FD_CLOEXEC) < 0) return errno;
    if (dup2(*report, count) < 0 || fcntl(count, F_SETFD, FD_CLOEXEC) < 0) return errno;
    *report = count;
    return syscall(SYS_close_range, count + 1, ~0U, 0) < 0 ? errno : 0;
}

static int enter_limits(const struct cprocess_program *program) {
    for (int i = 0; i < program->cgroup_count; i++)
        if (write(program->cgroups[i], "0", 1) != 1) return errno;
    struct rlimit core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &core) < 0) return errno;
    if (program->nice && setpriority(PRIO_PROCESS, 0, program->nice) < 0) return errno;
    if (!program->file_size_limit) return 0;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit size = {program->file_size_limit, program->file_size_limit};
    return setrlimit(RLIMIT_FSIZE, &size) < 0 ? errno : 0;
}

static void run_child(const struct cprocess_program *program, int report, pid_t parent) {
    int failure = 0;
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int number = 1; number < 65; number++) sigaction(number, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) failure = errno;
    if (getppid() != parent) _exit(127);
    setsid();
    if (!failure) failure = enter_limits(program);
    if (!failure) failure = place_descriptors(program->descriptors, program->descriptor_count, &report);
    if (!failure) {
        execve(program->path, program->argv, program->envp);
        failure = errno;
    }
    ssize_t ignored = write(report, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

int cprocess_spawn(const struct cprocess_program *program, pid_t *pid) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) return errno;
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    // No handler of ours may run in the child before it has reset them.
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) run_child(program, report[1], parent);
    int failure = child < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (!failure) {
        int told = 0;
        ssize_t count;
        do count = read(report[0], &told, sizeof told); while (count < 0 && errno == EINTR);
        if (count == sizeof told) {
            failure = told;
            while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
        }
    }
    close(report[0]);
    if (!failure) *pid = child;
    return failure;
}
