# SPDX-License-Identifier: Apache-2.0
"""What the Python interpreter shows besides text: bundles of MIME types."""

import base64
import pathlib
import sys

import pytest

from runner_harness import Runner

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "interpreters/python/runner.py"

# What matplotlib's figure managers do, without matplotlib, which only a guest has.
MATPLOTLIB = """
import sys, pathlib, tempfile
place = pathlib.Path(tempfile.mkdtemp())
(place / "matplotlib").mkdir()
(place / "matplotlib/__init__.py").write_text("")
(place / "matplotlib/figure.py").write_text('''
class Figure:
    axes = lines = ()
    def __init__(self, name): self.name = name
    def __repr__(self): return "<Figure %s>" % self.name
    def _repr_html_(self): return "<b>%s</b>" % self.name
''')
(place / "matplotlib/_pylab_helpers.py").write_text('''
class Gcf:
    figs = {}
    @classmethod
    def get_all_fig_managers(cls): return list(cls.figs.values())
    @classmethod
    def destroy(cls, number): cls.figs.pop(number, None)
''')
(place / "matplotlib/backend_bases.py").write_text('''
class FigureManagerBase:
    def __init__(self, number, figure):
        self.num = number
        self.canvas = self
        self.figure = figure
    def show(self): raise RuntimeError("there is no screen")
''')
(place / "matplotlib/pyplot.py").write_text('''
from matplotlib import _pylab_helpers, backend_bases, figure
from matplotlib._pylab_helpers import Gcf
def plot(name):
    number = len(Gcf.figs) + 1
    Gcf.figs[number] = backend_bases.FigureManagerBase(number, figure.Figure(name))
def show():
    for manager in Gcf.get_all_fig_managers(): manager.show()
''')
sys.path.insert(0, str(place))
"""


def make_runner():
    return Runner([sys.executable, str(PROGRAM)])


def shown(runner, source):
    """The bundles that code without errors gives."""
    status, code, _, stderr = runner.run(source)
    assert (status, code, stderr) == (0, 0, "")
    return runner.results


def test_a_plain_value_is_a_bundle_of_text(runner):
    for value in ("42", "1.5", "True", "'é\\n\"'", "b'x'", "[1, (2,)]", "{'a': {1}}", "1j", "range(3)", "int"):
        assert runner.run(value)[2] == shown_text(runner) + "\n"
        assert runner.results[0]["type"] == "execute_result" and runner.results[0]["metadata"] == {}


def shown_text(runner):
    (result,) = runner.results
    assert list(result["data"]) == ["text/plain"]
    return result["data"]["text/plain"]


def test_nothing_shown_is_no_bundle(runner):
    for source in ("None", "1;", "x = 5", "print(1)", "1 / 0"):
        runner.run(source)
        assert (runner.results, runner.dropped) == ([], 0)


def test_lone_surrogates_are_spelt_out_as_on_stdout(runner):
    runner.run("'\\ud800'")
    assert shown_text(runner) == "'\\ud800'"
    runner.run("display({'application/json': ['\\ud800'], 'text/html': '\\udfff'}, raw=True)")
    assert runner.results[0]["data"] == {"application/json": ["?"], "text/html": "\\udfff"}


def test_objects_show_themselves_in_every_form_they_have(runner):
    (result,) = shown(
        runner,
        "class Rich:\n"
        "    def __repr__(self): return 'rich'\n"
        "    def _repr_html_(self): return '<b>é</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def _repr_json_(self): return {'a': [1, None]}, {'expanded': True}\n"
        "Rich()",
    )
    assert result["type"] == "execute_result"
    assert result["data"]["text/plain"] == "rich"
    assert result["data"]["text/html"] == "<b>é</b>"
    assert base64.b64decode(result["data"]["image/png"]) == b"\x89PNG"
    assert result["data"]["application/json"] == {"a": [1, None]}
    assert result["metadata"] == {"application/json": {"expanded": True}}
    assert runner.run("Rich()")[2] == "rich\n"


