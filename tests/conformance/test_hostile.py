# SPDX-License-Identifier: Apache-2.0
"""Programs that do not want to end, or that try to take everything down with them."""

import concurrent.futures
import time

import pytest

from server import Server, gone, wait_until

pytestmark = pytest.mark.alone


def in_time(session, command, language, timeout=4):
    """Runs something that does not end; its answer must come before the caller's own limit."""
    started = time.monotonic()
    result = session.run(command, language, timeout)
    assert time.monotonic() - started < timeout
    assert (result["exit_code"], result["timed_out"], result["outcome"]) == (124, True, "timed_out")
    assert "timed out after %ds" % timeout in result["stderr"]
    return result


# Timeouts


@pytest.mark.qemu
def test_an_endless_loop_ends_in_time_and_keeps_the_state(fresh):
    fresh.run("kept = 1")
    result = in_time(fresh, "print('begun')\nwhile True: pass", "python")
    assert result["stdout"] == "begun\n"
    assert result["state_lost"] is False
    assert fresh.run("kept")["stdout"] == "1\n"


def test_a_sleeping_program_ends_in_time(fresh):
    fresh.run("kept = 1")
    assert in_time(fresh, "echo begun; sleep 1000", "bash")["stdout"] == "begun\n"
    in_time(fresh, "import time; time.sleep(1000)", "python")
    # In C, where no interrupt arrives: its child is taken away.
    in_time(fresh, "import os; os.system('sleep 1000')", "python")
    assert fresh.run("kept")["stdout"] == "1\n"
    assert "sleep 1000" not in fresh.bash("ps ax | grep -v grep")["stdout"]


def test_a_program_that_ignores_signals_ends_in_time(fresh):
    fresh.run("kept = 1")
    result = in_time(fresh, "trap '' TERM INT HUP; echo begun; while :; do sleep 1; done", "bash")
    assert result["stdout"] == "begun\n"
    result = in_time(
        fresh,
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun')\nwhile True: pass",
        "python",
    )
    assert result["stdout"] == "begun\n"
    assert result["state_lost"] is True
    assert "NameError" in fresh.run("kept")["stderr"]


def test_a_program_that_swallows_the_interrupt_loses_its_interpreter(fresh):
    fresh.run("1")
    loop = "import time\nwhile True:\n    try: time.sleep(100)\n    except BaseException: pass"
    assert in_time(fresh, loop, "python")["state_lost"] is True
    assert fresh.run("1 + 1")["stdout"] == "2\n"


def test_a_background_child_of_an_earlier_call_survives_a_timeout(fresh):
    fresh.bash("sleep 500 & echo")
    fresh.run("import subprocess; p = subprocess.Popen(['sleep', '600'])")
    in_time(fresh, "sleep 1000", "bash")
    in_time(fresh, "import os; os.system('sleep 1000')", "python")
    processes = fresh.bash("ps ax")["stdout"]
    assert "sleep 500" in processes and "sleep 600" in processes


def test_status_and_kill_answer_while_code_runs(fresh):
    fresh.run("1")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(fresh.run, "while True: pass", "python", 60)
        time.sleep(1)
        started = time.monotonic()
        assert fresh.status()["vm_status"] == "active"
        assert time.monotonic() - started < 2
        assert fresh.kill().status_code == 200
        assert time.monotonic() - started < 6
        result = running.result()
    assert result["outcome"] == "vm_lost"
    assert result["exit_code"] == -1
    assert "killed by request" in result["stderr"]


# Taking everything


@pytest.mark.qemu
def test_a_fork_bomb_costs_its_session_and_no_other(server, fresh, session):
    session.run("1")
    result = fresh.run("bomb() { bomb | bomb & }; bomb; sleep 1000", "bash", 8)
    assert result["timed_out"] is True
    started = time.monotonic()
    assert session.run("1 + 1")["stdout"] == "2\n"
    assert time.monotonic() - started < 30
    assert fresh.status()["vm_alive"] is True


