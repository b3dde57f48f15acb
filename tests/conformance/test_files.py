# SPDX-License-Identifier: Apache-2.0
"""Files in and out of a session's microVM, by the client and by plain HTTP."""

import concurrent.futures
import http.client
import io
import os
import socket
import tarfile
import urllib.parse

import instavm
import pytest
import requests

from server import unknown_session, wait_until


class Files:
    """The REST routes of a session's files."""

    def __init__(self, session):
        self.session = session
        self.server = session.server
        self.http = requests.Session()
        self.http.headers["X-API-Key"] = session.key

    def url(self, path, session=None):
        if isinstance(path, str):
            path = path.encode()
        quoted = urllib.parse.quote(path, safe="/~")
        return "%s/v1/sessions/%s/files%s" % (self.server.url, session or self.session.id, quoted)

    def __getattr__(self, method):
        def call(path, **more):
            # Dots are not to be taken out of the path by the client.
            request = requests.Request(method.upper(), "http://x", params=more.pop("params", None),
                                       data=more.pop("data", None), headers=more.pop("headers", None))
            prepared = self.http.prepare_request(request)
            query = prepared.url.partition("?")[2]
            prepared.url = self.url(path, more.pop("session", None)) + ("?" + query if query else "")
            return self.http.send(prepared, timeout=300, **more)

        return call

    def names(self, path):
        reply = self.get(path)
        assert reply.status_code == 200, reply.text
        return [entry["name"] for entry in reply.json()["entries"]]


@pytest.fixture(scope="module")
def files(session):
    return Files(session)


@pytest.fixture(scope="module")
def client(server, session):
    client = instavm.InstaVM(api_key=server.key, base_url=server.url, auto_start_session=False)
    client.session_id = session.id
    return client


def detail(reply):
    return reply.json()["detail"]


# The client


@pytest.mark.parametrize("content", [b"", b"x", b"two\n", bytes(range(256)) * 1021])
def test_the_client_gets_back_what_it_sent(client, tmp_path, content):
    local = tmp_path / "local file"
    local.write_bytes(content)
    reply = client.upload_file(str(local), "/app/from client")
    assert reply["status"] == "success"
    assert reply["size"] == len(content)
    assert client.download_file("/app/from client")["content"] == content
    back = tmp_path / "back"
    assert client.download_file("from client", str(back))["size"] == len(content)
    assert back.read_bytes() == content


def test_a_relative_path_is_under_app(client, session, tmp_path):
    (tmp_path / "f").write_bytes(b"here")
    client.upload_file(str(tmp_path / "f"), "deep/er/f")
    assert session.bash("cat /app/deep/er/f")["stdout"] == "here"


def test_the_name_of_the_callers_file_is_no_path(client, session, tmp_path, monkeypatch):
    (tmp_path / "evil").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    client.upload_file("../%s/evil" % tmp_path.name, "/app/good")
    assert session.bash("ls /app/good; ls /app/evil /evil /app/evil 2>&1 | grep -c 'No such'")["stdout"].startswith("/app/good")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_unpacked_by_recursive(client, session, tmp_path, mode):
    path = tmp_path / "tree.tar"
    with tarfile.open(path, mode) as archive:
        for name, content in [("a/b/c", b"deep"), ("run", b"#!/bin/sh\necho ran\n")]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    target = "/app/tree-" + mode[-1]
    reply = client.upload_file(str(path), target, recursive=True)
    assert reply["status"] == "success"
    assert session.bash("cd %s && cat a/b/c && ./run && stat -c %%u:%%a run" % target)["stdout"] == "deepran\n0:755\n"


def test_what_is_no_archive_is_refused_by_recursive(client, tmp_path):
    (tmp_path / "no.tar").write_bytes(b"this is no archive" * 1000)
    with pytest.raises(instavm.InstaVMError, match="400"):
        client.upload_file(str(tmp_path / "no.tar"), "/app/none", recursive=True)


def test_a_missing_file_is_an_error_of_the_client(client):
    with pytest.raises(instavm.InstaVMError, match="404"):
        client.download_file("/app/missing")


# Forms


def form(server, fields, key=None, **more):
    headers = {"X-API-Key": key} if key else {}
    return requests.post(server.url + "/upload", files=fields, headers=headers, timeout=60, **more)


