# SPDX-License-Identifier: Apache-2.0
"""Images that go from one machine to another as a file."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile

import pytest
import requests

from server import IMAGES, PROGRAM, Server, wait_until


def image(directory, *words):
    environment = dict(os.environ, SWIFTLET_IMAGES_DIRECTORY=str(directory))
    return subprocess.run([PROGRAM, "image", *words], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The id of an image of a few bytes, and the file that it was written to."""
    store = tmp_path_factory.mktemp("images")
    name = "minimal-0123456789ab"
    files = {"vmlinuz": b"kernel", "rootfs.ext4": bytes(1 << 20), "packages": b"bash 5.2 amd64\n"}
    (store / name / "modules").mkdir(parents=True)
    for file, content in files.items():
        (store / name / file).write_bytes(content)
    (store / name / "modules/load").write_text("ext4.ko\n")
    (store / name / "modules/ext4.ko").write_bytes(b"module")
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    manifest = {"format": 1, "id": name, "variant": "minimal", "createdAt": "2026-01-01T00:00:00Z", "digests": digests}
    (store / name / "manifest.json").write_text(json.dumps(manifest))
    return name, export(store, name, tmp_path_factory.mktemp("export") / "image.tar.gz")


def export(store, name, file):
    result = image(store, "export", name, str(file))
    assert result.returncode == 0, result.stderr
    return file


def changed(small, path, change):
    """A copy of the archive in which `change` has made another list of (member, content) of the members."""
    with tarfile.open(small[1]) as archive:
        members = [(member, archive.extractfile(member).read() if member.isfile() else None) for member in archive]
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member, content in change(members):
            if content is not None:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if content is not None else None)
    return path


def test_a_server_runs_from_an_image_that_was_imported(tmp_path):
    name = max(pathlib.Path(IMAGES).glob("minimal-*"), key=os.path.getmtime).name
    file = export(IMAGES, name, tmp_path / "image.tar.gz")
    store = tmp_path / "images"
    assert file.stat().st_size < 400 << 20
    result = image(store, "import", str(file))
    assert result.returncode == 0, result.stderr
    assert name in result.stdout
    assert name in image(store, "list").stdout
    assert image(store, "import", str(file)).returncode == 0
    # Holes stay holes.
    assert (store / name / "rootfs.ext4").stat().st_blocks * 512 < (store / name / "rootfs.ext4").stat().st_size
    server = Server(
        SWIFTLET_IMAGES_DIRECTORY=str(store), SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0"
    )
    try:
        assert server.session().run("6 * 7")["stdout"] == "42\n"
    finally:
        server.stop()


def test_a_server_without_an_image_says_so_and_goes_on_when_there_is_one(tmp_path):
    server = Server(SWIFTLET_IMAGES_DIRECTORY=str(tmp_path), SWIFTLET_POOL_SIZE="0", SWIFTLET_POOL_MAXIMUM="0")
    try:
        assert requests.get(server.url + "/health", timeout=30).status_code == 200
        assert requests.get(server.url + "/metrics", timeout=30).status_code == 200
        session = server.session()
        reply = session.post("/execute", {"command": "1", "session_id": session.id})
        assert reply.status_code == 503, reply.text
        assert "swiftlet image build" in reply.json()["detail"] and "swiftlet image import" in reply.json()["detail"]
        newest = max(pathlib.Path(IMAGES).glob("minimal-*"), key=os.path.getmtime)
        subprocess.run(["cp", "-r", "--sparse=always", str(newest), str(tmp_path / ".copy")], check=True)
        (tmp_path / ".copy").rename(tmp_path / newest.name)
        wait_until(lambda: "VMs can start" in server.log_text(), 60)
        assert session.run("6 * 7")["stdout"] == "42\n"
    finally:
        server.stop()
    assert not os.path.exists(server.directory)


def test_an_export_replaces_no_file_and_needs_an_image_that_is_there(tmp_path):
    present = tmp_path / "present"
    present.write_text("mine")
    name = max(pathlib.Path(IMAGES).glob("minimal-*"), key=os.path.getmtime).name
    result = image(IMAGES, "export", name, str(present))
    assert result.returncode != 0 and "exists" in result.stderr
    assert present.read_text() == "mine"
    result = image(IMAGES, "export", "minimal-000000000000", str(tmp_path / "other"))
    assert result.returncode != 0 and "image list" in result.stderr
    assert os.listdir(tmp_path) == ["present"]


def edit(name, content):
    return lambda members: [(member, content if member.name == name else old) for member, old in members]


def edit_manifest(**fields):
    def change(members):
        return [
            (member, json.dumps({**json.loads(old), **fields}).encode() if member.name == "manifest.json" else old)
            for member, old in members
        ]

    return change


def with_link(members):
    link = tarfile.TarInfo("modules/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [*members, (link, None)]


def kernel_as_link(members):
    kept = [(member, old) for member, old in members if member.name != "vmlinuz"]
    link = tarfile.TarInfo("vmlinuz")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [*kept, (link, None)]


@pytest.mark.parametrize(
    "change, words",
    [
        (edit("vmlinuz", b"another kernel"), "digest of vmlinuz differs"),
        (edit("packages", b""), "digest of packages differs"),
        (edit("manifest.json", b"{"), "not an image"),
        (edit_manifest(format=99), "not an image"),
        (edit_manifest(id="../../outside"), "not an image"),
        (edit_manifest(id="standard-0123456789ab"), "not an image"),
        (lambda members: [pair for pair in members if pair[0].name != "packages"], "packages"),
        (with_link, "modules/link"),
        (kernel_as_link, "vmlinuz"),
    ],
    ids=["kernel", "packages", "manifest", "format", "path", "variant", "missing", "link", "kernel-link"],
)
def test_what_is_no_whole_image_is_not_imported(small, tmp_path, change, words):
    store = tmp_path / "images"
    result = image(store, "import", str(changed(small, tmp_path / "changed.tar.gz", change)))
    assert result.returncode != 0 and words in result.stderr, result.stderr
    assert [name for name in os.listdir(store) if name != ".lock"] == []


def test_a_file_that_is_no_archive_is_refused(small, tmp_path):
    store = tmp_path / "images"
    cut = tmp_path / "cut"
    cut.write_bytes(small[1].read_bytes()[:-100])
    result = image(store, "import", str(cut))
    assert result.returncode != 0 and "tar failed" in result.stderr
    result = image(store, "import", str(tmp_path / "none"))
    assert result.returncode != 0 and "There is no file" in result.stderr
    assert [name for name in os.listdir(store) if name != ".lock"] == []
