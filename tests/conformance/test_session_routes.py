# SPDX-License-Identifier: Apache-2.0
"""Sessions after their creation: what lives, what was used, changes, and the end."""

import contextlib
import datetime
import re
import sqlite3
import threading
import time
import uuid

import pytest
import requests
from instavm import InstaVM, SessionError

from server import Server, unknown_session, wait_until


@pytest.fixture(scope="module")
def stranger(server):
    """The key of a user who owns nothing of the others'."""
    email = "stranger-%s@example.org" % uuid.uuid4()
    result = server.command("user", "add", email)
    return re.search(r"instavm_sk_\S+", result.stdout).group(0)


def call(server, method, path, key=None, **more):
    headers = {"X-API-Key": key or server.key}
    return requests.request(method, server.url + path, headers=headers, timeout=60, **more)


def change(session, **body):
    return call(session.server, "PATCH", "/v1/sessions/session/" + session.id, json=body)


# Living VMs


def test_the_client_finds_its_living_vms_by_their_labels(server):
    label = str(uuid.uuid4())
    client = InstaVM(api_key=server.key, base_url=server.url, metadata={"run": label, "n": 1, "o": {"a": [1]}})
    assert client.list_sandboxes(metadata={"run": label}) == []
    vm = client.execute("1")["vm_id"]
    (found,) = client.list_sandboxes(metadata={"run": label, "n": 1, "o": {"a": [1]}})
    assert found["sandbox_id"] == vm and found["session_id"] == client.session_id
    assert found["metadata"]["run"] == label and found["status"] == "active" and found["name"] == "default"
    start, end = (datetime.datetime.fromisoformat(found[name]) for name in ("started_at", "end_at"))
    assert (end - start).total_seconds() == 300
    assert [s["sandbox_id"] for s in client.list_sandboxes()].count(vm) == 1
    assert len(client.list_sandboxes(limit=1)) == 1
    for other in ({"run": "another"}, {"run": label, "n": 2}, {"run": label, "more": None}, {"o": {}, "run": label}):
        assert client.list_sandboxes(metadata=other) == []
    client.kill()
    assert client.list_sandboxes(metadata={"run": label}) == []


def test_a_vm_that_is_spawned_at_creation_is_listed_at_once(server):
    label = str(uuid.uuid4())
    client = InstaVM(api_key=server.key, base_url=server.url, env={"A": "b"}, metadata={"run": label})
    assert len(client.list_sandboxes(metadata={"run": label})) == 1
    client.kill()


def test_nobody_sees_anothers_vms(server, session, stranger):
    session.run("1")
    assert call(server, "GET", "/v1/sessions/sandboxes", key=stranger).json() == []


# Usage


def test_the_client_reads_what_its_session_has_used(server):
    client = InstaVM(api_key=server.key, base_url=server.url)
    assert client.get_usage()["vm_count"] == 0
    session = client.session_id
    started = time.monotonic()
    client.execute("1")
    client.kill()
    ended = time.monotonic()
    client.session_id = session
    used = client.get_usage()
    assert used["session_id"] == session and used["vm_count"] == 1
    assert 0 < used["vm_seconds"] <= ended - started + 0.1
    assert used["vcpu_seconds"] == pytest.approx(used["vm_seconds"])
    assert used["memory_gib_seconds"] == pytest.approx(used["vm_seconds"] / 2, abs=1e-5)
    # A dead VM uses nothing more, a living one does.
    assert client.get_usage() == used
    client.execute("1")
    grown = client.get_usage()
    assert grown["vm_count"] == 2 and grown["vm_seconds"] > used["vm_seconds"]
    wait_until(lambda: client.get_usage()["vm_seconds"] > grown["vm_seconds"])
    assert client.get_session_info()["session_id"] == session
    client.kill()


