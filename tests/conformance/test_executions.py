# SPDX-License-Identifier: Apache-2.0
"""Executions as records: in the background, their outputs, retries, cancellation, and a server that is killed."""

import concurrent.futures
import hashlib
import json
import os
import signal
import socket
import sqlite3
import time
import uuid
from urllib.parse import urlsplit

import pytest
import requests
from instavm import InstaVM

from events import Follower, random_cuts
from server import Server, unknown_session, wait_until


def headers(server, **more):
    return {"X-API-Key": server.key, **more}


def start(session, command, language="bash", **more):
    reply = session.post("/execute_async", {"command": command, "language": language, "session_id": session.id, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()["task_id"]


def get(server, task, path="", **parameters):
    return requests.get(
        server.url + "/v1/executions/" + task + path, params=parameters, headers=headers(server), timeout=90
    )


def record(server, task):
    reply = get(server, task)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ended(server, task, seconds=60):
    return wait_until(lambda: (found := record(server, task))["is_complete"] and found, seconds)


def cancel(server, task):
    reply = requests.post(
        server.url + "/v1/executions/" + task + "/cancel", headers=headers(server), timeout=30
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


# Background


def test_the_client_runs_code_in_the_background_and_gets_its_result(server):
    client = InstaVM(api_key=server.key, base_url=server.url, timeout=300)
    task = client.execute_async("sleep 1; echo out; echo err >&2; exit 3", language="bash")
    result = client.get_task_result(task["task_id"], poll_interval=1, timeout=60)
    assert result["stdout"] == "out\n"
    assert result["stderr"] == "err\n"
    assert record(server, task["task_id"])["exit_code"] == 3
    client.kill()


def test_a_record_tells_its_states(server, session):
    first = start(session, "import time\nprint('begun', flush=True)\ntime.sleep(3)", "python")
    second = start(session, "print('second')", "python")
    running = wait_until(lambda: (found := record(server, first))["status"] == "running" and found)
    assert (running["is_complete"], running["exit_code"], running["ended_at"]) == (False, None, None)
    assert record(server, second)["status"] == "queued"
    result = ended(server, first)
    assert (result["status"], result["exit_code"], result["serialized_stdout"]) == ("exited", 0, "begun\n")
    assert result["started_at"] < result["ended_at"]
    assert ended(server, second)["serialized_stdout"] == "second\n"


def test_a_synchronous_call_is_a_record_too(server, session):
    result = session.bash("echo hello; kill -9 $$")
    found = record(server, result["execution_id"])
    assert (found["status"], found["signal"], found["exit_code"], found["mode"]) == ("signaled", 9, 137, "sync")
    assert found["serialized_stdout"] == "hello\n"


def test_code_in_the_background_may_run_longer_than_a_caller_would_wait_but_not_than_it_may(server, session):
    found = ended(server, start(session, "echo begun; sleep 60", timeout=2))
    assert (found["status"], found["exit_code"], found["serialized_stdout"]) == ("timed_out", 124, "begun\n")
    assert 2 <= found["execution_time"] < 5


def test_a_vm_that_is_killed_under_its_executions_is_told_as_what_it_is(server):
    session = server.session()
    task = start(session, "echo before; sleep 60")
    wait_until(lambda: get(server, task, "/output").content == b"before\n")
    session.kill()
    found = ended(server, task)
    assert (found["status"], found["exit_code"], found["serialized_stdout"]) == ("vm_lost", -1, "before\n")
    assert "killed by request" in found["serialized_stderr"]


def test_who_hangs_up_stops_nothing(server, session):
    marker = str(uuid.uuid4())
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            server.url + "/execute",
            json={"command": "sleep 2; echo " + marker, "language": "bash", "session_id": session.id},
            headers=headers(server),
            timeout=0.5,
        )
    newest = requests.get(
        server.url + "/v1/executions/", params={"session_id": session.id, "limit": 1}, headers=headers(server), timeout=30
    ).json()[0]
    found = ended(server, newest["id"])
    assert (found["status"], found["serialized_stdout"]) == ("exited", marker + "\n")


# Outputs


def test_an_output_is_followed_by_its_offsets(server, session):
    task = start(session, "for i in 1 2 3; do echo $i; sleep 0.4; done; echo e >&2")
    seen, offset = b"", 0
    while True:
        reply = get(server, task, "/output", offset=offset, wait=20)
        assert reply.status_code == 200
        seen += reply.content
        offset = int(reply.headers["x-next-offset"])
        if reply.headers["x-complete"] == "true":
            break
    assert seen == b"1\n2\n3\n"
    assert get(server, task, "/output", stream="stderr").content == b"e\n"
    assert get(server, task, "/output", offset=2, limit=2).content == b"2\n"
    assert get(server, task, "/output", offset=7).status_code == 416


def test_bytes_that_are_no_text_are_kept_as_they_are(server, session):
    script = "python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)'"
    task = session.bash(script)["execution_id"]
    assert get(server, task, "/output").content == bytes(range(256)) * 1000


def test_a_wait_for_output_is_over_when_its_time_is(server, session):
    task = start(session, "sleep 30")
    begun = time.monotonic()
    reply = get(server, task, "/output", wait=1)
    assert (reply.content, reply.headers["x-complete"]) == (b"", "false")
    assert 0.9 < time.monotonic() - begun < 5
    cancel(server, task)


# Lists


def test_a_list_is_the_newest_first_in_pages(server):
    session = server.session()
    tasks = [session.bash("exit %d" % code)["execution_id"] for code in range(5)]

    def page(**parameters):
        reply = requests.get(
            server.url + "/v1/executions/",
            params={"session_id": session.id, **parameters},
            headers=headers(server),
            timeout=30,
        )
        assert reply.status_code == 200, reply.text
        return [found["exit_code"] for found in reply.json()], reply.headers.get("x-next-cursor")

    assert page()[0] == [4, 3, 2, 1, 0]
    codes, cursor = page(limit=2)
    assert codes == [4, 3] and cursor == tasks[3]
    assert page(limit=2, before=cursor)[0] == [2, 1]
    assert page(status="running")[0] == []
    assert page(language="python")[0] == []
    session.kill()


def test_anothers_execution_is_unknown(server, session):
    task = session.bash("echo secret")["execution_id"]
    other = server.command("user", "add", "other-%s@example.org" % uuid.uuid4()).stdout.split("Key:")[1].split()[0]
    for method, path in [("GET", ""), ("GET", "/output"), ("GET", "/events"), ("POST", "/cancel")]:
        reply = requests.request(
            method, server.url + "/v1/executions/" + task + path, headers={"X-API-Key": other}, timeout=30
        )
        assert reply.status_code == 404
        assert "secret" not in reply.text
    assert requests.get(server.url + "/v1/executions/", headers={"X-API-Key": other}, timeout=30).json() == []


def test_a_list_by_state_finds_what_is_behind_others(server, session):
    first = start(session, "import time; time.sleep(60)", "python")
    second = start(session, "1", "python")
    wait_until(lambda: record(server, first)["status"] == "running")
    parameters = {"session_id": session.id, "status": "running", "limit": 1}
    reply = requests.get(server.url + "/v1/executions/", params=parameters, headers=headers(server), timeout=30)
    assert [found["id"] for found in reply.json()] == [first]
    cancel(server, first)
    ended(server, second)


# Cancellation


@pytest.mark.parametrize("language,command", [
    ("bash", "echo begun; sleep 60"),
    ("python", "import time\nprint('begun', flush=True)\ntime.sleep(60)"),
    # One that does not obey.
    ("python", "import time\nprint('begun', flush=True)\nwhile True:\n  try:\n    time.sleep(60)\n  except BaseException: pass"),
])
def test_what_runs_is_cancelled_and_its_output_kept(server, session, language, command):
    task = start(session, command, language)
    wait_until(lambda: get(server, task, "/output").content == b"begun\n")
    found = cancel(server, task)
    assert (found["status"], found["exit_code"]) == ("cancelled", 130)
    assert record(server, task)["serialized_stdout"] == "begun\n"
    assert session.run("'still here'")["stdout"] == "'still here'\n"
    # Once more changes nothing.
    assert cancel(server, task)["ended_at"] == found["ended_at"]


def test_what_waits_is_cancelled_and_never_runs(server, session):
    first = start(session, "import time; time.sleep(60)", "python")
    second = start(session, "open('/tmp/ran', 'w')", "python")
    wait_until(lambda: record(server, first)["status"] == "running")
    assert cancel(server, second)["status"] == "cancelled"
    assert "did not run" in record(server, second)["serialized_stderr"]
    cancel(server, first)
    assert session.bash("ls /tmp/ran")["exit_code"] != 0


def test_a_caller_who_waits_is_told_of_the_cancellation(server, session):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(session.bash, "echo begun; sleep 60; # " + "cancel me")
        newest = wait_until(
            lambda: [
                found
                for found in requests.get(
                    server.url + "/v1/executions/",
                    params={"session_id": session.id, "status": "running"},
                    headers=headers(server),
                    timeout=30,
                ).json()
                if found["stdout_bytes"]
            ]
        )[0]
        cancel(server, newest["id"])
        result = waiting.result(30)
    assert (result["outcome"], result["exit_code"], result["stdout"]) == ("cancelled", 130, "begun\n")


def test_a_guest_that_does_not_obey_a_cancellation_loses_its_vm():
    server = Server(SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
    try:
        session = server.session()
        task = start(session, "echo begun; sleep 600")
        wait_until(lambda: get(server, task, "/output").content == b"begun\n")
        (machine,) = server.qemus()
        os.kill(machine, signal.SIGSTOP)
        assert cancel(server, task)["status"] == "running"
        found = ended(server, task, 15)
        assert (found["status"], found["serialized_stdout"]) == ("vm_lost", "begun\n")
        assert "was cancelled" in found["serialized_stderr"]
    finally:
        server.stop()


def test_an_end_that_the_database_does_not_take_is_told_truly_and_written_down_later():
    server = Server()
    try:
        session = server.session()
        known = session.bash("true")["execution_id"]
        database = sqlite3.connect(server.directory + "/swiftlet.sqlite", timeout=10)
        task = start(session, "sleep 1; echo out")
        database.execute("ALTER TABLE executions RENAME TO away")
        database.commit()
        # The code runs, and its caller is told how it ended.
        result = session.bash("echo hello; exit 3")
        assert (result["stdout"], result["exit_code"]) == ("hello\n", 3)
        for id, code in [(result["execution_id"], 3), (task, 0)]:
            assert ended(server, id)["exit_code"] == code
        database.execute("ALTER TABLE away RENAME TO executions")
        database.commit()
        query = "SELECT state, exit_code FROM executions WHERE id = ?"
        for id, code in [(result["execution_id"], 3), (task, 0), (known, 0)]:
            wait_until(lambda: database.execute(query, (id,)).fetchone() == ("exited", code), 10)
        assert record(server, task)["serialized_stdout"] == "out\n"
        assert "could not be recorded" in server.log_text()
    finally:
        server.stop()


# Retries


def keyed(server, session, key, command, path="/execute", language="bash"):
    return requests.post(
        server.url + path,
        json={"command": command, "language": language, "session_id": session.id},
        headers=headers(server, **{"Idempotency-Key": key}),
        timeout=120,
    )


def test_the_same_key_fifty_times_at_once_runs_the_command_once(server, session):
    key, name = str(uuid.uuid4()), "/tmp/" + str(uuid.uuid4())
    command = "echo x >> %s; sleep 1; cat %s; date +%%s%%N" % (name, name)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: keyed(server, session, key, command), range(50)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.text for reply in replies}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    assert session.bash("wc -l < " + name)["stdout"] == "1\n"
    # Long after its end, too.
    assert keyed(server, session, key, command).text == replies[0].text


def test_a_key_with_another_request_is_refused(server, session):
    key = str(uuid.uuid4())
    assert keyed(server, session, key, "echo 1").status_code == 200
    for reply in [keyed(server, session, key, "echo 2"), keyed(server, session, key, "echo 1", "/execute_async")]:
        assert reply.status_code == 422
        assert reply.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]


def test_a_retry_in_the_background_has_the_same_task(server, session):
    key = str(uuid.uuid4())
    first = keyed(server, session, key, "sleep 1; echo done", "/execute_async").json()
    second = keyed(server, session, key, "sleep 1; echo done", "/execute_async").json()
    assert first["task_id"] == second["task_id"]
    assert ended(server, first["task_id"])["serialized_stdout"] == "done\n"


def test_a_request_that_could_not_run_does_not_use_its_key_up(server, session):
    key = str(uuid.uuid4())
    for _ in range(2):
        reply = requests.post(
            server.url + "/execute",
            json={"command": "1", "session_id": unknown_session()},
            headers=headers(server, **{"Idempotency-Key": key}),
            timeout=30,
        )
        assert reply.status_code == 404
    assert keyed(server, session, key, "echo 1").json()["stdout"] == "1\n"


# Streams


@pytest.mark.alone
def test_events_come_as_they_happen(server, session):
    follower = Follower(server.url, headers(server))
    begun = time.monotonic()
    reply = requests.post(
        server.url + "/execute?stream=true",
        json={"command": "echo now; sleep 3; echo late; exit 4", "language": "bash", "session_id": session.id},
        headers=headers(server),
        stream=True,
        timeout=60,
    )
    lines = reply.iter_lines()
    while b"now" not in next(lines):
        pass
    assert time.monotonic() - begun < 2.5
    assert b"late" in b"\n".join(lines)
    follower.execution = requests.get(
        server.url + "/v1/executions/", params={"limit": 1}, headers=headers(server), timeout=30
    ).json()[0]["id"]
    follower.resume()
    assert bytes(follower.streams["stdout"]) == b"now\nlate\n"
    assert (follower.exit["exit_code"], follower.exit["outcome"]) == (4, "exited")


def test_rich_results_are_events_and_stay_with_the_execution(server, session):
    follower = Follower(server.url, headers(server))
    follower.begin({"command": "display('first')\n{'a': 1}", "session_id": session.id})
    assert [bundle["data"]["text/plain"] for bundle in follower.results] == ["'first'", "{'a': 1}"]
    assert [bundle["type"] for bundle in follower.results] == ["display_data", "execute_result"]
    found = record(server, follower.execution)
    assert found["results"] == follower.results
    lines = get(server, follower.execution, "/output", stream="results").text.splitlines()
    assert [json.loads(line) for line in lines] == follower.results


def test_a_client_cut_a_hundred_times_gets_every_byte_once(server, session):
    size = 50_000_000
    # Text of one, two, three and four bytes a character, so that cuts fall inside of characters.
    script = "import hashlib, sys\nline = ''.join(chr(33 + i % 90) for i in range(90)) + 'é€🐦\\n'\n"
    script += "text = (line * (%d // len(line.encode()))).encode()\n" % size
    script += "sys.stderr.write(hashlib.sha256(text).hexdigest())\nsys.stderr.flush()\nwritten = sys.stdout.buffer.write(text)"
    follower = Follower(server.url, headers(server))
    cuts = random_cuts(int(size * 1.1), 110, seed=7)
    body = {"command": script, "session_id": session.id, "timeout": 300}
    follower.begin(body, cut=cuts.pop())
    while follower.exit is None and cuts:
        follower.resume(cut=cuts.pop())
    assert follower.connections > 100
    while follower.exit is None:
        follower.resume()
    expected = bytes(follower.streams["stderr"]).decode()
    assert hashlib.sha256(follower.streams["stdout"]).hexdigest() == expected
    assert follower.exit["stdout_bytes"] == len(follower.streams["stdout"]) > 49_000_000


def test_a_client_comes_back_to_execute_itself_with_its_last_id(server, session):
    follower = Follower(server.url, headers(server))
    follower.begin({"command": "echo 1; sleep 1; echo 2", "language": "bash", "session_id": session.id}, cut=400)
    follower.begin({}, **{"Last-Event-ID": follower.last or follower.execution + ":0.0.0"})
    assert bytes(follower.streams["stdout"]) == b"1\n2\n"
    assert follower.exit["exit_code"] == 0


def test_a_last_id_that_cannot_be_is_refused(server, session):
    task = session.bash("echo 1")["execution_id"]
    for last, status in [("x", 400), (task + ":3.0.0", 416), ("exec-" + "0" * 32 + ":0.0.0", 400)]:
        reply = requests.get(
            server.url + "/v1/executions/" + task + "/events",
            headers=headers(server, **{"Last-Event-ID": last}),
            timeout=30,
        )
        assert reply.status_code == status, reply.text


def stalled(server, session, command):
    """A client that follows and reads nothing, behind a small window."""
    address = urlsplit(server.url)
    body = json.dumps({"command": command, "language": "bash", "session_id": session.id, "timeout": 60})
    connection = socket.socket()
    # Before it connects, so that the kernel takes little for a client that reads nothing.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    connection.sendall(
        (
            "POST /execute HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nAccept: text/event-stream\r\n"
            "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (server.key, len(body), body)
        ).encode()
    )
    assert b"200 OK" in connection.recv(1000)
    return connection


