// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CAgentOnHost.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/// Reaps the children that have ended; returns whether the agent was one of them.
static int reap_ended(pid_t agent, int *status) {
    int ended = 0, one;
    for (pid_t pid; (pid = waitpid(-1, &one, WNOHANG)) > 0;) {
        if (pid != agent) continue;
        *status = one;
        ended = 1;
    }
    return ended;
}

static void kill_children(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *list = fopen(path, "re");
    if (!list) return;
    for (int pid; fscanf(list, "%d", &pid) == 1;) kill(pid, SIGKILL);
    fclose(list);
}

/// The children of a process that ended become children of this process before `waitpid` returns that process.
static void kill_descendants(pid_t agent, int *status) {
    for (;;) {
        kill_children();
        int one;
        pid_t pid = waitpid(-1, &one, 0);
        if (pid < 0 && errno != EINTR) return;
        if (pid == agent) *status = one;
    }
}

int agent_on_host_supervise(int port) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 || sigprocmask(SIG_BLOCK, &children, NULL) < 0) return errno;
    int signals = signalfd(-1, &children, SFD_CLOEXEC);
    if (signals < 0) return errno;
    pid_t agent = fork();
    if (agent < 0) return errno;
    if (agent == 0) {
        close(signals);
        // The agent takes orphans itself, as PID 1 does.
        return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ? errno : 0;
    }
    struct pollfd events[2] = {{.fd = port, .events = POLLRDHUP}, {.fd = signals, .events = POLLIN}};
    int status = 0, ended = 0;
    while (!ended) {
        if (poll(events, 2, -1) < 0 && errno != EINTR) break;
        if (events[0].revents) break;
        struct signalfd_siginfo info;
        if (events[1].revents && read(signals, &info, sizeof info) > 0) ended = reap_ended(agent, &status);
    }
    kill_descendants(agent, &status);
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