def test_a_form_may_bring_its_key(server, session):
    fields = [("api_key", (None, server.key)), ("remote_path", (None, "/app/k")), ("session_id", (None, session.id))]
    file = ("file", ("x", b"1"))
    assert form(server, [*fields, file]).status_code == 200
    assert form(server, [*fields[1:], file]).status_code == 401
    assert form(server, [("api_key", (None, "wrong")), *fields[1:], file]).status_code == 401
    # A key behind the file comes too late.
    assert form(server, [*fields[1:], file, fields[0]]).status_code == 401


def test_a_form_says_what_it_lacks(server, session):
    path = ("remote_path", (None, "/app/k"))
    id = ("session_id", (None, session.id))
    file = ("file", ("x", b"1"))
    for fields, missing in [([path, file], "session_id"), ([id, file], "remote_path"), ([id, path], "file"), ([file, id, path], "remote_path")]:
        reply = form(server, fields, server.key)
        assert reply.status_code == 422, fields
        assert detail(reply)[0]["loc"] == ["body", missing]
        assert detail(reply)[0]["type"] == "missing"


@pytest.mark.parametrize(
    "kind, body",
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no boundary" * 10_000),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n1\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * 100_000 + b"\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 100 + b"--x--"),
    ],
)
def test_a_form_that_is_none_is_400(server, kind, body):
    reply = requests.post(server.url + "/upload", data=body, headers={"X-API-Key": server.key, "Content-Type": kind}, timeout=60)
    assert reply.status_code == 400, reply.text
    assert detail(reply)


def test_a_form_that_is_cut_leaves_nothing(server, session, files):
    head = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = head % (b"remote_path", b"/app/cut/f") + head % (b"session_id", session.id.encode())
    body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"y" * 300_000
    headers = {"X-API-Key": server.key, "Content-Type": "multipart/form-data; boundary=x"}
    reply = requests.post(server.url + "/upload", data=body, headers=headers, timeout=60)
    assert reply.status_code == 400
    wait_until(lambda: session.bash("ls -A /app/cut")["stdout"] == "", 10)


def test_download_takes_json_too_and_says_what_it_lacks(server, session, files):
    files.put("/app/j", data=b"json")
    reply = session.post("/download", {"filename": "/app/j", "session_id": session.id})
    assert reply.json() == {"status": "success", "filename": "/app/j", "size": 4, "mode": "0644", "content": "anNvbg=="}
    for body, missing in [({"session_id": session.id}, "filename"), ({"filename": "x"}, "session_id")]:
        for kind in ["json", "data"]:
            reply = requests.post(server.url + "/download", headers={"X-API-Key": server.key}, timeout=30, **{kind: body})
            assert reply.status_code == 422
            assert detail(reply)[0]["loc"] == ["body", missing]


# REST


def test_put_says_whether_it_made_or_replaced(files):
    first = files.put("/app/new", data=b"one")
    assert first.status_code == 201
    assert first.json()["size"] == 3 and first.json()["mode"] == "0644" and first.json()["path"] == "/app/new"
    second = files.put("/app/new", data=b"three")
    assert second.status_code == 200
    reply = files.get("/app/new")
    assert reply.content == b"three"
    assert reply.headers["Content-Length"] == "5"
    assert reply.headers["X-File-Mode"] == "0644"
    assert reply.headers["X-File-Type"] == "file"


def test_modes_are_kept_and_given(files, session):
    assert files.put("/app/m", data=b"1", params={"mode": "0755"}).json()["mode"] == "0755"
    # A file that is replaced keeps its mode and its owner.
    session.bash("chown 1000:1001 /app/m; chmod 4711 /app/m")
    reply = files.put("/app/m", data=b"22").json()
    assert (reply["mode"], reply["uid"], reply["gid"], reply["size"]) == ("4711", 1000, 1001, 2)
    for mode in ["9", "888888", "x", "-1", "77777"]:
        assert files.put("/app/m", data=b"3", params={"mode": mode}).status_code == 422
    assert files.get("/app/m").content == b"22"