@pytest.mark.qemu
def test_a_memory_hog_is_killed_and_the_answer_says_so(fresh):
    fresh.run("kept = 1")
    result = fresh.run("x = bytearray(4 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1", timeout=120)
    assert result["exit_code"] in (1, 137)
    hog = "blocks = []\nwhile True: blocks.append(bytes(1 << 20) + b'x' * (1 << 20))"
    result = fresh.run(hog, timeout=120)
    if result["outcome"] == "signaled":
        assert result["signal"] == 9
        assert result["state_lost"] is True
        assert "out of memory" in result["stderr"]
    else:
        assert "MemoryError" in result["stderr"]
    assert fresh.run("1 + 1", timeout=120)["stdout"] == "2\n"


def test_a_memory_hog_in_bash_is_killed_and_python_keeps_its_state(fresh):
    fresh.run("kept = 1")
    result = fresh.bash("python3 -c 'b = []\nwhile True: b.append(b\"x\" * (8 << 20))'; echo code $?")
    assert "code 137" in result["stdout"]
    assert "out of memory" in result["stderr"]
    assert fresh.run("kept", timeout=120)["stdout"] == "1\n"


def test_a_full_disk_is_an_error_of_the_program(fresh):
    result = fresh.bash("head -c 5G /dev/zero > /app/full; echo code $?; rm /app/full")
    assert "No space left on device" in result["stderr"]
    assert fresh.bash("echo again > /app/file && cat /app/file")["stdout"] == "again\n"


def test_killing_every_process_leaves_the_session_usable(fresh):
    fresh.run("kept = 1")
    fresh.bash("kill -9 -1")
    assert fresh.bash("echo still here")["stdout"] == "still here\n"
    result = fresh.run("'kept' in globals()", timeout=120)
    assert result["stdout"] == "False\n"
    assert result["state_lost"] is True


@pytest.mark.qemu
@pytest.mark.parametrize(
    "command, words",
    [
        ("echo c > /proc/sysrq-trigger", "panic"),
        ("echo b > /proc/sysrq-trigger", "rebooted"),
        (
            "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x01234567)'",
            "rebooted",
        ),
    ],
)
def test_a_lost_vm_is_reported_as_what_it_is(server, fresh, command, words):
    first = fresh.bash("true")
    result = fresh.bash(command + "; sleep 60")
    assert result["outcome"] == "vm_lost"
    assert result["exit_code"] == -1
    assert words in result["stderr"].lower()
    assert fresh.status()["vm_status"] == "killed"
    again = fresh.bash("echo back")
    assert again["stdout"] == "back\n"
    assert again["vm_id"] != first["vm_id"]


def test_a_shell_that_cannot_start_is_refused_and_the_vm_lives_on(fresh):
    first = fresh.run("1")
    fresh.bash("mv /bin/bash /bin/kept")
    refused = None
    for _ in range(4):
        reply = fresh.post("/execute", {"command": "echo hi", "language": "bash", "session_id": fresh.id, "timeout": 3})
        if reply.status_code == 503:
            refused = reply
            break
    assert refused is not None
    # Beyond the refused call's timeout.
    time.sleep(4)
    again = fresh.run("import os; os.rename('/bin/kept', '/bin/bash')")
    assert again["vm_id"] == first["vm_id"]
    assert fresh.bash("echo hi")["stdout"] == "hi\n"


def test_lies_on_the_interpreters_descriptor_cost_the_interpreter_and_not_the_vm(fresh):
    first = fresh.run("1")
    lie = (
        "import os, stat, struct\n"
        "for fd in range(200, 260):\n"
        "    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode):\n"
        "            os.write(fd, struct.pack('<IBBiQ', 14, 3, 0, 0, 2**64 - 1))\n"
        "    except OSError: pass\n"
        "import time; time.sleep(1)"
    )
    fresh.run(lie)
    wait_until(lambda: fresh.run("1 + 1")["stdout"] == "2\n", 60)
    garbage = lie.replace("struct.pack('<IBBiQ', 14, 3, 0, 0, 2**64 - 1)", "b'\\xff' * 100")
    result = fresh.run(garbage)
    assert result["state_lost"] is True
    assert fresh.run("1 + 1")["stdout"] == "2\n"
    assert fresh.status()["vm_id"] == first["vm_id"]