def newest(server, session):
    parameters = {"session_id": session.id, "limit": 1}
    reply = requests.get(server.url + "/v1/executions/", params=parameters, headers=headers(server), timeout=30)
    return reply.json()[0]


def test_a_client_that_reads_slowly_slows_the_guest_and_not_the_server(server, session):
    connection = stalled(server, session, "yes | head -c 40000000; echo done >&2")
    wait_until(lambda: newest(server, session)["stdout_bytes"] > 500_000)

    def stands_still():
        before = newest(server, session)["stdout_bytes"]
        time.sleep(1)
        return newest(server, session)["stdout_bytes"] == before

    # Its lead is used up.
    wait_until(stands_still)
    assert newest(server, session)["stdout_bytes"] < 20_000_000
    connection.close()
    # Without the client it goes on.
    found = ended(server, newest(server, session)["id"])
    assert (found["status"], found["stdout_bytes"]) == ("exited", 40_000_000)


def test_a_client_that_reads_nothing_does_not_hide_the_end_of_a_vm(server):
    session = server.session()
    connection = stalled(server, session, "yes")
    wait_until(lambda: newest(server, session)["stdout_bytes"] > 1_000_000)
    session.kill()
    assert ended(server, newest(server, session)["id"], 10)["status"] == "vm_lost"
    assert session.bash("echo next")["stdout"] == "next\n"
    session.kill()
    connection.close()