NAMES = [
    b"with space",
    b"line\nbreak",
    b"quote\"'\\",
    b"percent%41%",
    b"question?hash#",
    b"..not above",
    "\u00fc\u20ac\U0001f600".encode(),
    ("\u00fc" * 127 + "x").encode(),
    b"no utf-8 \xff\xfe",
    b"-rf",
    b"*",
    b" ",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_one(files, name):
    path = b"/app/names/" + name
    content = os.urandom(100)
    assert files.put(path, data=content).status_code == 201
    assert files.get(path).content == content
    assert files.head(path).headers["Content-Length"] == "100"
    entries = files.get("/app/names").json()["entries"]
    entry = next(e for e in entries if e["name"] == name.decode(errors="replace"))
    assert files.http.get(files.server.url + entry["href"], timeout=30).content == content
    assert ("name_base64" in entry) == (b"\xff" in name)
    assert files.delete(path).status_code == 200
    assert files.get(path).status_code == 404
    assert files.names("/app/names") == []


def test_hostile_paths_are_refused(files):
    assert files.put("/app/" + "x" * 256, data=b"1").status_code == 400
    assert files.put("/" + "a/" * 2100 + "f", data=b"1").status_code == 400
    for raw in ["/app/%00", "/app/%zz", "/app/%4", "/app/%"]:
        for method in ["GET", "PUT", "DELETE", "HEAD"]:
            # Other clients mend a percent sign that stands alone.
            connection = http.client.HTTPConnection(files.server.url.removeprefix("http://"), timeout=30)
            target = files.url("").removeprefix(files.server.url) + raw
            connection.request(method, target, headers={"X-API-Key": files.server.key})
            assert connection.getresponse().status == 400, (method, raw)
            connection.close()
    assert files.delete("/").status_code == 400
    assert files.delete("//", params={"recursive": "true"}).status_code == 400
    assert files.delete("/app/..", params={"recursive": "true"}).status_code == 400


def test_long_names_harm_neither_server_nor_vm(files, session):
    session.bash("true")
    vm = session.status()["vm_id"]
    assert files.get("/app", params={"after": "x" * 255}).status_code == 200
    for count in [256, 33_000, 66_000]:
        assert files.get("/app", params={"after": "x" * count}).status_code == 422
    # There is no room for the name of a partial file beside it.
    for count in [1, 6, 14]:
        path = ("/" + "x" * 254) * 16 + "/" + "y" * count
        assert files.head(path).status_code == 404
        assert files.get(path).status_code == 404
    assert session.bash("echo alive")["stdout"] == "alive\n"
    assert session.status()["vm_id"] == vm


def test_a_path_of_two_thousand_levels_is_made(files, session):
    session.bash("true")
    vm = session.status()["vm_id"]
    path = "/app/deep" + "/a" * 2000
    assert files.put(path, data=b"bottom").status_code == 201
    assert files.get(path).content == b"bottom"
    assert files.put("/app/deep/new/..//", params={"directory": "true"}).status_code == 200
    assert files.delete("/app/deep", params={"recursive": "true"}).status_code == 200
    assert session.status()["vm_id"] == vm


def test_dots_stay_in_the_guest(files, session):
    session.bash("mkdir -p /app/d/e; echo secret > /root/s")
    assert files.get("/app/d/../../root/s").content == b"secret\n"
    up = "/app" + "/.." * 50
    assert files.get(up + "/etc/hostname").text.strip() == session.status()["vm_id"]
    assert files.put("/app/d/../placed", data=b"1").status_code == 201
    assert session.bash("cat /app/placed")["stdout"] == "1"


def test_links_are_followed_as_cp_does(files, session):
    session.bash("cd /app; echo old > real; ln -s real link; ln -s /nowhere/x dangling; ln -s ring1 ring2; ln -s ring2 ring1")
    assert files.get("/app/link").content == b"old\n"
    assert files.put("/app/link", data=b"new").status_code == 200
    assert session.bash("cat /app/real; readlink /app/link")["stdout"] == "newreal\n"
    assert files.get("/app/dangling").status_code == 404
    assert files.put("/app/dangling", data=b"through").status_code == 201
    assert session.bash("cat /nowhere/x; readlink /app/dangling")["stdout"] == "through/nowhere/x\n"
    for call in [files.get, files.put]:
        assert call("/app/ring1", **({"data": b"1"} if call == files.put else {})).status_code in (400, 404)
    # What is removed is the link.
    assert files.delete("/app/link").status_code == 200
    assert session.bash("cat /app/real")["stdout"] == "new"
    entry = next(e for e in files.get("/app").json()["entries"] if e["name"] == "dangling")
    assert (entry["type"], entry["target"]) == ("symlink", "/nowhere/x")


def test_what_is_no_file_is_refused_at_once(files, session):
    session.bash("cd /app; mkfifo fifo; mkdir dir; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/app/sock\")'")
    for path, kind in [("/app/fifo", "pipe"), ("/app/sock", "socket"), ("/dev/zero", "character_device"), ("/dev/vda", "block_device")]:
        assert files.get(path).status_code == 409, path
        assert files.put(path, data=b"1").status_code == 409, path
        assert files.head(path).headers["X-File-Type"] == kind
    assert files.put("/app/dir", data=b"1").status_code == 409
    reply = session.post("/download", {"filename": "/app/dir", "session_id": session.id})
    assert reply.status_code == 409 and "directory" in detail(reply)
    assert files.put("/app/fifo/x", data=b"1").status_code in (404, 409)


def test_files_without_a_size_have_content(files):
    assert files.get("/proc/version").text.startswith("Linux version")
    reply = files.get("/sys/kernel/mm/transparent_hugepage/enabled")
    assert reply.status_code == 200 and "never" in reply.text
    assert files.get("/proc/self/mem").status_code == 409
    assert files.put("/proc/new", data=b"1").status_code in (403, 404)


def test_a_file_of_the_largest_size_breaks_nothing(files, session):
    session.bash("truncate -s 9223372036854771712 /dev/shm/vast; touch -d @99999999999 /dev/shm/vast")
    size = int(files.head("/dev/shm/vast").headers["Content-Length"])
    assert size > 2**62
    assert files.get("/dev/shm/vast", headers={"Range": "bytes=-1"}).content == b"\0"
    assert files.get("/dev/shm/vast", headers={"Range": "bytes=%d-" % size}).status_code == 416
    assert session.post("/download", {"filename": "/dev/shm/vast", "session_id": session.id}).status_code == 413
    entry = next(e for e in files.get("/dev/shm").json()["entries"] if e["name"] == "vast")
    assert entry["size"] == size
    files.delete("/dev/shm/vast")


def test_directories(files, session):
    assert files.put("/app/tree/sub/", data=b"").status_code == 201
    assert files.put("/app/tree/sub", params={"directory": "true"}).status_code == 200
    assert files.put("/app/tree/private", params={"directory": "true", "mode": "0700"}).json()["mode"] == "0700"
    files.put("/app/tree/b", data=b"bb")
    reply = files.get("/app/tree").json()
    assert reply["path"] == "/app/tree" and reply["type"] == "directory" and reply["next"] is None
    shown = [(e["name"], e["type"], e["path"]) for e in reply["entries"]]
    assert shown == [("b", "file", "/app/tree/b"), ("private", "directory", "/app/tree/private"), ("sub", "directory", "/app/tree/sub")]
    assert reply["entries"][0]["size"] == 2 and reply["entries"][0]["modified_at"]
    assert files.get("/app/tree/").json() == reply
    assert files.delete("/app/tree").status_code == 409
    assert files.delete("/app/tree/sub").status_code == 200
    assert files.delete("/app/tree", params={"recursive": "true"}).status_code == 200
    assert files.delete("/app/tree", params={"recursive": "true"}).status_code == 404
    assert "app" in files.names("") and "app" in files.names("/")
    assert files.put("/app/b/", params={"recursive": "perhaps"}).status_code == 422
    # Whatever is at the path, and whether it would matter or not.
    for name, value in [("recursive", ""), ("size", "-1"), ("offset", "x"), ("directory", "perhaps")]:
        assert files.put("/app/b/", params={name: value}).status_code == 422, name
    assert files.get("/etc/hostname", params={"limit": "0"}).status_code == 422


def test_a_large_directory_comes_in_pages(files, session):
    session.bash("mkdir /app/many; cd /app/many; seq -w 2500 | xargs touch")
    seen = []
    after = None
    for _ in range(10):
        reply = files.get("/app/many", params={"limit": "700", **({"after": after} if after else {})}).json()
        seen += [e["name"] for e in reply["entries"]]
        assert len(reply["entries"]) <= 700
        after = reply["next"]
        if after is None:
            break
    assert seen == ["%04d" % n for n in range(1, 2501)]
    for limit in ["0", "10001", "x", "-1"]:
        assert files.get("/app/many", params={"limit": limit}).status_code == 422


def test_a_directory_leaves_and_comes_as_an_archive(files, session):
    session.bash("mkdir -p /app/out/x; cd /app/out; echo 1 > x/one; ln -s x/one link; chmod 750 x")
    reply = files.get("/app/out", params={"recursive": "true"})
    assert reply.status_code == 200 and reply.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(reply.content)) as archive:
        assert sorted(archive.getnames()) == [".", "./link", "./x", "./x/one"]
    assert files.put("/app/in", data=reply.content, params={"recursive": "true"}).status_code == 200
    assert session.bash("cd /app/in; cat link; stat -c %a x")["stdout"] == "1\n750\n"
    assert files.get("/app/out/x/one", params={"recursive": "true"}).status_code == 404
    assert files.get("/app/nothing", params={"recursive": "true"}).status_code == 404
    assert files.put("/app/out/x/one", data=reply.content, params={"recursive": "true"}).status_code == 409


