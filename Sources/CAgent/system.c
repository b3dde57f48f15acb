// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "CAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int agent_load_module(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno;
    int failure = syscall(SYS_finit_module, file, "", 0) < 0 ? errno : 0;
    close(file);
    return failure == EEXIST ? 0 : failure;
}

int agent_reseed(const uint8_t *bytes, size_t count) {
    int file = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (file < 0) return errno;
    struct rand_pool_info *pool = malloc(sizeof *pool + count);
    int failure = pool ? 0 : ENOMEM;
    if (pool) {
        pool->entropy_count = (int)count * 8;
        pool->buf_size = (int)count;
        memcpy(pool->buf, bytes, count);
        if (ioctl(file, RNDADDENTROPY, pool) < 0 || ioctl(file, RNDRESEEDCRNG) < 0) failure = errno;
        free(pool);
    }
    close(file);
    return failure;
}

int agent_hold_blocks(const char *directory, int *file, uint64_t held, uint64_t wanted) {
    if (*file < 0) *file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*file < 0) return errno;
    if (wanted < held) return ftruncate(*file, (off_t)wanted) < 0 ? errno : 0;
    if (wanted == held) return 0;
    return fallocate(*file, 0, (off_t)held, (off_t)(wanted - held)) < 0 ? errno : 0;
}

int agent_loopback_up(void) {
    int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (handle < 0) return errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    int failure = ioctl(handle, SIOCSIFFLAGS, &request) < 0 ? errno : 0;
    close(handle);
    return failure;
}

int agent_child_signals(void) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &children, NULL) < 0) return -1;
    return signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC);
}

int agent_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int agent_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int agent_pending_bytes(int descriptor) {
    int count = 0;
    return ioctl(descriptor, FIONREAD, &count) < 0 ? 0 : count;
}

int agent_become_realtime(void) {
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &parameters) < 0 ? errno : 0;
}

int agent_raise_descriptor_limit(void) {
    struct rlimit files = {65536, 1048576};
    return setrlimit(RLIMIT_NOFILE, &files) < 0 ? errno : 0;
}

void agent_reboot(void) {
    sync();
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}
