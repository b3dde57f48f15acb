# SPDX-License-Identifier: Apache-2.0
"""The Debian package, installed into fresh Debian systems, used, upgraded, removed and purged there."""

import json
import re

import pytest
import requests

from trees import Service

# Each release with the QEMU that it brings.
RELEASES = {"bookworm": "7.2", "trixie": "10.0"}
SETTINGS = {
    "SWIFTLET_IMAGE_VARIANT": "minimal",
    "SWIFTLET_ACCELERATOR": "tcg",
    "SWIFTLET_VCPU_COUNT": "1",
    "SWIFTLET_POOL_SIZE": "0",
    "SWIFTLET_POOL_MAXIMUM": "0",
    "SWIFTLET_TEMPLATES": "false",
}


def execute(service, key, command):
    reply = requests.post(
        service.url + "/execute", json={"command": command, "timeout": 120}, headers={"X-API-Key": key}, timeout=300
    )
    assert reply.status_code == 200, "%s\n%s" % (reply.text, service.log.read_text())
    return reply.json()


def mode(tree, path):
    return tree.output("stat", "--format=%a %U %G", path)


def check_installation(tree, qemu, version):
    assert tree.output("dpkg-query", "-W", "-f", "${Status}", "swiftlet") == "install ok installed"
    assert tree.output("swiftlet", "--version") == version
    assert (" version %s." % qemu) in tree.output("qemu-system-x86_64", "--version")
    assert mode(tree, "/var/lib/swiftlet") == "700 swiftlet swiftlet"
    assert tree.output("id", "--name", "--groups", "swiftlet").split() == ["swiftlet", "kvm"]
    # Nothing has started, and nothing will at the next boot.
    assert tree.output("find", "/var/lib/swiftlet", "-mindepth", "1") == ""
    assert tree.output("find", "/etc/systemd/system", "-name", "swiftlet*") == ""
    files = tree.output("dpkg", "-L", "swiftlet").splitlines()
    for file in [
        "/usr/share/man/man1/swiftlet.1.gz", "/usr/share/man/man1/swiftlet-serve.1.gz",
        "/usr/share/bash-completion/completions/swiftlet", "/usr/share/zsh/vendor-completions/_swiftlet",
        "/usr/share/fish/vendor_completions.d/swiftlet.fish", "/usr/share/doc/swiftlet/copyright",
        "/usr/share/doc/swiftlet/third-party-licences.gz", "/usr/share/doc/swiftlet/README.Debian",
        "/usr/share/swiftlet/guest/build-image",
    ]:  # fmt: skip
        assert file in files, file
    assert not [file for file in files if "/tests/" in file or ".pyc" in file]
    assert tree.output("dpkg", "--verify", "swiftlet") == ""


def check_service(tree, image, tmp_path):
    """Returns the first key."""
    tree.put(image, "/var/tmp/image.tar.gz")
    # As README.Debian says.
    tree.run("swiftlet", "image", "import", "/var/tmp/image.tar.gz")
    tree.run("chown", "-R", "swiftlet:", "/var/lib/swiftlet/images")
    tree.run("rm", "/var/tmp/image.tar.gz")
    service = Service(tree, tmp_path / "first.log", **SETTINGS)
    try:
        key = tree.output("cat", "/var/lib/swiftlet/first-key")
        result = execute(service, key, "import os; print(6 * 7, os.uname().machine)")
        assert (result["stdout"], result["exit_code"]) == ("42 x86_64\n", 0)
        assert "WITHOUT A JAIL" not in service.log.read_text()
        # The service's user and root can read it, and nobody else.
        assert mode(tree, "/var/lib/swiftlet/first-key") == "600 swiftlet swiftlet"
        assert tree.run("cat", "/var/lib/swiftlet/first-key", user="nobody", check=False).returncode != 0
    finally:
        greeting = service.stop()
    assert greeting.count(key) == 2 and key not in service.log.read_text()
    return key


def check_again(tree, key, tmp_path):
    """A later start, perhaps of another version, finds everything and prints no key."""
    service = Service(tree, tmp_path / "again.log", **SETTINGS)
    try:
        assert execute(service, key, "6 * 7")["stdout"] == "42\n"
    finally:
        greeting = service.stop()
    assert key not in greeting + service.log.read_text()


@pytest.mark.parametrize("release", RELEASES)
def test_the_package_lives_and_dies(tree, release, packages, image, tmp_path):
    first, second = packages
    tree.install(first)
    version = first.name.split("_")[1]
    check_installation(tree, RELEASES[release], version)
    key = check_service(tree, image, tmp_path)

    # An upgrade keeps what the administrator has changed.
    settings = json.loads(tree.output("cat", "/etc/swiftlet/swiftlet.json"))
    changed = tmp_path / "swiftlet.json"
    changed.write_text(json.dumps({**settings, "vmLifetimeSeconds": 600}))
    tree.put(changed, "/etc/swiftlet/swiftlet.json")
    tree.install(second)
    assert tree.output("dpkg-query", "-W", "-f", "${Version}", "swiftlet") == version + "+next"
    assert tree.output("cat", "/etc/swiftlet/swiftlet.json") == changed.read_text()
    check_again(tree, key, tmp_path)

    programs = [file for file in tree.output("dpkg", "-L", "swiftlet").splitlines() if re.match("/usr/(bin|lib|share)/.*swiftlet", file)]
    tree.run("apt-get", "remove", "-q", "-y", "swiftlet")
    assert tree.output("cat", "/var/lib/swiftlet/first-key") == key
    assert tree.output("cat", "/etc/swiftlet/swiftlet.json") == changed.read_text()
    assert len(programs) > 30 and [file for file in programs if tree.run("test", "-e", file, check=False).returncode == 0] == []

    tree.run("apt-get", "purge", "-q", "-y", "swiftlet")
    for path in ("/var/lib/swiftlet", "/etc/swiftlet", "/var/lib/systemd/deb-systemd-helper-enabled/swiftlet.service.dsh-also"):
        assert tree.run("test", "-e", path, check=False).returncode != 0, path
    # Its number must not become another user's.
    assert tree.output("id", "-un", "swiftlet") == "swiftlet"
    assert "swiftlet" not in tree.output("dpkg-query", "-W", "-f", "${Package}\n")
