# SPDX-License-Identifier: Apache-2.0
"""Audit events with the unmodified client and its command line, the operator's command, and what the log says."""

import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import uuid

import pytest
import requests
from instavm import InstaVM

from server import PROGRAM, Server, signals_as_usual, wait_until

MARKER = "marker-" + uuid.uuid4().hex


class User:
    def __init__(self, server, email):
        self.server = server
        self.email = email
        result = server.command("user", "add", email)
        assert result.returncode == 0, result.stderr
        self.key = result.stdout.split("Key:")[1].split()[0]

    @property
    def client(self):
        return InstaVM(api_key=self.key, base_url=self.server.url, auto_start_session=False)

    def events(self, **filters):
        return self.client.audit.events(**filters)["items"]

    def types(self, **filters):
        return [event["event_type"] for event in self.events(**filters)]

    def instavm(self, *words):
        return subprocess.Popen(
            [sys.executable, "-m", "instavm", *words],
            env={**os.environ, "INSTAVM_BASE_URL": self.server.url, "INSTAVM_API_KEY": self.key, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=signals_as_usual,
        )


@pytest.fixture(scope="module")
def server():
    server = Server(SWIFTLET_LOG_FORMAT="json", SWIFTLET_LOG_LEVEL="debug")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ada(server):
    return User(server, "ada@example.org")


@pytest.fixture(scope="module")
def story(server, ada):
    """A session's life, with a marker wherever a user keeps what is theirs."""
    session = server.session(key=ada.key, env={"NAME": MARKER}, metadata={"note": MARKER})
    headers = {"X-API-Key": ada.key, "x-request-id": "story-1"}
    body = {"command": "print('%s')" % MARKER, "session_id": session.id, "api_key": ada.key}
    reply = requests.post(server.url + "/execute", json=body, headers=headers, timeout=120)
    session.execution = reply.json()["execution_id"]
    body = {"command": "open('/nowhere/%s')" % MARKER, "session_id": session.id}
    headers["x-request-id"] = "story-2"
    task = requests.post(server.url + "/execute_async", json=body, headers=headers, timeout=60).json()["task_id"]
    wait_until(lambda: requests.get(server.url + "/v1/executions/" + task, headers=headers, timeout=30).json()["is_complete"])
    session.task = task
    url = server.url + "/v1/sessions/%s/files/tmp/x" % session.id
    assert requests.put(url, data=MARKER, headers=headers, timeout=60).status_code == 201
    assert requests.get(url, headers=headers, timeout=60).text == MARKER
    assert requests.delete(url, headers=headers, timeout=60).status_code == 200
    session.vm = session.kill().json()["vm_id"]
    wait_until(lambda: "vm.terminated" in ada.types(session_id=session.id))
    return session


def test_a_sessions_life_is_told_in_order(ada, story):
    told = [event for event in reversed(ada.events(session_id=story.id, limit=200))]
    types = [event["event_type"] for event in told]
    assert types[-2:] in (["session.killed", "vm.terminated"], ["vm.terminated", "session.killed"])
    # The VM's own events come when it has come so far, which nobody waits for.
    assert sorted(types[:2]) == ["session.created", "vm.started"]
    assert types[2:-2] == ["execution.created", "execution.created", "file.uploaded", "file.downloaded", "file.removed"]
    by = {event["event_type"]: event for event in told}
    assert all(event["status"] == "success" for event in told)
    assert by["execution.created"]["event_payload"] == {"language": "python", "mode": "async"}
    assert by["file.uploaded"]["resource_id"] == "/tmp/x" and by["file.uploaded"]["address"] == "127.0.0.1"
    assert by["vm.terminated"]["actor_type"] == "system" and by["vm.terminated"]["vm_id"] == story.vm
    assert "by request" in by["vm.terminated"]["event_payload"]["reason"]
    assert [event["request_id"] for event in told if event["resource_id"] == story.execution] == ["story-1"]
    assert MARKER not in json.dumps(told) and ada.key not in json.dumps(told)


def test_a_session_that_an_execution_needed_is_told_too(server, ada):
    headers = {"X-API-Key": ada.key, "x-request-id": "needed-1"}
    reply = requests.post(server.url + "/execute", json={"command": "1"}, headers=headers, timeout=120).json()
    found = wait_until(lambda: (events := ada.events(session_id=reply["session_id"])) and len(events) >= 3 and events)
    assert {event["event_type"] for event in found} == {"session.created", "vm.started", "execution.created"}
    assert {event["request_id"] for event in found} == {"needed-1"}
    requests.post(server.url + "/kill", json={"session_id": reply["session_id"]}, headers=headers, timeout=60)


def test_the_clients_audit_manager(ada, story):
    assert ada.types(event_group="file", session_id=story.id) == ["file.removed", "file.downloaded", "file.uploaded"]
    assert ada.types(event_type="vm.terminated", vm_id=story.vm) == ["vm.terminated"]
    assert ada.types(status="denied") == []
    me = ada.client.get_current_user()["id"]
    assert ada.events(user_id=me, limit=3) == ada.events(limit=3)
    assert ada.events(user_id=me + 1) == []
    first = ada.client.audit.events(limit=2)
    second = ada.client.audit.events(limit=2, cursor=first["next_cursor"])
    assert first["items"] + second["items"] == ada.events(limit=4)
    event = first["items"][0]
    assert ada.client.audit.get_event(event["id"]) == event
    assert "vm.terminated" in ada.client.audit.catalog()["catalog"]["vm"]


def test_instavm_events_lists_shows_and_follows(ada, story):
    out, err = ada.instavm("events", "tail", "--once", "--session", story.id, "--since", "1h").communicate(timeout=60)
    assert "session.created" in out and "vm=" + story.vm in out, err
    catalog, _ = ada.instavm("events", "catalog").communicate(timeout=60)
    assert "  api_key.revoked" in catalog.splitlines()
    event = ada.events(event_type="vm.terminated", limit=1)[0]["id"]
    out, err = ada.instavm("audit", "get", event).communicate(timeout=60)
    assert "Payload:" in out and "by request" in out, err
    tail = ada.instavm("events", "tail", "--group", "api_key", "--interval", "1")
    try:
        assert "api_key.created" in tail.stdout.readline()
        made = ada.client.api_keys.create(description="seen by tail")
        line = tail.stdout.readline()
        assert "api_key.created" in line and "api_key=%s" % made["id"] in line
        ada.client.api_keys.delete(made["id"])
        assert "api_key.revoked" in tail.stdout.readline()
    finally:
        tail.send_signal(signal.SIGINT)
        tail.communicate(timeout=30)


def test_wrong_keys_reach_the_operator_and_a_flood_of_them_no_disk(server, ada):
    with requests.Session() as caller:
        for number in range(300):
            key = {"X-API-Key": "instavm_sk_%d" % number}
            assert caller.get(server.url + "/v1/users/me", headers=key, timeout=30).status_code == 401
    assert ada.types(event_group="auth") == []
    found = wait_until(lambda: operator(server, "--type", "auth.refused"))
    # A minute may end within the flood.
    assert 1 <= len(found) <= 3
    assert found[0]["address"] == "127.0.0.1" and found[0]["actor_type"] == "anonymous"
    assert "instavm_sk" not in json.dumps(found)


def operator(server, *words):
    result = server.command("audit", "--json", "--limit", "500", *words)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_operator_sees_all_and_what_operators_did(server, ada, story):
    User(server, "bob@example.org")
    for words in [("user", "plan", "bob@example.org", "free"), ("user", "disable", "bob@example.org"), ("user", "enable", "bob@example.org")]:
        assert server.command(*words).returncode == 0
    bobs = operator(server, "--user", "bob@example.org")
    assert [event["event_type"] for event in bobs] == [
        "user.created", "api_key.created", "user.plan_changed", "user.disabled", "user.enabled"
    ]
    assert {event["actor_type"] for event in bobs} == {"operator"}
    assert bobs[2]["event_payload"] == {"from": "unlimited", "to": "free"}
    everything = operator(server)
    assert everything[0]["event_type"] in ("user.created", "server.started")
    assert {"ada@example.org", "bob@example.org", None} <= {event.get("user") for event in everything}
    text = server.command("audit", "--type", "vm", "--user", "ada@example.org").stdout
    assert "vm.terminated" in text and "by request" in text
    for words, said in [(["--type", "gold"], "session.created"), (["--since", "gold"], "--since"), (["--user", "x@y"], "no user")]:
        result = server.command("audit", *words)
        assert result.returncode != 0 and said in result.stderr, result.stderr


def test_the_operator_follows(server, ada):
    process = subprocess.Popen(
        [PROGRAM, "audit", "--follow", "--json", "--limit", "1", "--type", "api_key.created"],
        env=server.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert json.loads(process.stdout.readline())["event_type"] == "api_key.created"
        made = ada.client.api_keys.create(description="followed")
        assert json.loads(process.stdout.readline())["resource_id"] == str(made["id"])
    finally:
        process.terminate()
        process.wait(30)


def test_asking_for_new_events_reads_an_index_in_order(server):
    database = sqlite3.connect(os.path.join(server.directory, "swiftlet.sqlite"))
    for condition, index in [
        ("owner_id = 1", "audit_by_owner"),
        ("owner_id = 1 AND event_group = 'vm'", "audit_by_group"),
        ("owner_id = 1 AND event_type = 'vm.started'", "audit_by_type"),
        ("owner_id = 1 AND status = 'denied' AND status <> 'success'", "audit_of_refusals"),
        ("+owner_id = 1 AND session_id = 'x' AND event_group = 'vm'", "audit_by_session"),
        ("+owner_id = 1 AND vm_id = 'x'", "audit_by_vm"),
    ]:
        sql = "EXPLAIN QUERY PLAN SELECT * FROM audit_events WHERE %s ORDER BY number DESC LIMIT 50" % condition
        plan = " ".join(row[3] for row in database.execute(sql))
        assert "USING INDEX " + index in plan and "TEMP B-TREE" not in plan, plan
    database.close()


def lines(server):
    text = pathlib.Path(server.directory + ".log").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_of_the_log_is_an_object(server, story):
    for line in lines(server):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
        assert line["level"] in ("debug", "info", "notice", "warning", "error") and line["message"]
        assert "hb.request.id" not in line or "request.id" not in line


def test_a_requests_id_is_in_all_lines_that_it_caused(server, story):
    found = lines(server)
    one = [line for line in found if line.get("request.id") == "story-1"]
    request = [line for line in one if line["message"] == "Request"]
    assert len(request) == 1
    assert request[0]["http.route"] == "/execute" and request[0]["http.status"] == "200"
    assert request[0]["user.id"] and request[0]["session.id"] == story.id and request[0]["execution.id"] == story.execution
    assert float(request[0]["duration_ms"]) > 0
    # The execution went on when its request was answered, in a task of its own.
    ended = [line for line in found if line["message"] == "Execution ended" and line.get("execution.id") == story.task]
    assert [line["request.id"] for line in ended] == ["story-2"]
    assert ended[0]["outcome"] == "exited" and ended[0]["session.id"] == story.id and ended[0]["user.id"]
    for message in ["VM starts", "VM ended"]:
        about = [line for line in found if line["message"] == message and line.get("vm.id") == story.vm]
        assert len(about) == 1 and about[0]["session.id"] == story.id and about[0]["request.id"], about


def test_neither_keys_nor_what_users_keep_are_in_the_log(server, ada, story):
    reply = requests.get(server.url + "/v1/api-keys/" + ada.key, headers={"X-API-Key": ada.key}, timeout=30)
    assert reply.status_code == 404
    text = wait_until(lambda: (log := pathlib.Path(server.directory + ".log").read_text()).count("api-keys/") and log)
    for secret in [MARKER, ada.key, server.key]:
        assert secret not in text


def test_a_stop_and_a_start_are_audited_with_what_they_end(server, ada):
    session = server.session(key=ada.key)
    session.bash("true")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    server.log.close()
    server.start()
    vms = ada.events(event_type="vm.terminated", session_id=session.id)
    assert len(vms) == 1 and "shut" in vms[0]["event_payload"]["reason"]
    assert [event["event_type"] for event in operator(server, "--type", "server")][-2:] == ["server.stopped", "server.started"]
    session.bash("true")
    server.kill()
    server.log.close()
    server.start()
    reasons = [event["event_payload"]["reason"] for event in ada.events(event_type="vm.terminated", session_id=session.id)]
    assert len(reasons) == 2 and "restarted" in reasons[0]
