# SPDX-License-Identifier: Apache-2.0
"""What a QEMU that its guest has taken over can do to the host and to other VMs."""

import concurrent.futures
import ctypes
import errno
import fcntl
import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import time

import pytest
import requests

from server import IMAGES, PROGRAM, Server, wait_until


@pytest.fixture(scope="module")
def booting():
    """A server whose VMs are booted, so that nothing waits for a template."""
    server = Server(SWIFTLET_TEMPLATES="false")
    yield server
    server.stop()


# Namespaces


def in_child(function):
    """The errno with which a function fails in a process of its own; 0 if it succeeds."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make_user_namespace_beside(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    new_user = 0x10000000
    space = os.open("/proc/%d/ns/user" % pid, os.O_RDONLY)
    if libc.setns(space, new_user) < 0:
        raise OSError(errno.ESRCH, "The namespace could not be entered")
    if libc.unshare(new_user) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


@pytest.mark.kvm
def test_a_qemu_has_no_room_for_another_user_namespace(booting):
    session = booting.session()
    session.run("1")
    (qemu,) = booting.qemus()
    assert in_child(lambda: make_user_namespace_beside(qemu)) == errno.ENOSPC
    # The same where it is allowed.
    outside = subprocess.Popen(["unshare", "--user", "--map-root-user", "sleep", "60"])
    try:
        wait_until(lambda: pathlib.Path("/proc/%d/comm" % outside.pid).read_text() == "sleep\n", 10)
        assert in_child(lambda: make_user_namespace_beside(outside.pid)) == 0
    finally:
        outside.kill()
        outside.wait()
    session.kill()
    wait_until(lambda: not booting.qemus())


def test_a_bubblewrap_that_is_too_old_is_named_with_what_is_needed(tmp_path):
    old = tmp_path / "bwrap"
    old.write_text(
        '#!/bin/sh\ncase " $* " in *" --disable-userns "*) echo "bwrap: Unknown option --disable-userns" >&2; exit 1;; esac\n'
        'exec /usr/bin/bwrap "$@"\n'
    )
    old.chmod(0o755)
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=str(tmp_path / "data"), SWIFTLET_IMAGES_DIRECTORY=IMAGES)
    environment["SWIFTLET_BUBBLEWRAP"] = str(old)
    result = subprocess.run(
        [PROGRAM, "doctor", "--image-variant", "minimal", "--json"], env=environment, capture_output=True, text=True, timeout=120
    )
    (jail,) = [finding for finding in json.loads(result.stdout) if finding["name"] == "Jail"]
    assert jail["state"] == "problem"
    assert "Unknown option --disable-userns" in jail["words"] and "bubblewrap 0.8" in jail["words"]


# Files that all VMs share


def lock_for_good(path):
    """Takes every lock that a reader can take, as QEMU's block layer does: on the open file description."""
    descriptor = os.open(path, os.O_RDONLY)
    # struct flock of x86-64 Linux: type, whence, start, length, pid.
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(descriptor, getattr(fcntl, "F_OFD_SETLK", 37), lock)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def test_locks_on_shared_files_do_not_keep_vms_from_starting(tmp_path):
    image = max(pathlib.Path(IMAGES).glob("minimal-*"), key=os.path.getmtime)
    # Files of its own: those of other servers' VMs stay free.
    (tmp_path / "images").mkdir()
    subprocess.run(["cp", "-r", "--sparse=always", str(image), str(tmp_path / "images")], check=True)
    locks = [lock_for_good(tmp_path / "images" / image.name / "rootfs.ext4")]
    server = Server(
        SWIFTLET_IMAGES_DIRECTORY=str(tmp_path / "images"),
        SWIFTLET_TEMPLATES_DIRECTORY=str(tmp_path / "templates"),
        SWIFTLET_POOL_SIZE="0",
        SWIFTLET_POOL_MAXIMUM="0",
    )
    try:
        # A QEMU that is told to lock cannot have the file: the locks are those that matter.
        blocked = subprocess.run(
            ["qemu-img", "bench", "-c", "1", "-w", "-f", "raw", str(tmp_path / "images" / image.name / "rootfs.ext4")],
            capture_output=True,
            text=True,
        )
        assert "lock" in blocked.stderr
        assert server.session().run("1 + 1")["stdout"] == "2\n"
        wait_until(lambda: "Template built" in server.log_text(), 120)
        disks = list((tmp_path / "templates").glob("minimal-*/disk.qcow2"))
        assert disks
        locks += [lock_for_good(disk) for disk in disks]
        result = server.session().run("1 + 1")
        assert (result["stdout"], result["restore"]["origin"]) == ("2\n", "template")
    finally:
        server.stop()
        for descriptor in locks:
            os.close(descriptor)


# System calls


