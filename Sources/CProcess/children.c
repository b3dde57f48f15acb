// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

// Format: proc(5), /proc/PID/task/TID/children.
static int read_children(pid_t parent, pid_t *children, int limit) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    int count = 0;
    char *rest = text, *word;
    while (count < limit && (word = strsep(&rest, " ")))
        if (atoi(word) > 0) children[count++] = atoi(word);
    return count;
}

int cprocess_kill_children(pid_t parent) {
    pid_t children[64], again[64];
    int killed = 0, count = read_children(parent, children, 64);
    for (int i = 0; i < count; i++) {
        int handle = (int)syscall(SYS_pidfd_open, children[i], 0);
        if (handle < 0) continue;
        // Only what is still a child now is what the handle was opened for: a number is not used twice while it is.
        int left = read_children(parent, again, 64);
        for (int j = 0; j < left; j++)
            if (again[j] == children[i] && syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0) == 0) killed++;
        close(handle);
    }
    return killed;
}
