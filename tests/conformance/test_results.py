# SPDX-License-Identifier: Apache-2.0
"""Rich results of python calls, on a real microVM."""

import base64

import pytest


def shown(session, source, **more):
    result = session.run(source, **more)
    assert (result["exit_code"], result["stderr"]) == (0, "")
    return result["results"]


def test_a_value_is_shown_as_text_and_as_a_bundle(session):
    result = session.run("40 + 2")
    assert result["stdout"] == "42\n"
    assert result["results"] == [{"type": "execute_result", "data": {"text/plain": "42"}, "metadata": {}}]
    assert result["results_dropped"] == 0


def test_a_call_that_shows_nothing_has_no_results(session):
    for source, language in (("x = 1", "python"), ("1 / 0", "python"), ("echo 1", "bash")):
        result = session.run(source, language)
        assert (result["results"], result["results_dropped"]) == ([], 0)


def test_an_object_is_shown_in_each_of_its_forms(session):
    display, value = shown(
        session,
        "class Rich:\n"
        "    def __repr__(self): return 'rich é'\n"
        "    def _repr_html_(self): return '<b>\\n</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n'\n"
        "    def _repr_json_(self): return {'a': [1.5, float('nan')]}\n"
        "display(Rich())\n"
        "Rich()",
    )
    assert display["type"] == "display_data" and value["type"] == "execute_result"
    assert display["data"] == value["data"]
    assert value["data"]["text/plain"] == "rich é"
    assert value["data"]["text/html"] == "<b>\n</b>"
    assert base64.b64decode(value["data"]["image/png"]) == b"\x89PNG\r\n"
    assert value["data"]["application/json"] == {"a": [1.5, None]}


def test_results_of_a_call_that_fails_or_times_out_are_there(session):
    result = session.run("display(1)\n1 / 0")
    assert result["exit_code"] == 1
    assert [r["data"]["text/plain"] for r in result["results"]] == ["1"]
    result = session.run("display(2)\nwhile True: pass", timeout=2)
    assert result["timed_out"]
    assert [r["data"]["text/plain"] for r in result["results"]] == ["2"]
    # They do not turn up in the next one.
    assert session.run("x = 1")["results"] == []


def test_results_of_an_interpreter_that_dies_are_there(fresh):
    result = fresh.run("import os\ndisplay({'text/html': 'x' * 300_000}, raw=True)\nos._exit(3)")
    assert (result["exit_code"], result["state_lost"]) == (3, True)
    assert [len(r["data"]["text/html"]) for r in result["results"]] == [300_000]
    assert fresh.run("1")["stdout"] == "1\n"


def test_large_results_come_whole_and_in_order_beside_output(session):
    source = (
        "for n in range(5):\n"
        "    print('y' * 1_000_000)\n"
        "    display({'text/html': str(n) * 3_000_000}, raw=True)"
    )
    result = session.run(source)
    assert [r["data"]["text/html"] for r in result["results"]] == [str(n) * 3_000_000 for n in range(5)]
    assert len(result["stdout"]) == 5_000_005
    assert result["results_dropped"] == 0


def test_what_is_over_the_bounds_is_counted(session):
    result = session.run("for n in range(400): display({'text/html': 'x'}, raw=True)")
    assert (len(result["results"]), result["results_dropped"]) == (256, 144)
    result = session.run("display({'text/html': 'x' * (5 << 20)}, raw=True)\n1")
    assert ([r["type"] for r in result["results"]], result["results_dropped"]) == (["execute_result"], 1)
    result = session.run("for n in range(8): display({'text/html': 'x' * (3 << 20)}, raw=True)")
    assert (len(result["results"]), result["results_dropped"]) == (5, 3)


def find_control():
    """Code that finds the interpreter's own end of its conversation."""
    return (
        "import os, struct\n"
        "fd = next(int(n) for n in os.listdir('/proc/self/fd') if int(n) >= 200)\n"
        "def say(kind, payload): os.write(fd, struct.pack('<IB', len(payload) + 1, kind) + payload)\n"
    )


@pytest.mark.parametrize(
    "forged",
    [
        "say(4, b'no json')",
        "say(4, b'{\"type\":\"display_data\",\"data\":{\"text/html\":5},\"metadata\":{}}')",
        "say(4, b'[' * 100_000)",
        "say(4, bytes(range(256)))",
    ],
)
def test_forged_results_are_counted_and_told_to_nobody(fresh, forged):
    result = fresh.run(find_control() + forged + "\n7")
    assert [r["data"]["text/plain"] for r in result["results"]] == ["7"]
    assert result["results_dropped"] == 1


@pytest.mark.parametrize("forged", ["os.write(fd, b'\\xff\\xff\\xff\\x7f\\4')", "os.write(fd, b'\\1\\0\\0\\0\\4')"])
def test_what_is_no_message_costs_the_interpreter_only(fresh, forged):
    vm = fresh.run("1")["vm_id"]
    result = fresh.run(find_control() + forged + "\nimport time; time.sleep(30)", timeout=20)
    assert result["state_lost"] and not result["timed_out"]
    after = fresh.run("1 + 1")
    assert (after["stdout"], after["vm_id"]) == ("2\n", vm)


def test_a_flood_of_forged_results_fills_no_memory(fresh, server):
    fresh.run("1")
    before = server.resident_megabytes()
    source = find_control() + "junk = b'x' * (4 << 20)\nfor n in range(50):\n    view = memoryview(struct.pack('<IB', len(junk) + 1, 4) + junk)\n"
    source += "    while view: view = view[os.write(fd, view):]\n"
    result = fresh.run(source, timeout=120)
    assert (result["exit_code"], result["results"], result["results_dropped"]) == (0, [], 50)
    assert server.resident_megabytes() - before < 100