def test_an_archive_cannot_leave_the_guest_or_its_directory(files, session):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ["../above", "/absolute", "good"]:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"1"))
    reply = files.put("/app/jail/inner", data=data.getvalue(), params={"recursive": "true"})
    assert reply.status_code == 400
    assert session.bash("ls /app/jail /absolute 2>&1")["stdout"].count("inner") == 1
    assert session.bash("test -e /app/jail/above -o -e /absolute; echo $?")["stdout"] == "1\n"


# Ranges and conditions


@pytest.mark.parametrize(
    "header, status, content",
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=5-", 206, b"56789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-100", 206, b"0123456789"),
        ("bytes=8-1000", 206, b"89"),
        ("bytes=0-%d" % 2**70, 206, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=4-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=x-", 200, b"0123456789"),
    ],
)
def test_ranges(files, header, status, content):
    files.put("/app/range", data=b"0123456789")
    reply = files.get("/app/range", headers={"Range": header})
    assert reply.status_code == status
    if content is None:
        assert reply.headers["Content-Range"] == "bytes */10"
        return
    assert reply.content == content
    assert reply.headers["Content-Length"] == str(len(content))
    assert (status == 206) == ("Content-Range" in reply.headers)


def test_conditions(files):
    files.put("/app/cond", data=b"0123456789")
    first = files.get("/app/cond")
    tag = first.headers["ETag"]
    assert first.headers["Accept-Ranges"] == "bytes"
    reply = files.get("/app/cond", headers={"If-None-Match": '"x", ' + tag})
    assert (reply.status_code, reply.content) == (304, b"")
    assert files.head("/app/cond").headers["ETag"] == tag
    for condition in [tag, first.headers["Last-Modified"]]:
        assert files.get("/app/cond", headers={"Range": "bytes=1-1", "If-Range": condition}).status_code == 206
    files.put("/app/cond", data=b"9876543210")
    changed = files.get("/app/cond", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.content) == (200, b"9876543210")
    assert changed.headers["ETag"] != tag
    assert files.get("/app/cond", headers={"Range": "bytes=1-1", "If-Range": tag}).content == b"9876543210"


