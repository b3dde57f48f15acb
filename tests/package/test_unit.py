# SPDX-License-Identifier: Apache-2.0
"""The package under a systemd that was booted, in the emulated machine of the KVM tests."""

import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.soak
def test_the_unit_runs_under_systemd(packages):
    words = [ROOT / "tests/kvm/run", "--systemd", "--timeout", "1200", "--venv", sys.prefix]
    for package in packages:
        words += ["--with", package]
    checks = ["python3", "-m", "pytest", "-q", "-rP", "--durations=0", "tests/package/unit_checks.py"]
    assert subprocess.run([*words, "--", *checks]).returncode == 0