def test_the_client_reads_its_usage_by_day(server, session):
    session.run("1")
    client = InstaVM(api_key=server.key, base_url=server.url)
    usage = client.get_usage_breakdown(days=3)
    assert usage["total_days"] == len(usage["daily_breakdown"]) == 3
    today = usage["daily_breakdown"][-1]
    assert usage["period_end"] == today["date"] == datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    assert today["cpu_hours"] > 0 and today["ram_gib_hours"] > 0 and today["cost_dollars"] == 0
    assert usage["totals"]["cpu_hours"] == pytest.approx(sum(d["cpu_hours"] for d in usage["daily_breakdown"]))
    old = client.get_usage_breakdown(start_date="2024-02-28", end_date="2024-03-01")
    assert [d["date"] for d in old["daily_breakdown"]] == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert old["totals"] == {"cost_dollars": 0, "cpu_hours": 0, "ram_gib_hours": 0}


def test_nobody_sees_anothers_usage(server, session, stranger):
    session.run("1")
    assert call(server, "GET", "/v1/sessions/usage/" + session.id, key=stranger).status_code == 404
    assert call(server, "GET", "/v1/users/me/usage-breakdown", key=stranger).json()["totals"]["cpu_hours"] == 0


# Changes


def test_a_longer_lifetime_counts_for_the_living_vm(server):
    session = server.session(vm_lifetime_seconds=20)
    vm = session.run("x = 1")["vm_id"]
    # What has no timeout of its own runs as long as its VM lives, however that was lengthened.
    command = {"command": "while true; do date; sleep 0.5; done", "language": "bash", "session_id": session.id}
    task = session.post("/execute_async", command).json()["task_id"]
    reply = change(session, vm_lifetime_seconds=23, metadata={"a": 1})
    assert reply.status_code == 200
    told = reply.json()
    assert (told["vm_lifetime_seconds"], told["metadata"], told["vm_id"]) == (23, {"a": 1}, vm)
    assert 20 < session.status()["expires_in_seconds"] <= 23
    # Its first end passes, its new one does not.
    ages = []
    wait_until(lambda: ages.append(session.status()) or not ages[-1]["vm_alive"], 40)
    assert 22 < max(status["uptime_seconds"] or 0 for status in ages) < 24
    # A VM is not alive from the moment of its kill, and its end is recorded when nothing is left of it.
    wait_until(lambda: call(server, "GET", "/v1/sessions/session/" + session.id).json()["vm_end_reason"], 20)
    info = call(server, "GET", "/v1/sessions/session/" + session.id).json()
    assert "lifetime of 23 s" in info["vm_end_reason"]
    wait_until(lambda: call(server, "GET", "/v1/executions/" + task).json()["is_complete"], 20)
    ended = call(server, "GET", "/v1/executions/" + task).json()
    assert ended["status"] == "vm_lost" and ended["execution_time"] > 20
    assert "lifetime of 23 s" in ended["serialized_stderr"]
    # The next one lives as long, or longer.
    session.run("1")
    assert 20 < session.status()["expires_in_seconds"] <= 23
    assert change(session, vm_lifetime_seconds=86_400).status_code == 200
    assert 86_300 < session.status()["expires_in_seconds"] <= 86_400
    session.kill()


def test_a_lifetime_is_never_made_shorter(fresh):
    for value in (899, 20):
        reply = change(fresh, vm_lifetime_seconds=value)
        assert reply.status_code == 409 and "900 s" in reply.json()["detail"]
    assert change(fresh, vm_lifetime_seconds=900).status_code == 200
    assert change(fresh).json()["vm_lifetime_seconds"] == 900
    for value in (19, 86_401, "x", 1.5):
        assert change(fresh, vm_lifetime_seconds=value).status_code == 422


def test_nobody_changes_anothers_session(server, fresh, stranger):
    path = "/v1/sessions/session/"
    for method in ("PATCH", "DELETE"):
        assert call(server, method, path + fresh.id, key=stranger, json={}).status_code == 404
        assert call(server, method, path + unknown_session(), json={}).status_code == 404
    assert fresh.run("1")["exit_code"] == 0


# The end


def test_a_deleted_session_is_gone_on_every_route(server):
    session = server.session()
    session.run("1")
    reply = call(server, "DELETE", "/v1/sessions/session/" + session.id)
    assert reply.status_code == 200 and reply.json()["session_id"] == session.id
    for method, path in (
        ("DELETE", "/v1/sessions/session/"),
        ("PATCH", "/v1/sessions/session/"),
        ("GET", "/v1/sessions/session/"),
        ("GET", "/v1/sessions/status/"),
        ("GET", "/v1/sessions/usage/"),
    ):
        assert call(server, method, path + session.id, json={}).status_code == 404
    assert session.kill().status_code == 404
    assert session.post("/execute", {"command": "1", "session_id": session.id}).status_code == 404
    client = InstaVM(api_key=server.key, base_url=server.url, auto_start_session=False)
    with pytest.raises(SessionError):
        client.get_session_info(session.id)