# Resuming


def test_an_upload_can_be_resumed(files, session):
    session.bash("echo old > /app/resumed; chmod 600 /app/resumed")
    reply = files.put("/app/resumed", data=b"01234", params={"offset": "0", "size": "10"})
    assert reply.status_code == 202
    assert reply.json() == {"path": "/app/resumed", "complete": False, "offset": 5}
    assert files.get("/app/resumed").content == b"old\n"
    assert files.head("/app/resumed").headers["X-Upload-Offset"] == "5"
    wrong = files.put("/app/resumed", data=b"x", params={"offset": "4", "size": "10"})
    assert wrong.status_code == 409 and wrong.json()["offset"] == 5
    reply = files.put("/app/resumed", data=b"56789", headers={"Content-Range": "bytes 5-9/10"})
    assert reply.status_code == 200 and reply.json()["complete"] is True and reply.json()["mode"] == "0600"
    assert files.get("/app/resumed").content == b"0123456789"
    assert "X-Upload-Offset" not in files.head("/app/resumed").headers
    assert ".resumed.partial" not in files.names("/app")


def test_a_resumed_upload_that_makes_no_sense_is_refused(files):
    assert files.put("/app/r", data=b"1", params={"offset": "0"}).status_code == 422
    assert files.put("/app/r", data=b"1", params={"offset": "-1", "size": "3"}).status_code == 422
    assert files.put("/app/r", data=b"1", params={"offset": "3", "size": "2"}).status_code == 422
    for header in ["bytes 0-4/10", "bytes 0-0/*", "bytes 1-0/5", "bytes 5-5/5", "x"]:
        assert files.put("/app/r", data=b"1", headers={"Content-Range": header}).status_code == 400
    # More than the whole.
    assert files.put("/app/r", data=b"123", params={"offset": "0", "size": "2"}).status_code == 400
    # What was never begun has no middle.
    reply = files.put("/app/never", data=b"1", params={"offset": "5", "size": "9"})
    assert reply.status_code == 409 and reply.json()["offset"] == 0
    assert files.head("/app/gone").status_code == 404


