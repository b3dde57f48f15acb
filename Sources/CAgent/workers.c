// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static int job_end, done_end;
static void (*run_job)(void *);

// Pointers are written whole and taken whole: a pipe's writes and reads of so few bytes are atomic.
static void *work(void *unused) {
    void *job;
    for (;;) {
        ssize_t count = read(job_end, &job, sizeof job);
        if (count < 0 && errno == EINTR) continue;
        if (count != sizeof job) return unused;
        run_job(job);
        while (write(done_end, &job, sizeof job) < 0 && errno == EINTR) {}
    }
}

int agent_start_workers(int count, void (*run)(void *), int *jobs, int *done) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0) return errno;
    if (fcntl(out[0], F_SETFL, O_NONBLOCK) < 0) return errno;
    job_end = in[0];
    done_end = out[1];
    run_job = run;
    *jobs = in[1];
    *done = out[0];
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    int failure = pthread_attr_init(&attributes);
    if (!failure) failure = pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (int i = 0; i < count && !failure; i++) {
        pthread_t thread;
        failure = pthread_create(&thread, &attributes, work, NULL);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

void agent_write_back(int descriptor, int64_t offset, int64_t count, int wait) {
    unsigned flags = SYNC_FILE_RANGE_WRITE;
    if (wait) flags |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    // Only a hint: a file system that cannot do it writes when it likes.
    (void)sync_file_range(descriptor, offset, count, flags);
    if (wait) (void)posix_fadvise(descriptor, offset, count, POSIX_FADV_DONTNEED);
}

int agent_safe_open_flags(void) { return O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY; }
