# SPDX-License-Identifier: Apache-2.0
"""The wire: keys, refusals and their bodies. No test here needs a VM."""

import pytest
import requests

from server import unknown_session, wait_until


@pytest.fixture(scope="module")
def other_key(server):
    result = server.command("user", "add", "other@example.org")
    assert result.returncode == 0, result.stderr
    return result.stdout.split("Key:")[1].split()[0]


@pytest.fixture(scope="module")
def idle(server):
    return server.session()


def execute(server, body, **headers):
    return requests.post(
        server.url + "/execute", json=body, headers=headers or {"X-API-Key": server.key}, timeout=60
    )


def test_health_answers_without_a_key(server):
    reply = requests.get(server.url + "/health", timeout=10)
    assert (reply.status_code, reply.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("form", ["header", "bearer", "body"])
def test_each_form_of_a_key_is_taken(server, idle, form):
    body = {"session_id": idle.id, "timeout": 0, "command": "1"}
    headers = {}
    if form == "header":
        headers["X-API-Key"] = server.key
    elif form == "bearer":
        headers["Authorization"] = "Bearer " + server.key
    else:
        body["api_key"] = server.key
    reply = requests.post(server.url + "/execute", json=body, headers=headers, timeout=10)
    # Past the key: what is refused is the timeout.
    assert reply.status_code == 422


def test_a_wrong_or_missing_key_is_401(server, idle):
    assert execute(server, {"command": "1"}, **{"X-API-Key": "wrong"}).status_code == 401
    assert execute(server, {"command": "1"}, Authorization="Bearer wrong").status_code == 401
    assert execute(server, {"command": "1", "api_key": "wrong"}, A="b").status_code == 401
    reply = execute(server, {"command": "1"}, A="b")
    assert reply.status_code == 401 and isinstance(reply.json()["detail"], str)
    # A wrong key in the header is not made good by one in the body.
    assert execute(server, {"command": "1", "api_key": server.key}, **{"X-API-Key": "wrong"}).status_code == 401


def test_a_revoked_key_is_401(server):
    made = server.command("key", "create", "admin@localhost", "--label", "short-lived")
    number, text = made.stdout.removeprefix("Key ").strip().split(": ")
    assert execute(server, {"command": "1", "timeout": 0}, **{"X-API-Key": text}).status_code == 422
    assert text not in server.command("key", "list").stdout
    assert server.command("key", "revoke", number).returncode == 0
    # Another process revoked it: the server knows within a second.
    wait_until(
        lambda: execute(server, {"command": "1", "timeout": 0}, **{"X-API-Key": text}).status_code == 401, 2
    )
    assert server.command("key", "revoke", number).returncode != 0


def test_another_users_session_does_not_exist(server, idle, other_key):
    headers = {"X-API-Key": other_key}
    assert execute(server, {"command": "1", "session_id": idle.id}, **headers).status_code == 404
    for path in ("status", "session"):
        url = "%s/v1/sessions/%s/%s" % (server.url, path, idle.id)
        assert requests.get(url, headers=headers, timeout=10).status_code == 404
        assert requests.get(url, headers={"X-API-Key": server.key}, timeout=10).status_code == 200
    assert requests.post(server.url + "/kill", json={"session_id": idle.id}, headers=headers, timeout=10).status_code == 404


@pytest.mark.parametrize(
    "field, value, kind",
    [
        ("timeout", 0, "greater_than_equal"),
        ("timeout", 601, "less_than_equal"),
        ("timeout", "x", "int_parsing"),
        ("timeout", 1.5, "int_from_float"),
        ("timeout", [], "int_type"),
        ("command", 7, "string_type"),
        ("code", {}, "string_type"),
        ("language", 7, "string_type"),
        ("session_id", 7, "string_type"),
        ("api_key", 7, "string_type"),
        ("vault_ids", "x", "list_type"),
        ("vault_ids", [7], "string_type"),
    ],
)
def test_execute_refuses_a_wrong_field(server, field, value, kind):
    reply = execute(server, {"command": "1", field: value})
    assert reply.status_code == 422
    problem = reply.json()["detail"][0]
    assert problem["type"] == kind
    assert problem["loc"][:2] == ["body", field]
    assert problem["msg"]


@pytest.mark.parametrize(
    "field, value, kind",
    [
        ("vm_lifetime_seconds", 19, "greater_than_equal"),
        ("vm_lifetime_seconds", 86401, "less_than_equal"),
        ("memory_mb", 127, "greater_than_equal"),
        ("memory_mb", 8193, "less_than_equal"),
        ("vcpu_count", 3, "literal_error"),
        ("env", [], "dict_type"),
        ("env", {"A": 1}, "string_type"),
        ("env", {"A=B": "1"}, "value_error"),
        ("metadata", "x", "dict_type"),
    ],
)
def test_session_creation_refuses_a_wrong_field(server, field, value, kind):
    reply = requests.post(
        server.url + "/v1/sessions/session", json={"api_key": server.key, field: value}, timeout=10
    )
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["type"] == kind


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b'{"timeout": 1e999}']
)
@pytest.mark.parametrize("path", ["/execute", "/kill", "/v1/sessions/session"])
def test_a_body_that_is_no_object_is_422(server, path, body):
    reply = requests.post(server.url + path, data=body, headers={"X-API-Key": server.key}, timeout=30)
    assert reply.status_code == 422
    assert isinstance(reply.json()["detail"], list)


