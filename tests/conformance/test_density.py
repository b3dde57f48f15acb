# SPDX-License-Identifier: Apache-2.0
"""How many sessions one node holds, and what it does when they fill its memory."""

import concurrent.futures
import pathlib

import pytest

from server import SOAK, Server, wait_until

# More than sixteen for each pair of processors; forty take a 24 GiB machine some minutes under emulation.
SESSIONS = 40 if SOAK else 20


@pytest.mark.soak
def test_idle_sessions_of_the_default_shape_live_at_once():
    server = Server(SWIFTLET_VCPU_COUNT="2", SWIFTLET_MEMORY_MB="512")
    try:
        sessions = [server.session(vcpu_count=2) for _ in range(SESSIONS)]

        def answers(session):
            return session.run("6 * 7")["stdout"] == "42\n"

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert all(pool.map(answers, sessions))
        # None was ended for another's sake.
        assert [session.status()["vm_status"] for session in sessions] == ["active"] * SESSIONS
        vms = {session.run("0")["vm_id"] for session in sessions}
        assert len(vms) == SESSIONS
    finally:
        server.stop()


def fill(session, megabytes):
    """Fills memory with what no page of another VM has."""
    return session.post(
        "/execute",
        {"command": "held = bytearray(%d << 20)\nfor i in range(0, len(held), 4096): held[i] = 1\nimport time; time.sleep(60)" % megabytes, "session_id": session.id, "timeout": 90},
    )


def test_the_vm_that_grew_most_is_ended_with_the_reason():
    # Two VMs fit, and not all that both may fill, with the template's pages that they are the first to touch.
    server = Server(
        SWIFTLET_POOL_SIZE="0",
        SWIFTLET_POOL_MAXIMUM="0",
        SWIFTLET_MEMORY_BUDGET_MB="1140",
    )
    try:
        first, second = server.session(memory_mb=512), server.session(memory_mb=512)
        for session in (first, second):
            assert session.run("1")["exit_code"] == 0
        assert first.run("held = bytearray(300 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1")["exit_code"] == 0
        lost = fill(second, 360).json()
        assert (lost["outcome"], lost["exit_code"]) == ("vm_lost", -1)
        assert "ran out of memory" in lost["stderr"] and "memoryOvercommit" in lost["stderr"]
        # The other one goes on with its state.
        assert first.run("len(held) >> 20")["stdout"] == "300\n"
        # What is left holds no VM that is charged 480 MiB.
        third = server.session(memory_mb=1536)
        reply = third.post("/execute", {"command": "1", "session_id": third.id})
        assert reply.status_code == 503 and int(reply.headers["Retry-After"]) > 0
        assert "memory is in use" in reply.json()["detail"]
        # The next call of the lost one gets a new VM.
        wait_until(lambda: second.post("/execute", {"command": "1", "session_id": second.id}).status_code == 200, 30)
    finally:
        server.stop()


def test_short_memory_ends_the_clones_that_wait():
    server = Server(SWIFTLET_POOL_SIZE="2", SWIFTLET_MEMORY_BUDGET_MB="1000")
    try:
        session = server.session(memory_mb=512)
        assert session.run("1")["exit_code"] == 0
        wait_until(lambda: len(server.qemus()) == 3, 60)
        assert session.run("held = bytearray(360 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1")["exit_code"] == 0
        wait_until(lambda: len(server.qemus()) == 1, 30)
        assert session.run("len(held) >> 20")["stdout"] == "360\n"
    finally:
        server.stop()


def test_the_kernel_would_kill_a_vm_before_the_server(server):
    wait_until(lambda: server.qemus(), 60)
    own = int(pathlib.Path("/proc/%d/oom_score_adj" % server.process.pid).read_text())
    for pid in server.qemus():
        assert int(pathlib.Path("/proc/%d/oom_score_adj" % pid).read_text()) == min(own + 500, 1000)