def test_a_mime_bundle_and_a_display_of_ones_own_count(runner):
    (result,) = shown(
        runner,
        "class Own:\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/x-own': 'o'}, {'text/x-own': {'n': 1}}\n"
        "Own()",
    )
    assert result["data"]["text/x-own"] == "o" and result["metadata"] == {"text/x-own": {"n": 1}}
    (result,) = shown(
        runner,
        "class Shows:\n    def _ipython_display_(self): display({'text/latex': '$x$'}, raw=True)\nShows()",
    )
    assert (result["type"], result["data"]) == ("display_data", {"text/latex": "$x$"})


def test_forms_that_were_taught_or_are_an_objects_own_count(runner):
    teach = "get_ipython().display_formatter.formatters['text/html'].for_type(%s, lambda v: 'taught')"
    for kind, value in (("complex", "1j"), ("Base", "Derived()")):
        runner.run("class Base: pass\nclass Derived(Base): pass")
        runner.run(teach % kind)
        assert shown(runner, value)[0]["data"]["text/html"] == "taught"
    own = "class Own: pass\no = Own()\no._repr_html_ = lambda: 'own'\no"
    assert shown(runner, own)[0]["data"]["text/html"] == "own"
    proxy = "class Proxy:\n    def __getattr__(self, name): return getattr(o, name)\nProxy()"
    assert shown(runner, proxy)[0]["data"]["text/html"] == "own"


def test_displays_come_in_order_and_before_the_value(runner):
    results = shown(runner, "for n in range(3): display(n)\ndisplay('a', 'b')\n9")
    assert [r["data"]["text/plain"] for r in results] == ["0", "1", "2", "'a'", "'b'", "9"]
    assert [r["type"] for r in results] == ["display_data"] * 5 + ["execute_result"]
    assert runner.run("display(7)")[2] == "7\n"
    (result,) = shown(runner, "from IPython.display import HTML\nHTML('<i>')")
    assert result["data"]["text/html"] == "<i>"


def test_what_only_ipython_runs_shows_values_too(runner):
    runner.run("!true\n42")
    assert shown_text(runner) == "42"


def test_results_of_a_call_that_fails_are_there(runner):
    assert runner.run("display(1)\n1 / 0")[:2] == (1, 1)
    assert shown_text(runner) == "1"


@pytest.mark.parametrize(
    "value, told",
    [
        ("[float('nan'), float('inf'), 1.5]", [None, None, 1.5]),
        ("{1: 2, None: 3, (4,): float('-inf')}", {"1": 2, "None": 3, "(4,)": None}),
        ("{'o': object}", {"o": "<class 'object'>"}),
        ("'text'", "text"),
        ("12345678901234567890123", 12345678901234567890123),
    ],
)
def test_json_is_always_valid(runner, value, told):
    (result,) = shown(runner, "display({'application/json': %s}, raw=True)" % value)
    assert result["data"]["application/json"] == told


def test_a_form_that_cannot_be_told_is_left_out_with_a_traceback(runner):
    stderr = runner.run("a = []\na.append(a)\ndisplay({'application/json': a, 'text/html': 'h'}, raw=True)")[3]
    assert "Error" in stderr
    assert runner.results[0]["data"] == {"text/html": "h"}
    assert "runner.py" not in stderr and "swiftlet_display.py" not in stderr


@pytest.mark.parametrize("name", ["__repr__", "_repr_html_", "_repr_png_", "_repr_mimebundle_", "_repr_json_"])
def test_a_form_that_raises_is_a_traceback_and_breaks_nothing(runner, name):
    source = "class Bad:\n    def %s(self, **k): raise RuntimeError('no')\nfor n in range(2): display(Bad())\nBad()" % name
    status, code, _, stderr = runner.run(source)
    assert (status, code) == (0, 0)
    assert stderr.count("RuntimeError: no") == 3
    assert [list(r["data"]) for r in runner.results] == ([] if name == "__repr__" else [["text/plain"]] * 3)
    assert runner.run("1") == (0, 0, "1\n", "")


