// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CProcess.h"

#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t cprocess_tsc_khz(void) {
    uint64_t start = now(), first = __rdtsc();
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    uint64_t end = now(), last = __rdtsc();
    return (last - first) * 1000000 / (end - start);
}
#else
uint64_t cprocess_tsc_khz(void) { return 0; }
#endif
