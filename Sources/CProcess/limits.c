// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

int cprocess_raise_descriptor_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) return errno;
    files.rlim_cur = files.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &files) < 0 ? errno : 0;
}

int cprocess_limit_file_size(pid_t pid, uint64_t bytes) {
    struct rlimit size = {bytes, bytes};
    return prlimit(pid, RLIMIT_FSIZE, &size, NULL) < 0 ? errno : 0;
}

int cprocess_set_nice(pid_t pid, int nice) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks) return errno;
    int failure = 0;
    struct dirent *entry;
    // Linux keeps a nice value a thread.
    while ((entry = readdir(tasks)))
        if (atoi(entry->d_name) > 0 && setpriority(PRIO_PROCESS, (id_t)atoi(entry->d_name), nice) < 0) failure = errno;
    closedir(tasks);
    return failure;
}
