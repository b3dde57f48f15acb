# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/conformance"))

import trees  # noqa: E402
from server import IMAGES, PROGRAM  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: takes long; for `make soak` and `make test-package`")


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """The package, and one of the same files whose version is higher."""
    directory = tmp_path_factory.mktemp("packages")
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    versions = [version, version + "+next"]
    for each in versions:
        subprocess.run([ROOT / "scripts/build-deb", directory, each], check=True)
    return [directory / ("swiftlet_%s_amd64.deb" % each) for each in versions]


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The newest minimal image, as a file."""
    file = tmp_path_factory.mktemp("image") / "minimal.tar.gz"
    name = max(pathlib.Path(IMAGES).glob("minimal-*"), key=os.path.getmtime).name
    environment = dict(os.environ, SWIFTLET_IMAGES_DIRECTORY=IMAGES)
    subprocess.run([PROGRAM, "image", "export", name, file], env=environment, check=True)
    return file


@pytest.fixture(scope="session")
def archives():
    """A fresh Debian of each release, as a tar file; made at once."""
    return trees.archives()


@pytest.fixture
def tree(archives, release, tmp_path):
    """A Debian of a release that nothing was installed in yet."""
    tree = trees.Tree(tmp_path / "tree")
    tree.unpack(archives[release])
    yield tree
    tree.remove()
