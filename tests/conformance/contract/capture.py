# SPDX-License-Identifier: Apache-2.0
"""Writes down what users and operators of a server rely on, as text that can be compared.

    python capture.py DIRECTORY        writes openapi.json, metrics.txt, help.txt and settings.txt into DIRECTORY
"""

import json
import pathlib
import re
import sys

import requests

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/conformance"))


def openapi(server):
    document = requests.get(server.url + "/openapi.json", timeout=30).json()
    document["info"].pop("version", None)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def metrics(server):
    """Names, kinds, meanings and label names of the metrics, after some calls."""
    session = server.session()
    for language, code in (("python", "1"), ("bash", "true"), ("python", "1/0")):
        session.post("/execute", {"command": code, "language": language, "session_id": session.id})
    session.kill()
    text = requests.get(server.url + "/metrics", timeout=30).text
    lines = set(re.findall(r"^# .*$", text, re.M))
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", text, re.M):
        lines.add("%s{%s}" % (name, ",".join(sorted(re.findall(r"(\w+)=\"", labels)))))
    return "\n".join(sorted(lines)) + "\n"


def help_texts(server):
    """The help of the program and of all its commands, found by what each help lists."""
    texts = []

    def add(*command):
        answer = server.command(*command, "--help")
        assert answer.returncode == 0, answer.stderr
        texts.append("== swiftlet %s\n%s" % (" ".join(command), answer.stdout.rstrip()))
        listed = answer.stdout.partition("\nSUBCOMMANDS:\n")[2].partition("\n\n")[0]
        for name in re.findall(r"^  ([a-z][a-z-]*)", listed, re.M):
            if name != "help":
                add(*command, name)

    add()
    return "\n\n".join(texts) + "\n"


def settings(server):
    """Name, environment variable and default of each setting; another test holds the page against the code."""
    page = (ROOT / "docs/configuration.md").read_text()
    return "\n".join(" | ".join(row) for row in re.findall(r"^\| (`\w+`) \| (`SWIFTLET_\w+`) \| (.*?) \|", page, re.M)) + "\n"


CAPTURES = {"openapi.json": openapi, "metrics.txt": metrics, "help.txt": help_texts, "settings.txt": settings}


if __name__ == "__main__":
    from server import Server

    target = pathlib.Path(sys.argv[1])
    server = Server()
    try:
        for name, capture in CAPTURES.items():
            (target / name).write_text(capture(server))
    finally:
        server.stop()
