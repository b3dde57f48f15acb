# SPDX-License-Identifier: Apache-2.0
"""What users and operators rely on stays: a change of it is made in contract/, where a reader sees it, and not by accident."""

import pathlib
import sqlite3
import tempfile

import pytest
import requests

from contract.capture import CAPTURES
from server import Server

CONTRACT = pathlib.Path(__file__).parent / "contract"


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_the_contract_is_the_one_that_is_written_down(server, name):
    captured = CAPTURES[name](server)
    assert captured.splitlines() == (CONTRACT / name).read_text().splitlines()


def test_a_database_of_an_earlier_version_opens_and_serves():
    directory = tempfile.mkdtemp(prefix="swiftlet-test-")
    database = sqlite3.connect(directory + "/swiftlet.sqlite")
    database.executescript((CONTRACT / "database.sql").read_text())
    database.close()
    key, session, execution = (CONTRACT / "database.ids").read_text().split()
    pathlib.Path(directory, "first-key").write_text(key + "\n")
    server = Server(directory=directory)
    try:
        headers = {"X-API-Key": key}
        status = requests.get(server.url + "/v1/sessions/status/" + session, headers=headers, timeout=30)
        assert status.json()["vm_status"] == "killed"
        record = requests.get(server.url + "/v1/executions/" + execution, headers=headers, timeout=30).json()
        assert record["serialized_stdout"] == "kept\n"
        body = {"command": "print(40 + 2)", "session_id": session}
        reply = requests.post(server.url + "/execute", json=body, headers=headers, timeout=120)
        assert reply.json()["stdout"] == "42\n"
        assert "sessions" in server.command("audit", "--json").stdout
    finally:
        server.stop()
