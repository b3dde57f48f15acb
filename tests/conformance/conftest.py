# SPDX-License-Identifier: Apache-2.0

import pytest

from server import SOAK, Server


def pytest_configure(config):
    config.addinivalue_line("markers", "kvm: runs under KVM too, in the machine of tests/kvm")
    config.addinivalue_line("markers", "qemu: depends on QEMU's version; runs on QEMU 10 too, as what is marked kvm does")
    config.addinivalue_line("markers", "alone: measures times; no other test may run beside it")
    config.addinivalue_line("markers", "soak: has a long form, for `make soak`")


def pytest_report_header():
    return "sizes: " + ("soak" if SOAK else "short; `make soak` runs the full ones")


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def session(server):
    """A session that a module's harmless tests share."""
    session = server.session()
    yield session
    session.kill()


@pytest.fixture
def fresh(server):
    """A session that a test may ruin."""
    session = server.session()
    yield session
    session.kill()
