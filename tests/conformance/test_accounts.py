# SPDX-License-Identifier: Apache-2.0
"""Users, keys, log-ins, plans and limits, with the unmodified `instavm` client and command line."""

import html
import http.client
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.parse

import pytest
import requests
from instavm import InstaVM
from instavm.exceptions import AuthenticationError, ForbiddenError, RateLimitError

from server import PROGRAM, Server, wait_until

PASSWORD = "correct horse battery"
PLANS = {
    "tight": {"requestsPerMinute": 60, "requestBurst": 4},
    "one-vm": {"concurrentVms": 1},
    "slow-vms": {"newVmsPerMinute": 1, "newVmBurst": 1},
    "small-disk": {"diskMb": 64},
    "one-run": {"concurrentExecutions": 1, "outputLimitBytes": 2000},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("plans") / "plans.json"
    file.write_text(json.dumps(PLANS))
    # As an earlier version left it under the usual umask.
    directory = tempfile.mkdtemp(prefix="swiftlet-test-")
    os.chmod(directory, 0o755)
    for name in ["swiftlet.sqlite", "token-secret"]:
        with open(os.path.join(directory, name), "w") as opened:
            opened.write("" if name == "swiftlet.sqlite" else "s" * 32)
            os.fchmod(opened.fileno(), 0o644)
    words = ["sh", "-c", 'umask 022; exec "$0" "$@"', PROGRAM]
    server = Server(directory=directory, words=words, SWIFTLET_PLANS_FILE=str(file), SWIFTLET_POOL_SIZE="2")
    yield server
    server.stop()


def test_no_other_user_of_the_machine_can_read_what_the_server_writes(server):
    session = server.session()
    # Larger than what the database keeps.
    session.bash("head -c 200000 /dev/zero | tr '\\0' x")
    found = {}
    for directory, directories, files in os.walk(server.directory):
        # Copies of what the distribution gives to everybody.
        directories[:] = [name for name in directories if not name.startswith("jail-")]
        for name in [".", *files]:
            path = os.path.normpath(os.path.join(directory, name))
            try:
                found[os.path.relpath(path, server.directory)] = oct(os.stat(path).st_mode & 0o777)
            except FileNotFoundError:
                pass
    session.kill()
    assert {".", "swiftlet.sqlite", "swiftlet.sqlite-wal", "swiftlet.sqlite-shm", "token-secret", "first-key"} < set(found)
    assert {"vms", "executions"} <= {path.split("/")[0] for path in found if path.endswith((".qcow2", "stdout"))}, found
    assert {path: mode for path, mode in found.items() if not mode.endswith("00")} == {}


class User:
    def __init__(self, server, email, plan=None, password=None):
        self.server = server
        self.email = email
        words = ["--plan", plan] if plan else []
        words += ["--password-stdin"] if password else []
        result = subprocess.run(
            [PROGRAM, "user", "add", email, *words],
            env=server.environment(),
            input=password and password + "\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        self.key = result.stdout.split("Key:")[1].split()[0]

    def client(self, **options):
        return InstaVM(api_key=self.key, base_url=self.server.url, **options)

    def get(self, path, **headers):
        return requests.get(self.server.url + path, headers=headers or {"X-API-Key": self.key}, timeout=30)

    def log_in(self, password):
        form = {"grant_type": "password", "username": self.email, "password": password}
        return requests.post(self.server.url + "/token", data=form, timeout=30)


def refusal(reply):
    """What a 429 says of the limit that refused; said once."""
    return tuple(reply.headers["RateLimit-" + name] for name in ["Limit", "Remaining", "Reset"])


def test_the_client_knows_who_it_is(server):
    user = User(server, "me@example.org", plan="free")
    me = user.client(auto_start_session=False).get_current_user()
    assert me["email"] == "me@example.org" and me["is_verified"] is True and me["plan"] == "free"
    assert isinstance(me["id"], int) and "name" in me


def test_the_clients_key_manager(server):
    user = User(server, "keys@example.org")
    keys = user.client(auto_start_session=False).api_keys
    made = keys.create(description="ci", expires_in=3600)
    assert made["api_key"] == made["key"] and made["expires_at"]
    assert [key["description"] for key in keys.list()] == ["first key", "ci"]
    assert made["key"] not in json.dumps(keys.list())
    assert keys.update(made["id"], description="new")["description"] == "new"
    assert keys.get(made["id"])["description"] == "new"
    other = InstaVM(api_key=made["key"], base_url=server.url, auto_start_session=False)
    assert other.get_current_user()["email"] == "keys@example.org"
    wait_until(lambda: keys.get(made["id"])["last_used_at"], 10)
    keys.delete(made["id"])
    with pytest.raises(AuthenticationError):
        other.get_current_user()
    assert [key["description"] for key in keys.list()] == ["first key"]


def test_a_key_that_expires_opens_nothing_afterwards(server):
    user = User(server, "expiry@example.org")
    made = server.command("key", "create", "expiry@example.org", "--expires-in", "1").stdout.split()[-1]
    wait_until(lambda: user.get("/v1/users/me", **{"X-API-Key": made}).status_code == 401, 5)
    assert "expired" in server.command("key", "list").stdout
    assert user.get("/v1/users/me").status_code == 200


def test_over_the_limit_the_client_raises_a_rate_limit_error(server):
    user = User(server, "tight@example.org", plan="tight")
    neighbour = User(server, "neighbour@example.org", plan="tight")
    client = user.client()
    with pytest.raises(RateLimitError, match="the tight plan has 60 requests per minute"):
        for _ in range(6):
            client.get_current_user()
    reply = user.get("/v1/users/me")
    assert reply.status_code == 429 and reply.json()["detail"] and int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["RateLimit-Limit"] == "4" and reply.headers["RateLimit-Remaining"] == "0"
    good = neighbour.get("/v1/users/me")
    assert good.status_code == 200 and good.headers["RateLimit-Remaining"] == "3"
    with pytest.raises(RateLimitError):
        for _ in range(6):
            client.execute("1")
    # The limit takes effect elsewhere too, and another plan at once.
    assert server.command("user", "plan", "tight@example.org", "unlimited").returncode == 0
    wait_until(lambda: user.get("/v1/users/me").status_code == 200, 3)
    assert "RateLimit-Limit" not in user.get("/v1/users/me").headers


def test_many_requests_at_once_get_exactly_the_burst(server):
    user = User(server, "flood@example.org", plan="tight")
    codes = []

    def ask():
        with requests.Session() as session:
            for _ in range(10):
                codes.append(session.get(server.url + "/v1/users/me", headers={"X-API-Key": user.key}, timeout=30).status_code)

    started = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    passed = time.monotonic() - started
    assert set(codes) == {200, 429}
    assert 4 <= codes.count(200) <= 4 + passed + 1


def test_what_a_plan_does_not_have_is_forbidden_in_the_clients_words(server):
    user = User(server, "free@example.org", plan="free")
    # The key and the rate are in order: smaller wishes are granted.
    assert user.client(timeout=600, memory_mb=512, cpu_count=2).session_id
    for words, wish in [
        (r"VM lifetime cannot exceed 3600s", {"timeout": 3601}),
        (r"(?=.*free tier)(?=.*Configurable memory)", {"memory_mb": 1024}),
        (r"(?=.*free tier)(?=.*Configurable CPU)", {"cpu_count": 8}),
    ]:
        with pytest.raises(ForbiddenError, match=words):
            user.client(**wish)


def test_those_who_do_not_say_get_what_their_plan_has(server):
    user = User(server, "default@example.org", plan="free")
    session = server.session(key=user.key)
    reply = user.get("/v1/sessions/session/" + session.id).json()
    assert (reply["memory_mb"], reply["vm_lifetime_seconds"]) == (512, 900)


def test_a_plans_vms_are_counted_and_given_back(server):
    user = User(server, "one@example.org", plan="one-vm")
    first = server.session(key=user.key)
    first.bash("true")
    limits = user.get("/v1/users/me/limits").json()
    assert limits["concurrent_vms"] == {"limit": 1, "used": 1, "remaining": 0}
    second = server.session(key=user.key)
    reply = second.post("/execute", {"command": "1", "session_id": second.id})
    assert reply.status_code == 429 and "1 VMs at once" in reply.json()["detail"]
    assert refusal(reply) == ("1", "0", reply.headers["Retry-After"]) and reply.json()["retry_after"] == 5
    # In the background, too, nothing is taken in that cannot run; the key of such a request is not used up.
    key = {"X-API-Key": user.key, "Idempotency-Key": "k"}
    body = {"command": "true", "language": "bash", "session_id": second.id}
    assert requests.post(server.url + "/execute_async", json=body, headers=key, timeout=30).status_code == 429
    # A session that such a request would have made is not left behind.
    made = {"command": "true", "language": "bash"}
    assert requests.post(server.url + "/execute", json=made, headers={"X-API-Key": user.key}, timeout=30).status_code == 429
    count = "SELECT COUNT(*) FROM sessions WHERE owner_id = (SELECT id FROM users WHERE email = 'one@example.org')"
    assert sqlite3.connect(server.directory + "/swiftlet.sqlite").execute(count).fetchone() == (2,)
    with pytest.raises(RateLimitError):
        user.client(env={"A": "b"})
    # The one that lives is not hurt, and its end makes room.
    first.bash("true")
    first.kill()
    assert requests.post(server.url + "/execute_async", json=body, headers=key, timeout=30).status_code == 200
    second.bash("true")
    # A VM that ended by itself makes room for the next of its own session, too.
    for _ in range(3):
        assert second.bash("echo b > /proc/sysrq-trigger; sleep 9", timeout=10)["outcome"] == "vm_lost"
        second.bash("true")
    second.kill()
    assert user.get("/v1/users/me/limits").json()["concurrent_vms"]["used"] == 0


def test_a_plans_executions_are_counted_and_given_back(server):
    user = User(server, "runs@example.org", plan="one-run")
    session = server.session(key=user.key)
    session.bash("true")
    task = session.post(
        "/execute_async", {"command": "sleep 60", "language": "bash", "session_id": session.id}
    ).json()["task_id"]
    assert user.get("/v1/users/me/limits").json()["concurrent_executions"] == {"limit": 1, "used": 1, "remaining": 0}
    for path in ["/execute", "/execute_async"]:
        reply = session.post(path, {"command": "1", "session_id": session.id})
        assert reply.status_code == 429 and "1 executions at once" in reply.json()["detail"]
        assert refusal(reply) == ("1", "0", reply.headers["Retry-After"]) and reply.json()["retry_after"] == 1
    with pytest.raises(RateLimitError):
        user.client().execute("1")
    session.post("/v1/executions/%s/cancel" % task, {})
    # A refusal took no place, and an end gives its own back before it is told.
    for _ in range(20):
        assert session.bash("true")["exit_code"] == 0
    session.kill()


def test_a_plans_limit_on_output_counts_what_it_cut(server):
    user = User(server, "output@example.org", plan="one-run")
    session = server.session(key=user.key)
    result = session.bash("yes | head -c 5000")
    assert (len(result["stdout"]), result["stdout_dropped_bytes"], result["exit_code"]) == (2000, 3000, 0)
    session.kill()


def test_a_session_whose_vm_was_refused_is_not_left_behind(server):
    user = User(server, "refused@example.org", plan="one-vm")
    first = server.session(key=user.key)
    first.bash("true")
    before = sqlite3.connect(server.directory + "/swiftlet.sqlite").execute("SELECT COUNT(*) FROM sessions").fetchone()
    with pytest.raises(RateLimitError):
        user.client(env={"A": "b"})
    after = sqlite3.connect(server.directory + "/swiftlet.sqlite").execute("SELECT COUNT(*) FROM sessions").fetchone()
    assert before == after
    first.kill()


def test_calls_that_come_together_take_one_vm_of_the_plan(server):
    user = User(server, "together@example.org", plan="slow-vms")
    session = server.session(key=user.key)
    results = []
    threads = [threading.Thread(target=lambda: results.append(session.bash("true"))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [result["exit_code"] for result in results] == [0] * 8
    assert len({result["vm_id"] for result in results}) == 1
    session.kill()
    reply = session.post("/execute", {"command": "1", "session_id": session.id})
    assert reply.status_code == 429 and "new VMs per minute" in reply.json()["detail"]
    assert 1 <= int(reply.headers["Retry-After"]) <= 60
    assert refusal(reply)[:2] == ("1", "0") and reply.json()["retry_after"] == int(reply.headers["Retry-After"])


def test_a_plans_disk_is_as_small_as_it_says(server):
    user = User(server, "disk@example.org", plan="small-disk")
    session = server.session(key=user.key)
    result = session.bash("dd if=/dev/zero of=/app/big bs=1M count=200 2>&1; stat -c %s /app/big; rm /app/big")
    assert "No space left on device" in result["stdout"]
    written = int(result["stdout"].split()[-1])
    assert written <= 64 << 20
    session.kill()


def test_a_limiter_that_cannot_count_lets_nobody_in(server):
    limited = User(server, "closed@example.org", plan="tight")
    unlimited = User(server, "open@example.org")
    database = sqlite3.connect(os.path.join(server.directory, "swiftlet.sqlite"), timeout=10)
    with database:
        database.execute("ALTER TABLE rate_limits RENAME TO hidden")
    try:
        reply = limited.get("/v1/users/me")
        assert reply.status_code == 503 and reply.json()["detail"] and reply.headers["Retry-After"]
        assert unlimited.get("/v1/users/me").status_code == 200
    finally:
        with database:
            database.execute("ALTER TABLE hidden RENAME TO rate_limits")
        database.close()
    assert limited.get("/v1/users/me").status_code == 200


def test_a_token_is_had_with_a_password_and_dies_with_it(server):
    user = User(server, "token@example.org", password=PASSWORD)
    reply = user.log_in(PASSWORD)
    assert reply.status_code == 200
    body = reply.json()
    assert body["token_type"] == "bearer" and body["expires_in"] == 3600
    bearer = {"Authorization": "Bearer " + body["access_token"]}
    assert user.get("/v1/users/me", **bearer).json()["email"] == "token@example.org"
    changed = subprocess.run(
        [PROGRAM, "user", "password", "token@example.org"],
        env=server.environment(),
        input="another password\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert changed.returncode == 0, changed.stderr
    wait_until(lambda: user.get("/v1/users/me", **bearer).status_code == 401, 3)
    assert user.log_in(PASSWORD).status_code == 400
    assert user.log_in("another password").status_code == 200


def test_a_disabled_user_is_shut_out_with_keys_and_tokens(server):
    user = User(server, "disabled@example.org", password=PASSWORD)
    bearer = {"Authorization": "Bearer " + user.log_in(PASSWORD).json()["access_token"]}
    assert user.get("/v1/users/me").status_code == 200
    assert server.command("user", "disable", "disabled@example.org").returncode == 0
    wait_until(lambda: user.get("/v1/users/me").status_code == 401, 3)
    assert user.get("/v1/users/me", **bearer).status_code == 401
    assert user.log_in(PASSWORD).status_code == 400
    assert "disabled" in server.command("user", "list").stdout
    assert server.command("user", "enable", "disabled@example.org").returncode == 0
    wait_until(lambda: user.get("/v1/users/me").status_code == 200, 3)
    assert user.get("/v1/users/me", **bearer).status_code == 401


@pytest.mark.alone
def test_an_unknown_user_takes_as_long_as_a_wrong_password(server):
    def seconds(email, source):
        form = urllib.parse.urlencode({"username": email, "password": "wrong password"})
        started = time.monotonic()
        # Five failures of an account and twenty of an address are free of pauses.
        assert post_from(source, server, "/token", form, kind="application/x-www-form-urlencoded") == 400
        return time.monotonic() - started

    rounds = []
    for batch in range(5):
        emails = [name + str(batch) + "@example.org" for name in ["timed", "without", "nobody", "no body"]]
        User(server, emails[0], password=PASSWORD)
        User(server, emails[1])
        # In turn, so that a busy moment is everybody's. It makes a time longer and never shorter: the shortest of enough tell.
        rounds += [[seconds(email, "127.0.1.%d" % batch) for email in emails] for _ in range(5)]
        fastest = [min(times) for times in zip(*rounds)]
        if max(fastest) < min(fastest) * 1.5:
            break
    # No hash at all would take a hundredth.
    assert max(fastest) < min(fastest) * 1.5, rounds


def post_from(source, server, path, body, host="127.0.0.1", kind="application/json"):
    """A request from an address of this machine's; the answer's status."""
    port = int(server.url.rsplit(":", 1)[1])
    connection = http.client.HTTPConnection(host, port, timeout=30, source_address=(source, 0))
    connection.request("POST", path, body, {"Content-Type": kind})
    status = connection.getresponse().status
    connection.close()
    return status


def begin_log_in(server, source, host="127.0.0.1"):
    body = {
        "state": "s",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "redirect_uri": "http://127.0.0.1:1/",
    }
    return post_from(source, server, "/api/cli-auth/start", json.dumps(body), host)


def test_each_address_has_limits_of_its_own(server):
    assert [begin_log_in(server, "127.0.0.5") for _ in range(11)] == [200] * 10 + [429]
    assert begin_log_in(server, "127.0.0.6") == 200


def test_addresses_of_ipv4_are_themselves_on_a_socket_for_both():
    server = Server("--host", "::", SWIFTLET_POOL_SIZE="0")
    try:
        assert [begin_log_in(server, "127.0.0.5") for _ in range(11)] == [200] * 10 + [429]
        assert begin_log_in(server, "127.0.0.6") == 200
        assert begin_log_in(server, "::1", "::1") == 200
    finally:
        server.stop()


def test_a_proxy_that_nobody_told_of_is_warned_of_once(server):
    words = "the setting proxies is 0"
    assert words not in server.log_text()
    for number in range(3):
        form = {"username": "nobody@example.org", "password": "x", "grant_type": "none"}
        requests.post(server.url + "/token", data=form, headers={"X-Forwarded-For": "192.0.2.1"}, timeout=30)
        requests.post(server.url + "/api/cli-auth/exchange", json={}, headers={"X-Forwarded-For": "192.0.2.1"}, timeout=30)
    assert server.log_text().count(words) == 1


def test_the_command_line_says_what_is_wrong(server):
    for words, said in [
        (["user", "plan", "nobody@example.org", "free"], "no user nobody@example.org"),
        (["user", "plan", "admin@localhost", "gold"], "free, one-run, one-vm, pro"),
        (["user", "add", "x@example.org", "--plan", "gold"], "free, one-run, one-vm, pro"),
        (["user", "disable", "nobody@example.org"], "no user nobody@example.org"),
        (["key", "create", "admin@localhost", "--expires-in", "0"], "--expires-in"),
        (["user", "password", "admin@localhost"], "8 to 1024 bytes"),
    ]:
        result = subprocess.run(
            [PROGRAM, *words], env=server.environment(), input="short\n", capture_output=True, text=True, timeout=60
        )
        assert result.returncode != 0 and said in result.stderr, (words, result.stderr)


def test_a_password_is_asked_for_unseen_and_twice(server):
    user = User(server, "terminal@example.org")

    def answer(*lines):
        master, slave = os.openpty()
        process = subprocess.Popen(
            [PROGRAM, "user", "password", "terminal@example.org"],
            env=server.environment(),
            stdin=slave,
            stderr=subprocess.PIPE,
        )
        try:
            for line in lines:
                # The echo is off before the prompt is there.
                said = b""
                while not said.endswith(b": "):
                    said += process.stderr.read(1)
                os.write(master, line.encode() + b"\n")
            words = process.stderr.read().decode()
            code = process.wait(60)
            # What a terminal would have shown: nothing.
            os.set_blocking(master, False)
            try:
                shown = os.read(master, 1000)
            except BlockingIOError:
                shown = b""
            assert shown.strip() == b""
            assert termios.tcgetattr(slave)[3] & termios.ECHO
            return code, words
        finally:
            os.close(slave)
            os.close(master)

    assert answer(PASSWORD, PASSWORD)[0] == 0
    assert user.log_in(PASSWORD).status_code == 200
    code, words = answer(PASSWORD, PASSWORD + "x")
    assert code != 0 and "not the same" in words


def instavm(server, home, *words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "instavm", *words],
        env={**os.environ, "HOME": str(home), "INSTAVM_BASE_URL": server.url, "BROWSER": "true", "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def log_in(server, home, email, password):
    """Runs `instavm login` with a browser of ours; returns what it said."""
    process = instavm(server, home, "login")
    url = None
    for line in process.stdout:
        found = re.search(r"https?://\S+/api/cli-auth/\S+", line)
        if found:
            url = found.group(0)
            break
    assert url, process.stderr.read()
    with requests.Session() as browser:
        page = browser.get(url, timeout=30)
        assert page.status_code == 200 and 'type="password"' in page.text
        assert os.uname().nodename[:100] in html.unescape(page.text)
        wrong = browser.post(url, data={"email": email, "password": "wrong password"}, timeout=30)
        assert wrong.status_code == 401 and "wrong" in wrong.text
        # Requests follows the redirect to the command line's own port, as a browser does.
        done = browser.post(url, data={"email": email, "password": password}, timeout=30)
        assert done.status_code == 200 and "127.0.0.1" in done.url
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return stdout


def test_instavm_login_gets_a_key_and_uses_it(server, tmp_path):
    user = User(server, "cli@example.org", password=PASSWORD)
    assert "Logged in as cli@example.org" in log_in(server, tmp_path, "cli@example.org", PASSWORD)
    described = [key["description"] for key in user.get("/v1/api-keys/").json()]
    assert described == ["first key", "CLI - " + os.uname().nodename]
    again, _ = instavm(server, tmp_path, "login").communicate(timeout=60)
    assert "Already logged in as cli@example.org" in again
    out, _ = instavm(server, tmp_path, "auth", "logout").communicate(timeout=60)
    assert "Logged in as cli@example.org" in log_in(server, tmp_path, "cli@example.org", PASSWORD)


def test_limits_survive_a_restart(server):
    user = User(server, "restart@example.org", plan="slow-vms")
    session = server.session(key=user.key)
    session.bash("true")
    server.kill()
    server.start()
    reply = session.post("/execute", {"command": "1", "session_id": session.id})
    # The VM is gone with the server, and another is not due yet.
    assert reply.status_code == 429 and "new VMs per minute" in reply.json()["detail"]