def cut(files, path, headers, content, query=""):
    """Sends the beginning of a PUT and breaks the connection."""
    host, port = files.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        target = files.url(path).removeprefix(files.server.url) + query
        head = "PUT %s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n%s\r\n" % (target, files.server.key, headers)
        connection.sendall(head.encode() + content)
        # The guest has begun when its temporary file is there.
        directory = path.rsplit("/", 1)[0]
        wait_until(lambda: any(n.endswith(".partial") for n in files.names(directory)))


@pytest.mark.parametrize("headers, content", [
    ("Content-Length: 1000000\r\n", b"x" * 400_000),
    ("Transfer-Encoding: chunked\r\n", b"10000\r\n" + b"x" * 0x10000 + b"\r\n"),
    ("Transfer-Encoding: chunked\r\n", b"10000\r\n" + b"x" * 100),
])
def test_an_upload_that_stops_leaves_the_old_file_alone(files, session, headers, content):
    session.bash("rm -rf /app/stop; mkdir /app/stop; echo old > /app/stop/f")
    cut(files, "/app/stop/f", headers, content)
    wait_until(lambda: files.names("/app/stop") == ["f"], 20)
    assert files.get("/app/stop/f").content == b"old\n"


def test_a_resumable_upload_that_stops_goes_on_where_it_stopped(files, session):
    content = os.urandom(1_000_000)
    session.bash("rm -rf /app/go; mkdir /app/go")
    cut(files, "/app/go/f", "Content-Length: 1000000\r\n", content[:700_000], "?offset=0&size=1000000")
    assert files.get("/app/go/f").status_code == 404

    def resume():
        reply = files.head("/app/go/f")
        assert reply.status_code == 404
        offset = int(reply.headers["X-Upload-Offset"])
        return files.put("/app/go/f", data=content[offset:], params={"offset": str(offset), "size": "1000000"}).status_code == 201

    wait_until(resume, 20)
    assert files.get("/app/go/f").content == content


# Sessions and owners


def test_files_of_other_peoples_sessions_do_not_exist(server, session, files):
    other = server.command("user", "add", "files@example.org").stdout.split("Key:")[1].split()[0]
    files.put("/app/mine", data=b"1")
    for key, id, status in [(other, session.id, 404), (server.key, unknown_session(), 404), (server.key, "x", 404), ("wrong", session.id, 401), (None, session.id, 401)]:
        headers = {"X-API-Key": key} if key else {}
        url = files.url("/app/mine", id)
        for method in ["GET", "PUT", "DELETE", "HEAD"]:
            assert requests.request(method, url, headers=headers, timeout=30).status_code == status, (method, key)
        body = {"filename": "/app/mine", "session_id": id}
        assert requests.post(server.url + "/download", data=body, headers=headers, timeout=30).status_code == status
        fields = [("remote_path", (None, "/app/mine")), ("session_id", (None, id)), ("file", ("x", b"2"))]
        assert form(server, fields, key).status_code == status
    assert files.get("/app/mine").content == b"1"


