# SPDX-License-Identifier: Apache-2.0
"""The package's unit under systemd, on a machine with KVM: for tests/kvm/run --systemd, which has the packages in /project/with."""

import json
import os
import pathlib
import pwd
import re
import signal
import subprocess

import pytest
import requests

from server import IMAGES, wait_until

PACKAGES = sorted(pathlib.Path("/project/with").glob("swiftlet_*.deb"), key=lambda path: len(path.name))
DATA = pathlib.Path("/var/lib/swiftlet")
CGROUP = pathlib.Path("/sys/fs/cgroup/system.slice/swiftlet.service")
URL = "http://127.0.0.1:8000"
SETTINGS = {
    "dataDirectory": str(DATA),
    "imageVariant": "minimal",
    "accelerator": "kvm",
    "vcpuCount": 1,
    "memoryMb": 256,
    "poolSize": 0,
    "poolMaximum": 0,
    "templates": "false",
}


def run(*words, check=True):
    result = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if check:
        assert result.returncode == 0, "%s\n%s\n%s\n%s" % (words, result.stdout, result.stderr, journal())
    return result.stdout.strip()


def journal():
    words = ["journalctl", "--unit=swiftlet", "--no-pager", "--output=cat"]
    return subprocess.run(words, capture_output=True, text=True).stdout


def key():
    return (DATA / "first-key").read_text().strip()


def wait_for_answer():
    try:
        wait_until(answers)
    except AssertionError as failure:
        raise AssertionError("The server does not answer:\n" + journal()) from failure


def answers():
    try:
        return requests.get(URL + "/health", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def execute(command):
    body = {"command": command, "timeout": 120}
    reply = requests.post(URL + "/execute", json=body, headers={"X-API-Key": key()}, timeout=400)
    assert reply.status_code == 200, reply.text + journal()
    return reply.json()


def server():
    """The server's process; there is one."""
    number = int(run("systemctl", "show", "--property=MainPID", "--value", "swiftlet"))
    assert number > 0, journal()
    return number


def processes():
    """Of the service's user, whatever cgroup they are in."""
    user = pwd.getpwnam("swiftlet").pw_uid
    return [path.name for path in pathlib.Path("/proc").glob("[0-9]*") if path.stat().st_uid == user]


@pytest.fixture(scope="module", autouse=True)
def installed():
    run("dpkg", "--install", str(PACKAGES[0]))
    assert run("systemctl", "is-enabled", "swiftlet", check=False) == "disabled"
    assert run("systemctl", "is-active", "swiftlet", check=False) == "inactive"
    assert list(DATA.iterdir()) == []
    pathlib.Path("/etc/swiftlet/swiftlet.json").write_text(json.dumps(SETTINGS))
    run("cp", "-r", "--sparse=always", IMAGES, str(DATA / "images"))
    run("chown", "-R", "swiftlet:", str(DATA / "images"))


def test_the_first_start_makes_a_key_that_is_in_no_log():
    run("systemctl", "start", "swiftlet")
    wait_for_answer()
    wait_until(lambda: (DATA / "first-key").exists())
    status = (DATA / "first-key").stat()
    assert (status.st_mode & 0o777, pwd.getpwuid(status.st_uid).pw_name) == (0o600, "swiftlet")
    assert DATA.stat().st_mode & 0o777 == 0o700
    # The journal is asked for what is not in it only when something is.
    wait_until(lambda: "/health" in journal())
    assert key() not in journal()


def test_a_vm_runs_under_kvm_in_a_cgroup_of_the_services():
    result = execute("open('/sys/devices/system/clocksource/clocksource0/current_clocksource').read(), 6 * 7")
    assert result["stdout"] == "('kvm-clock\\n', 42)\n"
    (cgroup,) = CGROUP.glob("*/machine-*")
    assert 256 << 20 < int((cgroup / "memory.max").read_text()) < 1 << 30
    assert int((cgroup / "pids.max").read_text()) < 1000
    assert (cgroup / "cpu.max").read_text().split()[0] != "max"
    commands = [pathlib.Path("/proc", pid, "cmdline").read_text() for pid in (cgroup / "cgroup.procs").read_text().split()]
    assert [command for command in commands if "qemu-system-x86_64" in command and "kvm" in command.split("\0")]
    # The server itself is in none of them.
    assert pathlib.Path("/proc", str(server()), "cgroup").read_text().strip() == "0::/system.slice/swiftlet.service/server"


def test_no_security_setting_is_lost():
    report = run("systemd-analyze", "security", "--no-pager", "swiftlet")
    level = float(re.search(r"Overall exposure level for swiftlet.service: ([\d.]+)", report).group(1))
    print("systemd-analyze security: %.1f" % level)
    assert level <= 3.0


def test_an_upgrade_restarts_what_runs_and_prints_no_key():
    before = server()
    run("dpkg", "--install", str(PACKAGES[1]))
    assert run("systemctl", "is-active", "swiftlet") == "active"
    assert run("systemctl", "is-enabled", "swiftlet", check=False) == "disabled"
    assert server() != before
    wait_for_answer()
    assert execute("6 * 7")["stdout"] == "42\n"
    assert key() not in journal()


def test_a_killed_server_comes_back_and_leaves_nothing():
    before = processes()
    os.kill(server(), signal.SIGKILL)
    wait_until(lambda: not set(before) & set(processes()))
    wait_for_answer()


def test_a_stop_leaves_no_process_and_a_removal_no_unit():
    assert execute("6 * 7")["stdout"] == "42\n"
    assert len(processes()) > 1
    run("systemctl", "stop", "swiftlet")
    assert run("systemctl", "show", "--property=Result", "--value", "swiftlet") == "success"
    assert processes() == [] and not CGROUP.exists()
    run("systemctl", "enable", "--now", "swiftlet")
    wait_for_answer()
    run("dpkg", "--remove", "swiftlet")
    assert processes() == []
    assert (DATA / "first-key").exists()
    run("dpkg", "--purge", "swiftlet")
    assert not DATA.exists()
    assert not list(pathlib.Path("/etc/systemd/system").rglob("swiftlet*"))
