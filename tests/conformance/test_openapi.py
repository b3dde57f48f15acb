# SPDX-License-Identifier: Apache-2.0
"""The API's description is valid, and the server is as it says.

SWIFTLET_TEST_SCHEMATHESIS has more words for schemathesis, to look longer: `--max-examples 300 --seed 7`.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

from server import ROOT, Server

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def small():
    """A server whose VMs are small, and which the requests of a test may fill up."""
    server = Server("--pool-size", "0")
    yield server
    server.stop()


def document(server):
    reply = requests.get(server.url + "/openapi.json", timeout=30)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def test_the_document_is_valid_openapi_3_1(server):
    described = document(server)
    assert described["openapi"].startswith("3.1.")
    assert described["info"]["version"] == requests.get(server.url + "/health", timeout=30).json()["version"]
    assert list(OpenAPIV31SpecValidator(described).iter_errors()) == []


def test_the_page_of_routes_names_each_path_and_no_other(server):
    page = (ROOT / "docs/http-api.md").read_text()
    table = page[: page.index("\n## ")]
    named = set()
    for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        paths = re.findall(r"(/[^`, ]*)", row)
        # `/start`, `/exchange` stand for paths beside the first.
        base = paths[0].rsplit("/", 1)[0]
        named |= {paths[0]} | {path if path.count("/") > 1 or base == "" else base + path for path in paths[1:]}
    described = {path for path in document(server)["paths"]}
    # The log-in's page and the guest's root belong to rows that are there.
    described -= {"/api/cli-auth/login/{id}", "/v1/sessions/{id}/files"}
    assert {path.rstrip("/") for path in named} == described


UNREACHED = {
    # A log-in needs a browser, a person and their password; its own tests have them.
    "POST /token",
    "GET /api/cli-auth/login/{id}",
    "POST /api/cli-auth/login/{id}",
    "POST /api/cli-auth/exchange",
    # The guest's root stays.
    "DELETE /v1/sessions/{id}/files",
}


def unreached(server):
    """Operations of which no request succeeded."""
    numbers = requests.get(server.url + "/metrics", timeout=30).text
    pattern = r'^swiftlet_http_requests_total\{method="(\w+)",route="([^"]+)",status="[23]'
    answered = re.findall(pattern, numbers, re.MULTILINE)
    reached = {"%s %s" % (method, route.replace("**", "{path}")) for method, route in answered}
    paths = document(server)["paths"]
    return {"%s %s" % (method.upper(), path) for path in paths for method in paths[path]} - reached


def test_the_server_is_as_it_is_described(small):
    session, other, doomed = small.session(), small.session(), small.session()
    doomed.run("1")
    execution = session.run("open('/app/there.txt', 'w').write('there')")["execution_id"]
    targets = {"url": small.url, "key": small.key, "session": session.id, "doomed": doomed.id, "execution": execution}
    environment = dict(
        os.environ,
        SWIFTLET_TEST_TARGETS=json.dumps(targets),
        SWIFTLET_TEST_KEY=small.key,
        SCHEMATHESIS_HOOKS="openapi_hooks",
        PYTHONPATH=str(HERE),
    )
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run"]
    run = subprocess.run(
        [*command, small.url + "/openapi.json", *os.environ.get("SWIFTLET_TEST_SCHEMATHESIS", "").split()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    found = re.search(r"Selected: (\d+)/\1\n\s+Tested: \1\n", run.stdout)
    assert found and int(found.group(1)) >= 41, run.stdout[-2_000:]
    assert unreached(small) == UNREACHED
    # It still does what it is for.
    assert other.run("6 * 7")["stdout"] == "42\n"
