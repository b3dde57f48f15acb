# SPDX-License-Identifier: Apache-2.0
"""Schemathesis's hooks: requests meet things that exist, and do not run for ever."""

import itertools
import json
import os
import uuid

import requests
import schemathesis
from schemathesis.generation import GenerationMode

TARGETS = json.loads(os.environ["SWIFTLET_TEST_TARGETS"])
HEADERS = {"X-API-Key": TARGETS["key"]}
counter = itertools.count()


def created(path, field):
    reply = requests.post(TARGETS["url"] + path, json={}, headers=HEADERS, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()[field]


def existing(case):
    """The id of something that this request may do to what it wants."""
    if case.path.startswith("/v1/api-keys"):
        # Its own key would be its last request.
        return str(created("/v1/api-keys", "id"))
    if case.path.startswith("/v1/executions"):
        return TARGETS["execution"]
    if case.method == "DELETE" and case.path == "/v1/sessions/session/{id}":
        return created("/v1/sessions/session", "session_id")
    return TARGETS["session"]


def broken(session):
    """Whether a text is no session's id."""
    try:
        return not uuid.UUID(session)
    except (ValueError, AttributeError, TypeError):
        return True


def is_positive(case, location):
    meta = case.meta
    if meta is None or meta.generation.mode == GenerationMode.POSITIVE:
        return True
    component = {key.value: value for key, value in meta.components.items()}.get(location)
    return component is not None and component.mode == GenerationMode.POSITIVE


@schemathesis.hook
def before_call(context, case, kwargs):
    number = next(counter)
    names = case.path_parameters
    if "id" in names and is_positive(case, "path") and (number % 3 or case.path.startswith("/v1/api-keys")):
        names["id"] = existing(case)
    if "/files" in case.path and not broken(names["id"]):
        # Each session would get a VM.
        names["id"] = TARGETS["session"]
    if "path" in names and is_positive(case, "path") and number % 4 == 0:
        names["path"] = ["app/there.txt", "app", "etc/hostname", "proc/version"][number // 4 % 4]
    if case.path.endswith("/files") and case.method == "GET" and case.query.get("recursive"):
        # An archive of the whole guest takes ten seconds; another directory's must do.
        case.query["recursive"] = "false"
    if not isinstance(case.body, dict):
        return
    if case.body.get("memory_mb") in range(129, 8193):
        case.body["memory_mb"] = 129
    if case.body.get("vcpu_count") in (2, 4, 6, 8):
        case.body["vcpu_count"] = 1
    if str(case.body.get("api_key")).startswith("instavm_sk_"):
        # One that an answer had: it would open what must be refused.
        case.body["api_key"] = "wrong"
    session = case.body.get("session_id")
    if case.path in ("/execute", "/execute_async"):
        if session is None or not broken(session):
            case.body["session_id"] = TARGETS["session"]
        if case.body.get("timeout", 60) in range(5, 601):
            case.body["timeout"] = 5
    elif "session_id" in case.body and is_positive(case, "body"):
        if number % 3 or not broken(session):
            # Whoever waits for a VM that is killed meanwhile gets 503.
            case.body["session_id"] = TARGETS["doomed" if case.path == "/kill" else "session"]
        if "filename" in case.body and number % 2:
            case.body["filename"] = "there.txt"