def test_a_session_without_a_vm_can_be_deleted(server):
    session = server.session()
    assert call(server, "DELETE", "/v1/sessions/session/" + session.id).status_code == 200
    assert session.post("/execute", {"command": "1", "session_id": session.id}).status_code == 404


def test_code_that_runs_at_the_end_is_told_that_its_vm_is_lost(server):
    session = server.session()
    answers = []

    def run():
        answers.append(session.run("print('begun', flush=True)\nopen('/tmp/begun', 'w')\nimport time\ntime.sleep(60)"))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: session.bash("test -e /tmp/begun")["exit_code"] == 0)
    assert call(server, "DELETE", "/v1/sessions/session/" + session.id).status_code == 200
    thread.join(20)
    (answer,) = answers
    assert (answer["outcome"], answer["exit_code"], answer["stdout"]) == ("vm_lost", -1, "begun\n")
    assert "Its session was deleted" in answer["stderr"]


def test_deletions_and_calls_at_once_leave_no_vm(server):
    before = set(call_ids(server))
    for _ in range(5):
        session = server.session()
        replies = []

        def execute():
            replies.append(session.post("/execute", {"command": "1", "session_id": session.id}).status_code)

        threads = [threading.Thread(target=execute) for _ in range(3)]
        for thread in threads:
            thread.start()
        deleted = [call(server, "DELETE", "/v1/sessions/session/" + session.id).status_code for _ in range(2)]
        for thread in threads:
            thread.join()
        assert deleted == [200, 404]
        assert set(replies) <= {200, 404, 503}
    wait_until(lambda: set(call_ids(server)) <= before)


def call_ids(server):
    return [found["sandbox_id"] for found in call(server, "GET", "/v1/sessions/sandboxes").json()]


def test_a_crash_and_the_years_leave_no_open_and_no_old_rows():
    server = Server(SWIFTLET_RETENTION_DAYS="2")
    try:
        old, unused, living, recent = (server.session() for _ in range(4))
        for session in (old, living, recent):
            session.run("1")
        old.kill()
        recent.kill()
        server.kill()
        with contextlib.closing(sqlite3.connect(server.directory + "/swiftlet.sqlite")) as database:
            aged = int((time.time() - 3 * 86_400) * 1e6)
            database.execute("UPDATE vms SET ended_at = ? WHERE session_id = ?", (aged, old.id))
            database.execute("UPDATE sessions SET vm_ended_at = ? WHERE id = ?", (aged, old.id))
            database.execute("UPDATE sessions SET created_at = ? WHERE id IN (?, ?)", (aged, unused.id, living.id))
            database.commit()
        server.start()
        wait_until(lambda: call(server, "GET", "/v1/sessions/session/" + old.id).status_code == 404)
        wait_until(lambda: call(server, "GET", "/v1/sessions/session/" + unused.id).status_code == 404)
        # The crash ended what lived, and its usage with it.
        usage = call(server, "GET", "/v1/sessions/usage/" + living.id).json()
        assert usage["vm_count"] == 1 and usage == call(server, "GET", "/v1/sessions/usage/" + living.id).json()
        assert call(server, "GET", "/v1/sessions/sandboxes").json() == []
        assert call(server, "GET", "/v1/sessions/usage/" + recent.id).json()["vm_count"] == 1
        with contextlib.closing(sqlite3.connect(server.directory + "/swiftlet.sqlite")) as database:
            rows = database.execute("SELECT session_id, ended_at IS NULL, origin FROM vms").fetchall()
        assert sorted(row[0] for row in rows) == sorted([living.id, recent.id])
        assert not any(row[1] for row in rows)
        assert dict((row[0], row[2]) for row in rows)[recent.id] in ("boot", "template", "pool")
    finally:
        server.stop()