class Registers(ctypes.Structure):
    """`struct user_regs_struct` of x86-64; see sys/user.h."""

    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs flags rsp ss fs_base gs_base ds es fs gs".split()
    ]


def make_call(pid, number):
    """Lets a process that waits in a system call make another one, as code would that has taken it over."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    attach, detach, get_registers, set_registers = 16, 17, 12, 13

    def ptrace(request, data=None):
        if libc.ptrace(request, pid, None, data) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    ptrace(attach)
    os.waitpid(pid, 0x40000000)
    registers = Registers()
    ptrace(get_registers, ctypes.byref(registers))
    # Back to the instruction that it came from.
    registers.rip -= 2
    registers.rax = number
    registers.orig_rax = 2**64 - 1
    ptrace(set_registers, ctypes.byref(registers))
    ptrace(detach)


@pytest.mark.kvm
@pytest.mark.parametrize("name, number", [("socket", 41), ("ptrace", 101), ("io_uring_enter", 426)])
def test_a_qemu_that_makes_a_forbidden_system_call_is_killed_and_the_call_is_named(booting, name, number):
    session = booting.session()
    first = session.run("1")
    (qemu,) = booting.qemus()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(session.run, "print('begun', flush=True); import time; time.sleep(60)")
        time.sleep(1)
        make_call(qemu, number)
        result = running.result()
    assert (result["outcome"], result["exit_code"]) == ("vm_lost", -1)
    assert "%s (%d), which its jail forbids" % (name, number) in result["stderr"]
    again = session.run("2")
    assert again["stdout"] == "2\n" and again["vm_id"] != first["vm_id"]
    session.kill()
    wait_until(lambda: not booting.qemus())


@pytest.mark.kvm
def test_a_qemu_has_no_io_uring_and_two_filters(booting):
    """Its requests would go around every filter of system calls."""
    session = booting.session()
    session.run("1")
    (qemu,) = booting.qemus()
    links = [os.readlink(link) for link in pathlib.Path("/proc/%d/fd" % qemu).iterdir()]
    assert not any("io_uring" in link for link in links)
    status = pathlib.Path("/proc/%d/status" % qemu).read_text()
    assert re.search(r"Seccomp_filters:\s+2\n", status)
    session.kill()
    wait_until(lambda: not booting.qemus())


# The disk

# What a QEMU may write for a quota in MiB; see DiskQuota.
def largest_file(quota):
    return (quota << 20) + (quota << 20) // 16 + (48 << 20)


# Root takes back what keeps programs to their quota: the blocks that the agent holds, and the file system's own reserve.
TAKE_BACK = """
import glob, os
for name in glob.glob('/proc/1/fd/*'):
    try:
        if os.stat(name).st_size > 64 << 20:
            os.truncate(name, 0)
    except OSError:
        pass
