# SPDX-License-Identifier: Apache-2.0
"""Writes down what users and operators of a server rely on, as text that can be compared.

    python capture.py DIRECTORY        writes openapi.json, metrics.txt and help.txt into DIRECTORY
"""

import json
import pathlib
import re
import sys

import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

COMMANDS = [
    [], ["serve"], ["exec"], ["doctor"], ["image"], ["image", "build"], ["image", "import"], ["image", "export"],
    ["image", "list"], ["template"], ["template", "build"],
    ["template", "list"], ["template", "remove"], ["user"], ["user", "add"], ["user", "list"], ["user", "set-plan"],
    ["user", "disable"], ["user", "enable"], ["user", "set-password"], ["key"], ["key", "create"], ["key", "list"],
    ["key", "revoke"], ["audit"], ["bench"],
]


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
    texts = []
    for command in COMMANDS:
        answer = server.command(*command, "--help")
        if answer.returncode == 0:
            texts.append("== swiftlet %s\n%s" % (" ".join(command), answer.stdout.rstrip()))
    return "\n\n".join(texts) + "\n"


CAPTURES = {"openapi.json": openapi, "metrics.txt": metrics, "help.txt": help_texts}


if __name__ == "__main__":
    from server import Server

    target = pathlib.Path(sys.argv[1])
    server = Server()
    try:
        for name, capture in CAPTURES.items():
            (target / name).write_text(capture(server))
    finally:
        server.stop()
