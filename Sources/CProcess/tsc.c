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

// A time and the counter's value at it. Of several tries the quickest counts: in it nothing came between the two readings.
static void sample(uint64_t *time, uint64_t *ticks) {
    uint64_t best = ~0ULL;
    for (int i = 0; i < 200; i++) {
        uint64_t before = now(), counter = __rdtsc(), after = now();
        if (after - before >= best) continue;
        best = after - before;
        *time = before + best / 2;
        *ticks = counter;
    }
}

uint64_t cprocess_tsc_khz(void) {
    uint64_t start, end, first, last;
    struct timespec pause = {0, 20000000};
    sample(&start, &first);
    nanosleep(&pause, NULL);
    sample(&end, &last);
    return (last - first) * 1000000 / (end - start);
}
#else
uint64_t cprocess_tsc_khz(void) { return 0; }
#endif