@pytest.mark.parametrize("value", ["1", "['x']", "{1: 2}", "({'text/html': 'x'}, 5)", "None", "('a', 'b', 'c')"])
def test_forms_of_any_type_break_nothing(runner, value):
    runner.run("class Odd:\n    def _repr_mimebundle_(self, **k): return %s\n    _repr_html_ = 5\nOdd()" % value)
    assert runner.run("1") == (0, 0, "1\n", "")


def test_one_bundle_is_bounded(runner):
    runner.run("display({'text/html': 'x' * ((4 << 20) - 100)}, raw=True)")
    assert len(runner.results) == 1 and runner.dropped == 0
    runner.run("display({'text/html': 'x' * (4 << 20)}, raw=True)\n1")
    assert [r["type"] for r in runner.results] == ["execute_result"]
    assert runner.dropped == 1
    # Six bytes of JSON for one of text.
    runner.run("display({'text/html': '\\0' * (1 << 20)}, raw=True)")
    assert (runner.results, runner.dropped) == ([], 1)


def test_a_calls_bundles_are_bounded_together(runner):
    runner.run("for n in range(10): display({'text/html': 'x' * (3 << 20)}, raw=True)")
    assert (len(runner.results), runner.dropped) == (5, 5)


def test_a_calls_bundles_are_bounded_in_number(runner):
    runner.run("for n in range(300): display({'text/html': ''}, raw=True)")
    assert (len(runner.results), runner.dropped) == (256, 44)
    runner.run("1")
    assert (len(runner.results), runner.dropped) == (1, 0)


def test_a_forked_child_shows_nothing_for_its_parent(runner):
    source = "import os\npid = os.fork()\nif pid == 0:\n    display('child')\n    os._exit(0)\nos.waitpid(pid, 0)\ndisplay('parent')"
    shown(runner, source)
    assert [r["data"]["text/plain"] for r in runner.results] == ["'parent'"]


def test_threads_may_show_what_they_like_whenever_they_like(runner):
    runner.run(
        "import threading\n"
        "def work():\n"
        "    for n in range(20): display({'text/html': 'x' * 50_000}, raw=True)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()"
    )
    assert len(runner.results) + runner.dropped == 160
    # Between two calls nobody listens.
    runner.run("go = threading.Event()\nlate = threading.Thread(target=lambda: (go.wait(), display({'text/html': ''}, raw=True), print('shown')))\nlate.start()")
    runner.run("threading.Timer(0.2, go.set).start()")
    assert runner.output_until(0, "shown\n") == "shown\n"
    assert runner.run("late.join()")[0] == 0
    assert (runner.results, runner.dropped) == ([], 1)


def test_an_interrupt_never_cuts_a_result_in_two(runner):
    for delay in (0.2, 0.25, 0.3):
        source = "while True: display({'text/html': 'x' * 60_000}, raw=True)"
        assert runner.run_interrupted(source, delay)[:2] == (1, 130)
        assert runner.run("1") == (0, 0, "1\n", "")


def test_figures_are_shown_by_show_and_at_the_end_of_a_call():
    runner = make_runner()
    runner.run(MATPLOTLIB)
    source = "import matplotlib.pyplot as plt\nplt.plot('a'); plt.show()\nplt.plot('b'); plt.plot('c')\nprint('out')\n5"
    status, code, stdout, stderr = runner.run(source)
    assert (status, code, stdout, stderr) == (0, 0, "out\n5\n", "")
    names = [r["data"].get("text/html", "5") for r in runner.results]
    assert names == ["<b>a</b>", "5", "<b>b</b>", "<b>c</b>"]
    runner.run("plt.plot('d'); 1 / 0")
    assert [r["data"]["text/html"] for r in runner.results] == ["<b>d</b>"]
    runner.run("1")
    assert len(runner.results) == 1
    runner.run_interrupted("plt.plot('e')\nwhile True: pass")
    assert runner.results == []
    runner.run("None")
    assert [r["data"]["text/html"] for r in runner.results] == ["<b>e</b>"]
    runner.close()
