# SPDX-License-Identifier: Apache-2.0
"""The interpreter's program, driven over its socket as the agent does it."""

import pathlib
import signal
import sys
import threading
import time

import pytest

from runner_harness import Runner

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "interpreters/python/runner.py"


def make_runner():
    return Runner([sys.executable, str(PROGRAM)])


def test_state_is_kept_and_the_last_value_shown(runner):
    assert runner.run("x = 41") == (0, 0, "", "")
    assert runner.run("x + 1") == (0, 0, "42\n", "")
    assert runner.run("_") == (0, 0, "42\n", "")
    assert runner.run("x;") == (0, 0, "", "")
    assert runner.run("x  # a comment; with a semicolon")[2] == "41\n"
    assert runner.run("None") == (0, 0, "", "")


@pytest.mark.parametrize(
    "source, shown",
    [
        ("'é'", "'é'\n"),
        ("1.5", "1.5\n"),
        ("True", "True\n"),
        ("b'x'", "b'x'\n"),
        ("{'a': [1, (2,)]}", "{'a': [1, (2,)]}\n"),
        ("int", "int\n"),
        ("...", "Ellipsis\n"),
    ],
)
def test_values_are_shown_as_a_notebook_does(runner, source, shown):
    assert runner.run(source) == (0, 0, shown, "")


def test_an_exception_is_a_traceback_without_our_frames(runner):
    status, code, stdout, stderr = runner.run("def f():\n    1 / 0\nf()")
    assert (status, code, stdout) == (1, 1, "")
    assert stderr.startswith("Traceback (most recent call last):\n") and "1 / 0" in stderr
    assert "runner.py" not in stderr


def test_a_chain_of_exceptions_is_shown_whole(runner):
    stderr = runner.run("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('v') from e")[3]
    assert "ZeroDivisionError" in stderr and "direct cause" in stderr and "ValueError: v" in stderr


def test_an_exception_that_cannot_be_shown_is_still_one(runner):
    source = "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E"
    assert runner.run(source)[:2] == (1, 1)


def test_a_syntax_error_is_shown(runner):
    assert "SyntaxError" in runner.run("def f(:")[3]
    assert "null bytes" in runner.run("a\0b")[3]


@pytest.mark.parametrize(
    "source, code, stderr",
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('words')", 1, "words\n"),
        ("exit()", 0, ""),
        ("quit(4)", 4, ""),
        ("raise SystemExit(260)", 4, ""),
    ],
)
def test_system_exit_gives_its_code(runner, source, code, stderr):
    runner.run("import sys")
    assert runner.run(source) == (2, code, "", stderr)
    assert runner.run("1") == (0, 0, "1\n", "")


def test_input_fails_at_once(runner):
    assert "EOFError" in runner.run("input()")[3]


def test_top_level_await_and_asyncio_run_work(runner):
    runner.run("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5")
    assert runner.run("await f()") == (0, 0, "5\n", "")
    assert runner.run("print(asyncio.run(f()))") == (0, 0, "5\n", "")
    assert runner.run("await f()") == (0, 0, "5\n", "")


def test_what_only_ipython_knows(runner):
    assert runner.run("!echo shell") == (0, 0, "shell\n", "")
    assert runner.run("out = !echo taken\nout[0]") == (0, 0, "'taken'\n", "")
    assert runner.run("%%bash\necho cell") == (0, 0, "cell\n", "")
    assert runner.run("%pip --version")[2].startswith("pip ")
    assert runner.run("pip --version")[2].startswith("pip ")
    assert "number of items" in runner.run("len?")[2]
    status, code, stdout, stderr = runner.run("!true\n1 / 0")
    assert (status, code, stdout) == (1, 1, "") and "ZeroDivisionError" in stderr
    assert "\x1b" not in stderr


def test_lines_that_look_like_magic_inside_a_string_are_text(runner):
    assert runner.run("s = '''\n!not a command\n%nor a magic\n'''\nprint(len(s))") == (0, 0, "29\n", "")


def test_display_works(runner):
    assert runner.run("display([1])") == (0, 0, "[1]\n", "")


def test_output_of_children_and_c_is_there_before_the_end(runner):
    stdout = runner.run("import ctypes, subprocess\nctypes.CDLL(None).puts(b'C')\nsubprocess.run(['echo', 'child']);")[2]
    assert sorted(stdout.split()) == ["C", "child"]


def test_replaced_or_closed_streams_come_back(runner):
    runner.run("import sys, io\nsys.stdout = io.StringIO()\nprint('lost')")
    assert runner.run("print('back')") == (0, 0, "back\n", "")
    runner.run("sys.stdout.close(); sys.stderr.close()")
    assert runner.run("print('back')") == (0, 0, "back\n", "")
    assert "ZeroDivisionError" in runner.run("1/0")[3]


def test_lone_surrogates_can_be_printed(runner):
    assert runner.run("print('\\ud800')") == (0, 0, "\\ud800\n", "")


def test_main_is_a_real_module(runner):
    runner.run("import pickle\ndef f(n): return n + 1")
    assert runner.run("pickle.loads(pickle.dumps(f))(1)") == (0, 0, "2\n", "")
    assert runner.run("__name__")[2] == "'__main__'\n"


def test_a_forked_child_does_not_answer(runner):
    assert runner.run("import os\npid = os.fork()\nif pid == 0: x = 99\nelse: os.waitpid(pid, 0)")[:2] == (0, 0)
    assert runner.run("1") == (0, 0, "1\n", "")


def test_processor_time_is_counted(runner):
    runner.start("sum(range(3_000_000));")
    assert runner.finish()[4] > 10_000_000


def test_an_interrupt_ends_a_call_and_not_the_interpreter(runner):
    runner.run("import time; kept = 5")
    for source in ("while True: pass", "time.sleep(60)"):
        timer = threading.Timer(0.3, lambda: runner.process.send_signal(signal.SIGINT))
        timer.start()
        started = time.monotonic()
        status, code, stdout, stderr = runner.run(source)
        timer.join()
        assert (status, code) == (1, 130) and "KeyboardInterrupt" in stderr
        assert "runner.py" not in stderr
        assert time.monotonic() - started < 10
    assert runner.run("kept") == (0, 0, "5\n", "")


def test_interrupts_between_calls_are_ignored(runner):
    for _ in range(200):
        runner.start("1")
        runner.process.send_signal(signal.SIGINT)
        assert runner.finish()[0] in (0, 1)
        runner.process.send_signal(signal.SIGINT)
    assert runner.run("1 + 1")[2] == "2\n"


def test_a_handler_of_user_code_does_not_stay(runner):
    runner.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    timer = threading.Timer(0.3, lambda: runner.process.send_signal(signal.SIGINT))
    timer.start()
    assert runner.run("while True: pass")[1] == 130


def test_prepare_makes_randomness_and_environment_its_own():
    values = []
    for seed in (b"a" * 32, b"b" * 32, b"a" * 32):
        runner = make_runner()
        runner.prepare(seed, GREETING="hé")
        values.append(runner.run("import random; random.random()")[2])
        assert runner.run("import os; os.environ['GREETING']")[2] == "'hé'\n"
        runner.close()
    assert values[0] == values[2] != values[1]
