// SPDX-License-Identifier: Apache-2.0

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

// The Swift runtime reads /proc/self/exe before main, and dies without it; for PID 1 /proc is not mounted yet.
__attribute__((constructor(101))) static void mount_proc_early(void) {
    if (getpid() != 1) return;
    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
}