def test_a_stopped_interpreter_does_not_stop_the_agent(fresh):
    first = fresh.run("kept = 1")
    fresh.bash("pkill -STOP -f runner.py")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stuck = pool.submit(fresh.run, "x = '" + "y" * 2_000_000 + "'", "python", 8)
        time.sleep(0.5)
        assert fresh.bash("echo beside", 30)["stdout"] == "beside\n"
        result = stuck.result()
    assert result["state_lost"] is True
    assert fresh.run("1 + 1")["stdout"] == "2\n"
    assert fresh.status()["vm_id"] == first["vm_id"]


def test_an_agent_that_dies_takes_its_vm_and_the_answer_says_so(fresh):
    fresh.run("1")
    # PID 1 cannot be killed from inside; its memory can be broken.
    result = fresh.run(
        "import re\n"
        "for line in open('/proc/1/maps'):\n"
        "    found = re.match(r'(\\w+)-(\\w+) r-xp', line)\n"
        "    if found:\n"
        "        start, end = (int(part, 16) for part in found.groups())\n"
        "        with open('/proc/1/mem', 'r+b', 0) as memory:\n"
        "            memory.seek(start)\n"
        "            memory.write(b'\\x0f\\x0b' * ((end - start) // 2))\n"
        # What is written wakes the agent.
        "print('x', flush=True)\n"
        "import time; time.sleep(60)"
    )
    assert result["outcome"] == "vm_lost"
    assert "panic" in result["stderr"].lower()
    assert fresh.run("1 + 1")["stdout"] == "2\n"


@pytest.mark.qemu
def test_a_killed_qemu_is_reported_and_the_session_goes_on():
    import os
    import signal

    server = Server(SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
    try:
        check_a_killed_qemu(server, server.session(), os, signal)
    finally:
        server.stop()


def check_a_killed_qemu(server, fresh, os, signal):
    first = fresh.run("x = 1")
    (mine,) = wait_until(lambda: len(server.qemus()) == 1 and server.qemus())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(fresh.run, "print('begun'); import time; time.sleep(60)")
        time.sleep(1)
        os.kill(mine, signal.SIGKILL)
        result = running.result()
    assert result["outcome"] == "vm_lost"
    assert result["stdout"] == "begun\n"
    assert "signal 9" in result["stderr"]
    second = fresh.run("1 + 1")
    assert second["stdout"] == "2\n"
    assert second["vm_id"] != first["vm_id"]


# The server itself


@pytest.mark.qemu
def test_a_killed_server_leaves_nothing_and_its_sessions_go_on():
    server = Server()
    try:
        session = server.session()
        first = session.run("x = 1")
        qemus = server.qemus()
        assert len(qemus) >= 1
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(lambda: session.run("import time; time.sleep(60)"))
            time.sleep(1)
            server.kill()
        wait_until(lambda: all(gone(pid) for pid in qemus), 10)
        server.start()
        status = session.status()
        assert (status["vm_status"], status["vm_alive"]) == ("killed", False)
        second = session.run("'x' in globals()")
        assert second["stdout"] == "False\n"
        assert second["vm_id"] != first["vm_id"]
        import os

        machines = [name for name in os.listdir(server.directory + "/vms") if name != "empty.qcow2"]
        assert len(machines) == len(server.qemus())
    finally:
        server.stop()


def test_a_stopped_server_finishes_what_runs_and_leaves_nothing():
    server = Server()
    session = server.session()
    session.run("1")
    qemus = server.qemus()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(session.run, "import time; time.sleep(2); print('done')")
        time.sleep(1)
        server.process.terminate()
        assert running.result()["stdout"] == "done\n"
    assert server.process.wait(60) == 0
    assert all(gone(pid) for pid in qemus)
    server.stop()


def test_two_servers_do_not_share_a_data_directory():
    server = Server()
    try:
        result = server.command("serve", "--port", "0", "--image-variant", "minimal", "--accelerator", "tcg")
        assert result.returncode != 0
        assert "Another server uses" in result.stderr
    finally:
        server.stop()
