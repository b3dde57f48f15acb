# SPDX-License-Identifier: Apache-2.0
"""What the standard image promises."""

import base64
import http.client
import json
import os
import struct

import pytest

from server import SOAK, Server


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
    assert result["results"][0]["data"]["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    assert session.bash("file /app/plot.png")["stdout"].startswith("/app/plot.png: PNG image data")


def pngs(result):
    """Width and height of each picture among the results."""
    found = []
    for bundle in result["results"]:
        if "image/png" in bundle["data"]:
            picture = base64.b64decode(bundle["data"]["image/png"], validate=True)
            assert picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.endswith(b"IEND\xaeB`\x82")
            found.append(struct.unpack(">II", picture[16:24]))
    return found


def test_figures_are_pictures_as_in_a_notebook(session):
    result = session.run(
        "import matplotlib.pyplot as plt\n"
        "plt.plot([1, 2]); plt.show()\n"
        "plt.figure(figsize=(2, 2)); plt.plot([3, 1])\n"
        "print('out')",
        timeout=300,
    )
    assert (result["stdout"], result["stderr"]) == ("out\n", "")
    assert [r["type"] for r in result["results"]] == ["display_data"] * 2
    (width, height), (small, _) = pngs(result)
    assert 300 < width < 900 and 200 < height < 700 and 100 < small < 250
    # They were closed, and none is shown twice.
    assert session.run("plt.get_fignums()")["stdout"] == "[]\n"
    result = session.run("figure = plt.figure(); figure.gca().plot([1]); plt.close(figure); figure", timeout=60)
    assert result["stdout"] == "<Figure size 640x480 with 1 Axes>\n"
    assert len(pngs(result)) == 1 and result["results"][0]["type"] == "execute_result"
    result = session.run("plt.plot([1]); 1 / 0", timeout=60)
    assert result["exit_code"] == 1 and len(pngs(result)) == 1


def test_a_table_is_html_too(session):
    result = session.run("import pandas\npandas.DataFrame({'a': [1, 2]})", timeout=300)
    data = result["results"][0]["data"]
    assert "<table" in data["text/html"] and data["text/plain"] + "\n" == result["stdout"]


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


@pytest.mark.soak
def test_a_large_file_passes_through_in_flat_memory(session):
    """Each MiB differs from the others, and is compared as it comes back: no time goes into hashes."""
    size = (2048 if SOAK else 384) << 20
    block = os.urandom((1 << 20) - 8)
    path = "/v1/sessions/%s/files/app/huge" % session.id
    headers = {"X-API-Key": session.key}

    def content():
        for number in range(size >> 20):
            yield number.to_bytes(8, "big")
            yield block

    session.bash("true")
    before = session.server.resident_megabytes()
    connection = http.client.HTTPConnection(session.server.url.removeprefix("http://"), timeout=600)
    connection.request("PUT", path, content(), {**headers, "Content-Length": str(size)})
    reply = connection.getresponse()
    assert reply.status == 201, reply.read()
    assert json.load(reply)["size"] == size
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    assert (reply.status, reply.headers["Content-Length"]) == (200, str(size))
    for number in range(size >> 20):
        piece = reply.read(1 << 20)
        assert len(piece) == 1 << 20 and piece[:8] == number.to_bytes(8, "big"), number
        assert memoryview(piece)[8:] == block, number
    assert reply.read() == b""
    connection.close()
    assert session.server.resident_megabytes() - before < 100
    assert int(session.bash("grep VmHWM /proc/1/status | tr -dc 0-9")["stdout"]) < 64 * 1024
