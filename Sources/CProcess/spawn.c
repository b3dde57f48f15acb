// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define MAXIMUM_DESCRIPTORS 64

static struct cprocess_failure failed(enum cprocess_step step, int error) {
    return (struct cprocess_failure){step, error};
}

// The child calls only async-signal-safe functions: the parent has other threads.

static int close_range_of(unsigned int first, unsigned int last) {
    return first <= last && syscall(SYS_close_range, first, last, 0) < 0 ? errno : 0;
}

// Closes all descriptors but these, in any order.
static int close_others(const int *kept, int count) {
    for (int first = 0;;) {
        int next = -1;
        for (int i = 0; i < count; i++)
            if (kept[i] >= first && (next < 0 || kept[i] < next)) next = kept[i];
        if (next < 0) return close_range_of((unsigned int)first, ~0U);
        int failure = next > first ? close_range_of((unsigned int)first, (unsigned int)next - 1) : 0;
        if (failure) return failure;
        first = next + 1;
    }
}

// Gives the child its descriptors as 0, 1, 2 and so on. All others but the report's are closed first, so that the numbers that are
// needed in between are free, also under a small limit. `*report` names an open descriptor whatever fails.
static int place_descriptors(const int *descriptors, int count, int *report) {
    int sources[MAXIMUM_DESCRIPTORS + 1];
    if (count > MAXIMUM_DESCRIPTORS) return EMFILE;
    memcpy(sources, descriptors, sizeof(int) * (size_t)count);
    sources[count] = *report;
    int failure = close_others(sources, count + 1);
    if (failure) return failure;
    for (int i = 0; i <= count; i++)
        if (sources[i] < count && (sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, count)) < 0) return errno;
    *report = sources[count];
    // dup2 clears close-on-exec.
    for (int i = 0; i < count; i++)
        if (dup2(sources[i], i) < 0) return errno;
    failure = *report > count ? close_range_of((unsigned int)count, (unsigned int)*report - 1) : 0;
    return failure ? failure : close_range_of((unsigned int)*report + 1, ~0U);
}

static struct cprocess_failure enter_limits(const struct cprocess_program *program) {
    for (int i = 0; i < program->cgroup_count; i++)
        if (write(program->cgroups[i], "0", 1) != 1) return failed(CPROCESS_STEP_CGROUP, errno);
    struct rlimit core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &core) < 0) return failed(CPROCESS_STEP_CORE_LIMIT, errno);
    if (program->nice && setpriority(PRIO_PROCESS, 0, program->nice) < 0) return failed(CPROCESS_STEP_NICE, errno);
    if (program->oom_score_adjustment) {
        int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        size_t length = strlen(program->oom_score_adjustment);
        if (score < 0 || write(score, program->oom_score_adjustment, length) != (ssize_t)length)
            return failed(CPROCESS_STEP_OOM_SCORE, errno);
        close(score);
    }
    struct rlimit files = {program->descriptor_limit, program->descriptor_limit};
    if (program->descriptor_limit && setrlimit(RLIMIT_NOFILE, &files) < 0)
        return failed(CPROCESS_STEP_DESCRIPTOR_LIMIT, errno);
    if (!program->file_size_limit) return failed(CPROCESS_STEP_NONE, 0);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit size = {program->file_size_limit, program->file_size_limit};
    if (setrlimit(RLIMIT_FSIZE, &size) < 0) return failed(CPROCESS_STEP_FILE_SIZE_LIMIT, errno);
    return failed(CPROCESS_STEP_NONE, 0);
}

// Becomes the program; returns what failed.
static struct cprocess_failure become(const struct cprocess_program *program, int *report, pid_t parent) {
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int number = 1; number < 65; number++) sigaction(number, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return failed(CPROCESS_STEP_DEATH_SIGNAL, errno);
    if (getppid() != parent) _exit(127);
    setsid();
    struct cprocess_failure failure = enter_limits(program);
    if (failure.step) return failure;
    int error = place_descriptors(program->descriptors, program->descriptor_count, report);
    if (error) return failed(CPROCESS_STEP_DESCRIPTORS, error);
    execve(program->path, program->argv, program->envp);
    return failed(CPROCESS_STEP_EXECUTE, errno);
}

static void run_child(const struct cprocess_program *program, int report, pid_t parent) {
    struct cprocess_failure failure = become(program, &report, parent);
    // Fewer bytes than a pipe writes at once. Where they do not arrive the parent reads an exit code of 127 later.
    ssize_t ignored = write(report, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

// What the child reports; nothing when its program runs.
static struct cprocess_failure read_report(int report) {
    struct cprocess_failure failure;
    ssize_t count;
    do count = read(report, &failure, sizeof failure); while (count < 0 && errno == EINTR);
    if (count == 0) return failed(CPROCESS_STEP_NONE, 0);
    return count == sizeof failure ? failure : failed(CPROCESS_STEP_REPORT, count < 0 ? errno : EIO);
}

struct cprocess_failure cprocess_spawn(const struct cprocess_program *program, pid_t *pid) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) return failed(CPROCESS_STEP_PIPE, errno);
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    // No handler of ours may run in the child before it has reset them.
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) run_child(program, report[1], parent);
    int fork_error = child < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    struct cprocess_failure failure = fork_error ? failed(CPROCESS_STEP_FORK, fork_error) : read_report(report[0]);
    close(report[0]);
    if (!failure.step) {
        *pid = child;
    } else if (child > 0) {
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    }
    return failure;
}