def test_an_upload_spawns_a_vm(server):
    session = server.session()
    assert session.status()["vm_assigned"] is False
    assert Files(session).put("/app/first", data=b"1").status_code == 201
    assert session.status()["vm_alive"] is True
    assert session.bash("cat first")["stdout"] == "1"
    session.kill()


def test_an_unknown_method_is_405(files):
    reply = files.http.post(files.url("/app/x"), timeout=30)
    assert reply.status_code == 405
    assert set(reply.headers["Allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}


# Limits and losses


class Slow:
    """A body that stops half way until it is told to go on."""

    def __init__(self, size, gate):
        self.size, self.gate = size, gate

    def __iter__(self):
        yield b"x" * (self.size // 2)
        self.gate.result(60)
        yield b"x" * (self.size - self.size // 2)


def test_a_client_that_waits_with_its_body_is_told_to_send_it(files):
    for key, first, last in [(files.server.key, "100 Continue", "201 Created"), ("wrong", "401 Unauthorized", None)]:
        with socket.create_connection((files.server.url.rpartition(":")[0].removeprefix("http://"),
                                       int(files.server.url.rpartition(":")[2])), timeout=30) as connection:
            target = files.url("/app/awaited").removeprefix(files.server.url)
            head = "PUT %s HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            connection.sendall((head % (target, key)).encode())
            reader = connection.makefile("rb")
            assert reader.readline() == b"HTTP/1.1 %s\r\n" % first.encode()
            if last:
                assert reader.readline() == b"\r\n"
                connection.sendall(b"hello")
                assert reader.readline() == b"HTTP/1.1 %s\r\n" % last.encode()
    assert files.get("/app/awaited").content == b"hello"


def test_slow_transfers_hold_up_nobody_and_are_counted(files, session):
    session.bash("mkdir /app/slow")
    gate = concurrent.futures.Future()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        pending = [pool.submit(Files(session).put, "/app/slow/%d" % n, data=Slow(300_000, gate)) for n in range(16)]
        try:
            wait_until(lambda: session.bash("ls -A /app/slow | wc -l")["stdout"] == "16\n")
            refused = files.get("/app/slow")
            assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
            assert session.run("6 * 7")["stdout"] == "42\n"
        finally:
            gate.set_result(None)
        assert [future.result().status_code for future in pending] == [201] * 16
    assert len(files.names("/app/slow")) == 16


def test_downloads_beside_a_flood_keep_their_order_and_their_end(files, session):
    session.bash("true")
    vm = session.status()["vm_id"]
    sized = bytes(range(251)) * 4000
    assert files.put("/app/sized", data=sized).status_code == 201
    # A file without a size, whose content the agent holds in memory.
    words = [b"python3", b"-c", b"import time; time.sleep(600)"] + [b"%09d" % n for n in range(60_000)]
    unsized = b"".join(word + b"\0" for word in words)
    run = "subprocess.Popen(['python3', '-c', 'import time; time.sleep(600)'] + ['%09d' % n for n in range(60_000)])"
    pid = session.run("import subprocess\nsleeper = " + run + "\nprint(sleeper.pid)")["stdout"].strip()
    wait_until(lambda: files.get("/proc/%s/cmdline" % pid).content == unsized)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        flood = pool.submit(session.bash, "timeout 4 yes 0123456789abcdef")
        while not flood.done():
            paths = ["/app/sized", "/proc/%s/cmdline" % pid] * 3
            for path, reply in zip(paths, pool.map(lambda path: Files(session).get(path), paths)):
                assert reply.status_code == 200, reply.text
                assert reply.content == (sized if path == "/app/sized" else unsized)
    assert flood.result()["stdout"].startswith("0123456789abcdef\n")
    session.run("sleeper.kill()")
    assert session.status()["vm_id"] == vm


def test_a_download_that_is_left_stops_in_the_guest(files, session):
    session.bash("head -c 40000000 /dev/zero > /app/left")
    with files.get("/app/left", stream=True) as reply:
        next(reply.iter_content(1000))
        count = "ls -l /proc/1/fd | grep -c /app/left"
        assert session.bash(count)["stdout"] == "1\n"
    wait_until(lambda: session.bash(count)["stdout"] == "0\n", 20)
    session.bash("rm /app/left")


def test_a_vm_that_dies_during_a_transfer_is_told(server):
    session = server.session()
    files = Files(session)
    session.bash("head -c 40000000 /dev/zero > /app/big")
    gate = concurrent.futures.Future()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, files.get("/app/big", stream=True) as reply:
        next(reply.iter_content(1000))
        upload = pool.submit(Files(session).put, "/app/up", data=Slow(2_000_000, gate))
        wait_until(lambda: "partial" in session.bash("ls -A /app")["stdout"])
        assert session.kill().status_code == 200
        gate.set_result(None)
        assert upload.result().status_code == 503
        assert "lost" in detail(upload.result())
        with pytest.raises(requests.exceptions.RequestException):
            for _ in reply.iter_content(1 << 20):
                pass
    # The next call gets a new VM.
    assert files.get("/app/big").status_code == 404
    session.kill()


def responses(server, route, status):
    """How many requests of a route the server has counted with a status."""
    text = requests.get(server.url + "/metrics", timeout=30).text
    sample = 'swiftlet_http_requests_total{method="GET",route="%s",status="%s"} ' % (route, status)
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample))


def test_download_whose_vm_dies_is_an_error_in_log_metrics_and_audit(server):
    route = "/v1/sessions/{id}/files/**"
    session = server.session()
    files = Files(session)
    session.bash("head -c 40000000 /dev/zero > /app/big")
    before = {status: responses(server, route, status) for status in ["200", "aborted", "disconnected"]}
    with files.get("/app/big", stream=True) as reply:
        assert reply.status_code == 200
        request = reply.headers["x-request-id"]
        next(reply.iter_content(1000))
        assert session.kill().status_code == 200
        with pytest.raises(requests.exceptions.RequestException):
            for _ in reply.iter_content(1 << 20):
                pass
    wait_until(lambda: responses(server, route, "aborted") == before["aborted"] + 1, 20)
    assert responses(server, route, "200") == before["200"]
    assert responses(server, route, "disconnected") == before["disconnected"]
    line = next(line for line in server.log_text().splitlines() if request in line and "http.status" in line)
    assert "error" in line and "http.status=aborted" in line, line
    page = files.http.get(server.url + "/v1/audit/events", params={"session_id": session.id, "event_type": "file.downloaded"}, timeout=30)
    event = page.json()["items"][0]
    assert event["status"] == "error" and event["request_id"] == request, event
    # A client that leaves is told apart from a guest that dies, and a whole download is a success.
    session.bash("head -c 40000000 /dev/zero > /app/big")
    with files.get("/app/big", stream=True) as reply:
        next(reply.iter_content(1000))
    wait_until(lambda: responses(server, route, "disconnected") == before["disconnected"] + 1, 20)
    assert len(files.get("/app/big").content) == 40_000_000
    assert responses(server, route, "200") == before["200"] + 1
    assert responses(server, route, "aborted") == before["aborted"] + 1
    session.kill()


def test_a_full_disk_is_507_and_nothing_is_left(fresh):
    files = Files(fresh)
    result = fresh.bash(
        "mkdir full; echo old > full/f; free=$(df -k --output=avail / | tail -n 1); fallocate -l $((free - 5000))K ballast"
    )
    assert result["exit_code"] == 0, result
    reply = files.put("/app/full/f", data=b"x" * 20_000_000)
    assert reply.status_code == 507
    assert "No space left" in detail(reply)
    assert files.names("/app/full") == ["f"]
    assert files.get("/app/full/f").content == b"old\n"
    # The same by an archive, and by a form.
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("x")
        info.size = 20_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    reply = files.put("/app/full/tree", data=archive.getvalue(), params={"recursive": "true"})
    assert reply.status_code == 507 and "No space left" in detail(reply)
    fields = [("remote_path", (None, "/app/full/g")), ("session_id", (None, fresh.id)), ("file", ("x", b"x" * 20_000_000))]
    fresh.bash("rm -r full/tree")
    assert form(fresh.server, fields, fresh.key).status_code == 507
    assert files.names("/app/full") == ["f"]
