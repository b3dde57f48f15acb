# SPDX-License-Identifier: Apache-2.0
"""python3 -m pytest benchmarks/peers: what the report makes of measurements, and how a peer's failure is told."""

import pytest

import processes
import report
from measuring import Measurement, PeerError


def measured(name, *milliseconds):
    return Measurement(name, name, lambda: 0.0, milliseconds=list(milliseconds))


def test_a_percentile_is_a_sample_by_nearest_rank():
    assert [report.percentile([4, 1, 3, 2], percent) for percent in (1, 50, 51, 99)] == [1, 2, 3, 4]


def test_each_row_is_a_ratio_to_py_and_ours_to_each_peer_that_was_measured():
    rows = [measured("py", 10, 10), measured("gvisor-ptrace", 200), measured("swiftlet-new", 20, 20, 30)]
    result = report.document({}, {}, rows)
    assert result["ratios"] == {"swiftlet-new": {"py": 2.0, "gvisor-ptrace": 0.1}}
    lines = report.table(result).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["1.00", "20.00", "2.00"]
    assert lines[-1].split() == ["gvisor-ptrace", "0.100"]


def test_without_py_the_rows_have_no_ratio():
    line = report.table(report.document({}, {}, [measured("bash", 1)])).splitlines()[1]
    assert line.split() == ["bash", "1", "1.00", "1.00", "1.00"]


def test_a_peer_that_fails_or_says_something_else_is_no_measurement():
    assert processes.run(["true"], b"") > 0
    with pytest.raises(PeerError, match="false ended with 1"):
        processes.run(["false"], b"")
    with pytest.raises(PeerError, match="echo ended with 0: 3"):
        processes.run(["echo", "3"])