open('/sys/fs/ext4/vda/reserved_clusters', 'w').write('0')
status = os.statvfs('/')
print(status.f_bavail * status.f_frsize >> 20)
"""


def plan_user(server, email, plan):
    result = server.command("user", "add", email, "--plan", plan)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("Key:")[1].split()[0]


def file_limit(pid):
    limits = pathlib.Path("/proc/%d/limits" % pid).read_text()
    return re.search(r"Max file size +(\S+) +(\S+)", limits).groups()


@pytest.fixture
def plans(tmp_path):
    (tmp_path / "plans.json").write_text(json.dumps({"tiny": {"diskMb": 64}}))
    return str(tmp_path / "plans.json")


@pytest.mark.kvm
@pytest.mark.parametrize("pool", [0, 1])
def test_root_in_the_guest_does_not_get_beyond_its_plans_disk(plans, pool):
    server = Server(
        SWIFTLET_PLANS_FILE=plans,
        SWIFTLET_DISK_MB="1000",
        SWIFTLET_POOL_SIZE=str(pool),
        SWIFTLET_POOL_MAXIMUM=str(pool),
    )
    try:
        if pool:
            (waiting,) = wait_until(lambda: len(server.qemus()) == 1 and server.qemus(), 120)
            assert file_limit(waiting) == (str(largest_file(1000)),) * 2
            wait_until(lambda: metric(server, "swiftlet_pool_machines") == 1, 120)
        session = server.session(key=plan_user(server, "tiny@example.org", "tiny"))
        before = session.run("1")
        assert before["restore"]["origin"] == ("pool" if pool else before["restore"]["origin"])
        (qemu,) = [pid for pid in server.qemus() if file_limit(pid) == (str(largest_file(64)),) * 2]
        disk = os.path.realpath(os.path.join(server.directory, "vms", machine_of(qemu), "disk.qcow2"))
        assert int(session.run(TAKE_BACK)["stdout"]) > 500
        session.bash("head -c 400M /dev/urandom > /app/big; sync")
        size = os.stat(disk).st_size
        # It got far beyond the quota, and no further than it may.
        assert 64 << 20 < size <= largest_file(64)
        assert os.stat(disk).st_blocks * 512 <= largest_file(64) + (1 << 20)
        # The loss is its own: nobody else's VM notices.
        other = server.session()
        assert other.bash("head -c 100M /dev/urandom > /app/fits && sync && echo fits")["stdout"] == "fits\n"
    finally:
        server.stop()


def machine_of(qemu):
    """The name of the machine whose disk a QEMU has open."""
    mounts = pathlib.Path("/proc/%d/mountinfo" % qemu).read_text()
    return re.search(r"/(machine-[^/]+)/disk.qcow2", mounts).group(1)


def metric(server, name):
    text = requests.get(server.url + "/metrics", headers={"X-API-Key": server.key}, timeout=30).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def test_a_guest_that_writes_and_deletes_does_not_grow_on_the_host():
    """What is freed is used again: a quota holds over a VM's life, and an honest guest never meets the limit of its QEMU."""
    server = Server(SWIFTLET_DISK_MB="100", SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
    try:
        session = server.session()
        result = session.bash(
            "for i in 1 2 3 4 5 6; do head -c 80M /dev/urandom > /app/file || echo failed; sum=$(md5sum < /app/file); sync\n"
            "echo 3 > /proc/sys/vm/drop_caches; [ \"$(md5sum < /app/file)\" = \"$sum\" ] || echo damaged; rm /app/file; done\n"
            "dmesg | grep -c 'I/O error'",
            300,
        )
        assert result["stdout"] == "0\n", result
        (qemu,) = server.qemus()
        assert os.stat(os.path.join(server.directory, "vms", machine_of(qemu), "disk.qcow2")).st_size < 130 << 20
    finally:
        server.stop()


def test_a_budget_for_disks_refuses_the_vm_that_goes_beyond_it():
    each = largest_file(64) >> 20
    server = Server(SWIFTLET_DISK_MB="64", SWIFTLET_DISK_BUDGET_MB=str(2 * each + 5))
    try:
        first, second, third = server.session(), server.session(), server.session()
        first.run("1")
        second.run("1")
        reply = third.post("/execute", {"command": "1", "session_id": third.id, "timeout": 60})
        assert reply.status_code == 503 and "Retry-After" in reply.headers
        assert "diskBudgetMb" in reply.text and "5 of %d MiB" % (2 * each + 5) in reply.text
        first.kill()
        wait_until(lambda: third.post("/execute", {"command": "1", "session_id": third.id, "timeout": 60}).status_code == 200)
    finally:
        server.stop()


def test_a_vm_whose_disk_the_host_has_no_room_for_is_refused(tmp_path):
    directory = tempfile.mkdtemp(prefix="swiftlet-small-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", directory], check=True)
    try:
        server = Server(directory=directory + "/data", SWIFTLET_DISK_MB="400", SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
        try:
            session = server.session()
            reply = session.post("/execute", {"command": "1", "session_id": session.id, "timeout": 60})
            assert reply.status_code == 503
            assert re.search(r"\d+ MiB free", reply.text) and "may write %d" % (largest_file(400) >> 20) in reply.text
        finally:
            server.stop()
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        os.rmdir(directory)


@pytest.mark.parametrize("what", ["setting", "plan"])
def test_a_quota_that_the_image_has_no_room_for_is_an_error(tmp_path, what):
    (tmp_path / "plans.json").write_text(json.dumps({"vast": {"diskMb": 500_000}}))
    environment = dict(os.environ, SWIFTLET_DATA_DIRECTORY=str(tmp_path / "data"), SWIFTLET_IMAGES_DIRECTORY=IMAGES)
    environment.update({"SWIFTLET_DISK_MB": "500000"} if what == "setting" else {"SWIFTLET_PLANS_FILE": str(tmp_path / "plans.json")})
    words = [PROGRAM, "serve", "--port", "0", "--image-variant", "minimal", "--accelerator", "tcg"]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    name = "diskMb is" if what == "setting" else "diskMb of the plan vast is"
    assert re.search(name + r" 500000, and the image minimal-\w+ has room for \d+ MiB", result.stderr), result.stderr


def test_a_disk_is_as_fast_as_its_rate_says():
    # Four times as fast for ten seconds: 16 MiB/s.
    server = Server(SWIFTLET_DISK_MB_PER_SECOND="4", SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
    try:
        session = server.session()
        session.run("1")
        started = time.monotonic()
        assert session.bash("dd if=/dev/zero of=/app/file bs=1M count=64 oflag=direct 2>/dev/null && echo done")["stdout"] == "done\n"
        assert time.monotonic() - started > 3
    finally:
        server.stop()