# The server's end


def test_a_killed_server_leaves_each_execution_in_a_true_state():
    server = Server(variant="minimal")
    try:
        sessions = [server.session(memory_mb=256) for _ in range(4)]
        for session in sessions:
            session.bash("true")
        finished = start(sessions[0], "echo finished")
        ended(server, finished)
        tasks = [
            start(session, "echo %d; sleep 300" % index) for session in sessions for index in range(5)
        ]
        for index, task in enumerate(tasks):
            wait_until(lambda: get(server, task, "/output").content == b"%d\n" % (index % 5))
        # An output is safe half a second after it came.
        time.sleep(1.5)
        server.kill()
        server.log.close()
        server.start()
        for index, task in enumerate(tasks):
            found = record(server, task)
            assert (found["status"], found["is_complete"], found["exit_code"]) == ("node_lost", True, -1)
            assert found["serialized_stdout"] == "%d\n" % (index % 5)
            assert "server ended" in found["serialized_stderr"]
        assert record(server, finished)["serialized_stdout"] == "finished\n"
        # The sessions live on, in new VMs.
        assert sessions[0].bash("echo again")["stdout"] == "again\n"
    finally:
        server.stop()


def test_a_server_that_is_stopped_lets_work_end_and_says_what_it_cut():
    server = Server("--shutdown-seconds", "8")
    session = server.session()
    session.bash("true")
    short = start(session, "sleep 2; echo short")
    long = start(session, "echo long; sleep 300")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(session.bash, "sleep 2; echo waited")
        wait_until(lambda: record(server, long)["status"] == "running" and len(
            requests.get(
                server.url + "/v1/executions/", params={"status": "running"}, headers=headers(server), timeout=30
            ).json()
        ) == 3)
        server.process.terminate()
        wait_until(lambda: session.post("/execute", {"command": "1", "session_id": session.id}).status_code == 503, 10)
        assert waiting.result(30)["stdout"] == "waited\n"
    server.process.wait(60)
    assert long in server.log_text() and short not in server.log_text().split("cut off")[-1]
    server.log.close()
    server.start()
    try:
        assert record(server, short)["serialized_stdout"] == "short\n"
        found = record(server, long)
        assert (found["status"], found["serialized_stdout"]) == ("cancelled", "long\n")
        assert "server was stopped" in found["serialized_stderr"]
    finally:
        server.stop()


def test_outputs_are_kept_for_their_time_and_no_longer():
    server = Server(SWIFTLET_OUTPUT_TOTAL_MB="16")
    try:
        session = server.session()
        first = session.bash("yes | head -c 10000000")["execution_id"]
        second = session.bash("yes | head -c 10000000")["execution_id"]
        wait_until(lambda: record(server, first)["output_expired"])
        assert get(server, first, "/output").status_code == 410
        assert get(server, first, "/events").status_code == 410
        assert len(get(server, second, "/output").content) == 10_000_000
        assert record(server, first)["serialized_stdout"] == ""
    finally:
        server.stop()
