# SPDX-License-Identifier: Apache-2.0
"""Debian installations in directories, which commands can be run in."""

import concurrent.futures
import fcntl
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import time

from server import children

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = pathlib.Path(os.environ.get("SWIFTLET_PACKAGE_CACHE") or os.path.expanduser("~/.cache/swiftlet-package"))
RELEASES = ["bookworm", "trixie"]
# What an archive is made from.
RECIPE = [HERE / "build-tree", ROOT / "scripts/debian-sources", ROOT / "packaging/debian/control"]
# Then it is made anew, of the packages that Debian has then.
MAXIMUM_AGE = 7 * 86_400


def archives():
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in RECIPE)).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock, concurrent.futures.ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in CACHE.glob("*.tar"):
            if digest not in old.name or time.time() - old.stat().st_mtime > MAXIMUM_AGE:
                old.unlink()
        files = pool.map(lambda release: archive(release, digest), RELEASES)
        return dict(zip(RELEASES, files))


def archive(release, digest):
    file = CACHE / ("%s-%s.tar" % (release, digest))
    if not file.exists():
        building = file.with_suffix(".building")
        building.unlink(missing_ok=True)
        subprocess.run([HERE / "build-tree", release, building], check=True)
        building.rename(file)
    return file


class Tree:
    def __init__(self, directory):
        self.directory = directory

    def unpack(self, archive):
        self.directory.mkdir()
        words = ["tar", "-C", self.directory, "-xf", archive, "--exclude=./dev/*"]
        subprocess.run(as_root(words), check=True)

    def remove(self):
        subprocess.run(as_root(["rm", "-rf", "--one-file-system", self.directory]), check=True)

    def run(self, *words, user=None, check=True, timeout=300):
        result = subprocess.run(self.words(words, user), capture_output=True, text=True, timeout=timeout)
        if check:
            assert result.returncode == 0, "%s\n%s\n%s" % (" ".join(map(str, words)), result.stdout, result.stderr)
        return result

    def output(self, *words, **options):
        return self.run(*words, **options).stdout.strip()

    def install(self, package):
        """As an administrator would, without what is only recommended."""
        self.put(package, "/root/" + package.name)
        self.run("apt-get", "install", "-q", "-y", "--no-install-recommends", "/root/" + package.name)

    def put(self, file, path):
        """Copies a file of the host's into the tree, readable by all there."""
        with open(file, "rb") as source:
            words = self.words(["sh", "-c", 'umask 022; cat >"$1"', "sh", path], None)
            subprocess.run(words, stdin=source, check=True)

    def words(self, words, user):
        # As the service manager starts it: with its own user and all of that user's groups.
        switch = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []
        return [HERE / "enter", self.directory, *switch, *words]


class Service:
    """The server of an installed package, started as its unit says, but on a free port."""

    def __init__(self, tree, log, **settings):
        unit = tree.output("cat", "/lib/systemd/system/swiftlet.service")
        command = re.search(r"^ExecStart=(.+)$", unit, re.MULTILINE).group(1)
        user = re.search(r"^User=(.+)$", unit, re.MULTILINE).group(1)
        settings = {"SWIFTLET_PORT": "0", "HOME": "/var/lib/swiftlet", **settings}
        words = ["env", *("%s=%s" % pair for pair in settings.items()), *command.split()]
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                tree.words(words, user), stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
            )
        self.greeting = ""
        for line in self.process.stdout:
            self.greeting += line
            found = re.search(r"listens on (http://\S+:\d+)", line)
            if found:
                self.url = found.group(1)
                break
        else:
            raise RuntimeError("The server did not start: %s\n%s" % (self.greeting, log.read_text()))

    def stop(self):
        """Ends it as the service manager does; returns all that it printed."""
        # Below `unshare`, which does not pass signals on.
        for pid in children(self.process.pid):
            os.kill(pid, signal.SIGTERM)
        try:
            self.process.wait(60)
            self.greeting += self.process.stdout.read()
        finally:
            self.process.kill()
        assert self.process.returncode == 0, self.log.read_text()
        return self.greeting


def as_root(words):
    """In the tree's own user namespace, where a normal user's files have their right owners."""
    return words if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--map-auto", "--", *words]
