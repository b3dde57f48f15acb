# SPDX-License-Identifier: Apache-2.0
"""What a QEMU that its guest has taken over can do to the host and to other VMs."""

import ctypes
import errno
import fcntl
import json
import os
import pathlib
import struct
import subprocess

import pytest

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
    booting.session().run("1")
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
