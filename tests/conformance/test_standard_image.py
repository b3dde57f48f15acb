# SPDX-License-Identifier: Apache-2.0
"""What the standard image promises."""

import hashlib
import os

import pytest
import requests

from server import Server


@pytest.fixture(scope="module")
def session():
    server = Server(variant="standard")
    session = server.session(vcpu_count=2)
    yield session
    server.stop()


def test_scientific_python_is_there(session):
    result = session.run(
        "import numpy, pandas, matplotlib, httpx, requests\n"
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2]); plt.savefig('/app/plot.png')\n"
        "print(pandas.DataFrame({'a': numpy.arange(3)}).a.sum())",
        timeout=300,
    )
    assert result["stdout"] == "3\n", result["stderr"]
    assert session.bash("file /app/plot.png")["stdout"].startswith("/app/plot.png: PNG image data")


def test_the_tools_are_there(session):
    result = session.bash("python3 --version; node --version; git --version; curl --version | head -1; wget --version | head -1; gcc --version | head -1")
    lines = result["stdout"].split("\n")
    assert lines[0].startswith("Python 3.11")
    assert lines[1].startswith("v18.")
    assert all(lines[:6]) and result["stderr"] == ""
    assert session.bash("cd /tmp && echo 'int main(){return 7;}' > a.c && gcc a.c && ./a.out", 300)["exit_code"] == 7
    assert session.bash("python3 -m venv /tmp/venv && /tmp/venv/bin/python -c 'print(1)'", 300)["stdout"] == "1\n"
    assert session.bash("sudo -n id -u; id -u; echo ~appuser")["stdout"] == "0\n0\n/home/appuser\n"


def test_nothing_leaves_the_guest(session):
    assert session.bash("ip -brief link | awk '{print $1}'")["stdout"] == "lo\n"
    assert session.bash("curl -sS --max-time 5 http://192.0.2.1/")["exit_code"] != 0


def test_two_gigabytes_pass_through_in_flat_memory(session):
    url = "%s/v1/sessions/%s/files/app/huge" % (session.server.url, session.id)
    headers = {"X-API-Key": session.key}
    size = 2 << 30
    block = os.urandom((1 << 20) - 8)
    sent = hashlib.sha256()

    def content():
        for number in range(size >> 20):
            piece = number.to_bytes(8, "big") + block
            sent.update(piece)
            yield piece

    session.bash("true")
    before = session.server.resident_megabytes()
    reply = requests.put(url, data=content(), headers=headers, timeout=600)
    assert reply.status_code == 201, reply.text
    assert reply.json()["size"] == size
    received = hashlib.sha256()
    with requests.get(url, headers=headers, stream=True, timeout=600) as reply:
        assert reply.headers["Content-Length"] == str(size)
        for piece in reply.iter_content(1 << 20):
            received.update(piece)
    assert received.hexdigest() == sent.hexdigest()
    assert session.server.resident_megabytes() - before < 100
    assert int(session.bash("grep VmHWM /proc/1/status | tr -dc 0-9")["stdout"]) < 64 * 1024
