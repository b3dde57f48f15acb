# SPDX-License-Identifier: Apache-2.0
"""The load generator: its reports, and that the servers that it starts never outlive it."""

import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from server import IMAGES, PROGRAM, TEMPLATES, command_name, descendants, signals_as_usual, wait_until

pytestmark = pytest.mark.alone

BENCH = os.path.join(os.path.dirname(PROGRAM), "swiftlet-bench")
SMALL = ["--count", "3", "--paced-count", "2", "--new-count", "1", "--import-count", "1", "--cold-count", "1", "--idle", "2", "--burst", "12"]


def environment(temporary):
    settings = dict(SWIFTLET_IMAGES_DIRECTORY=IMAGES, SWIFTLET_TEMPLATES_DIRECTORY=TEMPLATES, TMPDIR=str(temporary))
    return dict(os.environ, SWIFTLET_VCPU_COUNT="1", **settings)


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=600, **more)


def test_bench_measures_a_running_server_and_keeps_every_sample(server, tmp_path):
    file = tmp_path / "bench.json"
    result = run(PROGRAM, "bench", "--url", server.url, "--key", server.key, "--count", "5", "--new-count", "2", "--json", str(file))
    assert result.returncode == 0, result.stderr
    assert "p99" in result.stdout and "x py" in result.stdout
    report = json.loads(file.read_text())
    assert [len(sample["values"]) for sample in report["samples"]] == [2, 5, 5]
    assert all(sample["unit"] == "ms" and min(sample["values"]) > 0 for sample in report["samples"])
    assert len(report["python"]["values"]) == 40 and report["failures"] == []
    assert report["host"]["commit"] and report["host"]["qemu"].startswith("QEMU")


def test_bench_of_its_own_servers_ends_with_a_report_of_the_burst(tmp_path):
    file = tmp_path / "bench.json"
    words = [PROGRAM, "bench", "--start", "--image-variant", "minimal", "--accelerator", "tcg", "--json", str(file), *SMALL]
    result = run(*words, "--phase", "burst", "--phase", "idle", env=environment(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(file.read_text())
    counts = {sample["name"]: len(sample["values"]) for sample in report["samples"]}
    assert counts["burst of 12 new sessions"] == 12
    assert counts["python 1+1 in each of 2 idle sessions"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_a_phase_that_fails_is_reported_and_the_exit_status_says_so(tmp_path):
    settings = dict(environment(tmp_path), SWIFTLET_IMAGES_DIRECTORY=str(tmp_path / "none"))
    result = run(PROGRAM, "bench", "--start", "--phase", "burst", *SMALL, env=settings)
    assert result.returncode == 1
    assert "FAILED burst: The server did not start" in result.stdout and "swiftlet image build" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_and_usage_errors_are_the_load_generators_own():
    direct, through = run(BENCH, "--help"), run(PROGRAM, "bench", "--help")
    assert through.returncode == 0 and "--burst" in through.stdout
    assert through.stdout == direct.stdout == run(PROGRAM, "help", "bench").stdout
    wrong = run(PROGRAM, "bench", "--count", "0")
    assert wrong.returncode == run(BENCH, "--count", "0").returncode == 64
    assert "Counts must be positive" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_bench(number, tmp_path):
    words = [PROGRAM, "bench", "--start", "--image-variant", "minimal", "--accelerator", "tcg", "--phase", "pool", *SMALL]
    bench = subprocess.Popen(
        words,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=signals_as_usual,
    )
    try:
        # Its first row is measured on a server that has VMs in its pool.
        assert next(line for line in bench.stderr if "resident memory" in line)
        processes = descendants(bench.pid)
        names = [command_name(pid) for pid in processes]
        assert "swiftlet\n" in names and any("qemu" in name for name in names), names
        assert list(tmp_path.glob("swiftlet-bench-*"))
        bench.send_signal(number)
        assert bench.wait(30) == -number
        wait_until(lambda: not any(is_running(pid) for pid in processes), 30)
        wait_until(lambda: not list(tmp_path.iterdir()), 30)
    finally:
        bench.kill()
        bench.wait()
        bench.stderr.close()


def is_running(pid):
    try:
        return re.search(r"^State:\s+([A-Z])", pathlib.Path("/proc/%d/status" % pid).read_text(), re.M).group(1) != "Z"
    except OSError:
        return False
