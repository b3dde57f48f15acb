# SPDX-License-Identifier: Apache-2.0
"""The unmodified `instavm` package, with nothing but a base URL and a key."""

import json
import os
import subprocess
import sys
import time

import pytest
from instavm import AuthenticationError, InstaVM, NetworkError

from server import wait_until


@pytest.fixture(scope="module")
def client(server):
    client = InstaVM(api_key=server.key, base_url=server.url, timeout=300)
    yield client
    client.kill()


def test_the_constructor_creates_a_session(client):
    assert client.session_id


def test_python_runs_and_keeps_its_state(client):
    assert client.execute("x = 40")["exit_code"] == 0
    result = client.execute("print(x + 2)")
    assert result["stdout"] == "42\n"
    assert result["stderr"] == ""


def test_bash_runs(client):
    result = client.execute("echo $((40 + 2)); pwd", language="bash")
    assert result["stdout"] == "42\n/app\n"


def test_a_failing_program_is_a_result_and_no_error(client):
    assert client.execute("exit 3", language="bash")["exit_code"] == 3
    result = client.execute("raise ValueError('boom')")
    assert result["exit_code"] == 1
    assert "ValueError: boom" in result["stderr"]


def test_the_status_tells_of_a_living_vm(client):
    client.execute("1")
    status = client.get_session_status()
    assert status["vm_status"] == "active"
    assert status["vm_alive"] is True
    assert 0 < status["expires_in_seconds"] <= 300
    assert client.is_session_active()


def test_a_session_without_a_vm_is_not_active(server):
    client = InstaVM(api_key=server.key, base_url=server.url)
    status = client.get_session_status()
    assert (status["exists"], status["vm_assigned"], status["vm_status"]) == (True, False, None)
    assert not client.is_session_active()


def test_kill_ends_the_vm_and_the_next_call_gets_another(server):
    client = InstaVM(api_key=server.key, base_url=server.url)
    first = client.execute("y = 1; y", timeout=120)
    session = client.session_id
    client.kill()
    # The client forgets the session; the server does not.
    client.session_id = session
    status = client.get_session_status()
    assert (status["vm_status"], status["vm_alive"], status["expires_in_seconds"]) == ("killed", False, 0)
    second = client.execute("y", timeout=120)
    assert "NameError" in second["stderr"]
    assert second["vm_id"] != first["vm_id"]
    client.kill()


def test_a_wrong_key_is_an_authentication_error(server):
    with pytest.raises(AuthenticationError):
        InstaVM(api_key="instavm_sk_wrong", base_url=server.url)


@pytest.mark.alone
def test_a_timeout_is_answered_before_the_client_gives_up(client):
    client.execute("1")
    started = time.monotonic()
    result = client.execute("while True: pass", timeout=3)
    assert time.monotonic() - started < 3
    assert result["exit_code"] == 124
    assert result["timed_out"] is True
    assert client.execute("1 + 1")["stdout"] == "2\n"


def test_the_shortest_timeout_is_answered_in_time_too(client):
    client.execute("1")
    result = client.execute("sleep 30", language="bash", timeout=1)
    assert result["exit_code"] == 124


def test_a_server_that_is_not_there_is_a_network_error():
    with pytest.raises(NetworkError):
        InstaVM(api_key="k", base_url="http://127.0.0.1:9", max_retries=0)


def test_a_vm_dies_at_the_end_of_its_lifetime_and_the_session_gets_another(server):
    client = InstaVM(api_key=server.key, base_url=server.url, timeout=20)
    first = client.execute("z = 1", timeout=60)
    assert first["exit_code"] == 0
    wait_until(lambda: not client.is_session_active(), 40)
    second = client.execute("z", timeout=60)
    assert second["exit_code"] == 1
    assert second["session_id"] == first["session_id"]
    assert second["vm_id"] != first["vm_id"]
    assert second["vm_started_at"] > first["vm_started_at"]
    client.kill()


def test_variables_of_the_session_reach_both_languages(server):
    client = InstaVM(api_key=server.key, base_url=server.url, env={"GREETING": "hé 'llo'"}, metadata={"a": "b"})
    assert client.get_session_status()["vm_assigned"] is True
    assert client.execute('printf %s "$GREETING"', language="bash", timeout=120)["stdout"] == "hé 'llo'"
    assert client.execute("import os; print(os.environ['GREETING'])")["stdout"] == "hé 'llo'\n"
    client.kill()


def cli(server, home, *words):
    """The command line of the package."""
    return subprocess.run(
        [sys.executable, "-m", "instavm", *words],
        env={**os.environ, "HOME": str(home), "INSTAVM_BASE_URL": server.url, "INSTAVM_API_KEY": server.key},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_line_runs_code_and_files_in_a_session_of_its_choice(server, session, tmp_path):
    result = cli(server, tmp_path, "exec", "--cmd", "x = 42; print(x)", "--session", session.id, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["stdout"], told["exit_code"], told["session_id"]) == ("42\n", 0, session.id)
    script = tmp_path / "script.sh"
    script.write_text("echo $((40 + 2)); exit 3\n")
    result = cli(server, tmp_path, "exec", str(script), "--session", session.id, "--json")
    assert (json.loads(result.stdout)["stdout"], json.loads(result.stdout)["exit_code"]) == ("42\n", 3)


def test_the_command_line_runs_code_in_the_background(server, session, tmp_path):
    words = ["exec", "--cmd", "sleep 1; echo done", "--language", "bash", "--session", session.id, "--async", "--json"]
    result = cli(server, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    task = json.loads(result.stdout)["task_id"]
    result = cli(server, tmp_path, "exec", "result", task, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["stdout"] == "done\n"