def test_a_body_over_the_limit_is_413(server):
    reply = execute(server, {"command": "x" * (33 << 20)})
    assert reply.status_code == 413
    assert isinstance(reply.json()["detail"], str)


def test_code_over_the_limit_is_413(server):
    assert execute(server, {"command": "x" * (17 << 20)}).status_code == 413


def test_neither_command_nor_code_is_400_in_the_shape_of_a_result(server):
    reply = execute(server, {"language": "python"})
    assert reply.status_code == 400
    body = reply.json()
    assert body["stdout"] == "" and "Missing" in body["stderr"] and body["detail"]


def test_an_unknown_language_is_400(server):
    reply = execute(server, {"command": "1", "language": "cobol"})
    assert reply.status_code == 400
    assert "cobol" in reply.json()["detail"]


def test_what_does_not_exist_is_404(server):
    key = {"X-API-Key": server.key}
    for session in (unknown_session(), "no-uuid"):
        assert execute(server, {"command": "1", "session_id": session}).status_code == 404
        assert requests.get(server.url + "/v1/sessions/status/" + session, headers=key, timeout=10).status_code == 404
        assert requests.get(server.url + "/v1/sessions/session/" + session, headers=key, timeout=10).status_code == 404
    assert execute(server, {"command": "1", "vault_ids": ["vlt_1"]}).status_code == 404
    assert requests.get(server.url + "/nothing", timeout=10).status_code == 404
    assert requests.post(server.url + "/kill", json={"session_id": "x"}, headers=key, timeout=10).status_code == 400
    assert requests.post(server.url + "/kill", json={"session_id": unknown_session()}, headers=key, timeout=10).status_code == 404


def test_killing_a_session_without_a_vm_is_404(idle):
    assert idle.kill().status_code == 404


def test_a_wrong_method_is_405(server):
    reply = requests.get(server.url + "/execute", timeout=10)
    assert reply.status_code == 405
    assert "POST" in reply.headers["Allow"]


def test_a_session_tells_what_it_is_and_no_value_of_its_variables(server):
    session = server.session(vm_lifetime_seconds=60, memory_mb=256, metadata={"a": {"b": [1, None]}})
    reply = requests.get(
        server.url + "/v1/sessions/session/" + session.id, headers={"X-API-Key": server.key}, timeout=10
    ).json()
    assert reply["session_id"] == session.id
    assert (reply["vm_lifetime_seconds"], reply["memory_mb"], reply["vcpu_count"]) == (60, 256, 1)
    assert reply["metadata"] == {"a": {"b": [1, None]}}
    assert reply["vm_id"] is None


def test_the_request_id_comes_back(server):
    reply = requests.get(server.url + "/health", headers={"X-Request-Id": "mine-1"}, timeout=10)
    assert reply.headers["x-request-id"] == "mine-1"
    reply = requests.get(server.url + "/health", headers={"X-Request-Id": "no spaces"}, timeout=10)
    assert reply.headers["x-request-id"] not in ("no spaces", "")
