# SPDX-License-Identifier: Apache-2.0
"""The JavaScript interpreter's program, driven over its socket as the agent does it."""

import os
import pathlib
import shutil
import signal
import struct
import threading
import time

import pytest

from runner_harness import Runner

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "interpreters/javascript/runner.js"
NODE = os.environ.get("NODE") or shutil.which("node")
FLAGS = ["--no-force-async-hooks-checks"]


def make_runner(*flags):
    return Runner([NODE, *FLAGS, *flags, str(PROGRAM)])


def test_state_is_kept_and_the_last_value_shown(runner):
    assert runner.run("x = 41") == (0, 0, "41\n", "")
    assert runner.run("x + 1") == (0, 0, "42\n", "")
    assert runner.run("_") == (0, 0, "42\n", "")
    assert runner.run("x;") == (0, 0, "", "")
    assert runner.run("x // a comment; with a semicolon;")[2] == "41\n"
    assert runner.run("x; // a comment")[2] == ""
    assert runner.run("undefined") == (0, 0, "", "")
    assert runner.run("") == (0, 0, "", "")


@pytest.mark.parametrize("kind", ["let", "const", "var"])
def test_declarations_are_kept_and_can_be_repeated(runner, kind):
    assert runner.run("%s declared_%s = 1" % (kind, kind)) == (0, 0, "", "")
    assert runner.run("%s declared_%s = 2" % (kind, kind)) == (0, 0, "", "")
    assert runner.run("declared_%s" % kind) == (0, 0, "2\n", "")


def test_classes_and_functions_are_kept_and_can_be_repeated(runner):
    for value in (1, 2):
        assert runner.run("class C { v() { return %d } }\nfunction f() { return %d }" % (value, value))[:2] == (0, 0)
        assert runner.run("new C().v() * 10 + f()")[2] == "%d\n" % (value * 11)


def test_a_declaration_twice_in_one_call_is_an_error(runner):
    assert "has already been declared" in runner.run("let twice = 1; let twice = 2")[3]


@pytest.mark.parametrize(
    "source, shown",
    [
        ("'é'", "'é'\n"),
        ("1.5", "1.5\n"),
        ("-0", "-0\n"),
        ("12345678901234567890n", "12345678901234567890n\n"),
        ("null", "null\n"),
        ("Symbol('s')", "Symbol(s)\n"),
        ("({a: [1, new Map([[1, 2]])]})", "{ a: [ 1, Map(1) { 1 => 2 } ] }\n"),
        ("{a: 1}", "{ a: 1 }\n"),
        ("{ let inner = 1; inner }", ""),
        ("for (const i of [1, 2]) i", ""),
        ("Promise.resolve(5)", "Promise { 5 }\n"),
        ("[0, 1].at(-1)", "1\n"),
    ],
)
def test_values_are_shown_as_node_shows_them(runner, source, shown):
    assert runner.run(source) == (0, 0, shown, "")


def test_an_underscore_of_the_users_stays():
    runner = make_runner()
    runner.run("let _ = 'mine'")
    assert runner.run("1 + 1")[2] == "2\n"
    assert runner.run("_")[2] == "'mine'\n"
    runner.close()


def test_top_level_await_works(runner):
    assert runner.run("await Promise.resolve(7)") == (0, 0, "7\n", "")
    runner.run("const waited = await new Promise(r => setTimeout(r, 30, 9))")
    assert runner.run("waited") == (0, 0, "9\n", "")


def test_an_exception_is_a_stack_without_our_frames(runner):
    status, code, stdout, stderr = runner.run("kept = 1;\nfunction g() { null.x }\ng()")
    assert (status, code, stdout) == (1, 1, "")
    assert stderr.startswith("TypeError: Cannot read properties of null") and "at g (<cell-" in stderr
    assert "runner.js" not in stderr and "node:" not in stderr
    assert runner.run("kept")[2] == "1\n"


def test_a_stack_that_user_code_prints_is_without_our_frames(runner):
    stdout = runner.run("console.log(new Error('e').stack)")[2]
    assert stdout.startswith("Error: e\n    at <cell-") and stdout.count("\n") == 2


def test_a_rejected_promise_that_is_awaited_is_an_exception(runner):
    status, code, stdout, stderr = runner.run("await Promise.reject(new RangeError('r'))")
    assert (status, code, stdout) == (1, 1, "") and stderr.startswith("RangeError: r\n") and stderr.count("RangeError") == 1


@pytest.mark.parametrize("value", ["5", "undefined", "'text'", "null", "{ get stack() { throw 1 } }"])
def test_anything_can_be_thrown(runner, value):
    status, code, _, stderr = runner.run("throw (%s)" % value)
    assert (status, code) == (1, 1) and stderr.startswith("Uncaught")


def test_a_value_that_cannot_be_shown_is_an_exception(runner):
    source = "({ [require('util').inspect.custom]() { throw new Error('hidden') } })"
    status, code, _, stderr = runner.run(source)
    assert (status, code) == (1, 1) and "hidden" in stderr


def test_a_syntax_error_is_shown_with_its_place(runner):
    status, code, _, stderr = runner.run("let fine = 1;\nlet 5 = 2;")
    assert (status, code) == (1, 1) and "SyntaxError" in stderr and ":2\nlet 5 = 2;\n    ^\n" in stderr
    assert "SyntaxError" in runner.run("function f(")[3]
    assert "SyntaxError" in runner.run("JSON.parse('{')")[3]


def test_a_rejection_that_nobody_handles_is_shown_and_kills_nothing(runner):
    assert runner.run("Promise.reject(new TypeError('unhandled')); await new Promise(r => setTimeout(r, 20)); 1")[:3] == (0, 0, "1\n")
    stderr = runner.run("Promise.reject(new TypeError('unhandled')); await new Promise(r => setTimeout(r, 20));")[3]
    assert "TypeError: unhandled" in stderr
    assert runner.run("1")[:2] == (0, 0)


def test_an_exception_in_the_background_is_shown_and_kills_nothing(runner):
    runner.run("setTimeout(() => { throw new Error('background') }, 20);")
    time.sleep(0.2)
    assert "Error: background" in runner.output(1)
    assert runner.run("1 + 1") == (0, 0, "2\n", "")


def test_an_exception_in_a_timer_during_a_call_does_not_end_it(runner):
    source = "setTimeout(() => { throw new Error('aside') }, 1); await new Promise(r => setTimeout(r, 50)); 2"
    status, code, stdout, stderr = runner.run(source)
    assert (status, code, stdout) == (0, 0, "2\n") and "Error: aside" in stderr


def test_output_of_timers_between_calls_is_written(runner):
    runner.run("setTimeout(() => console.log('later'), 30);")
    time.sleep(0.2)
    assert runner.output(0) == "later\n"


@pytest.mark.parametrize(
    "source, code",
    [
        ("process.exit(3)", 3),
        ("process.exit()", 0),
        ("process.exit(260)", 4),
        ("try { process.exit(5) } catch { console.log('no') } finally { console.log('no') }", 5),
        ("setTimeout(() => process.exit(6), 10); await new Promise(() => {})", 6),
        ("await null; process.exit(7)", 7),
        ("process.nextTick(() => process.exit(8)); await new Promise(() => {})", 8),
    ],
)
def test_process_exit_ends_the_call_and_not_the_interpreter(runner, source, code):
    assert runner.run(source) == (2, code, "", "")
    assert runner.run("await new Promise(r => setTimeout(r, 5, 1))") == (0, 0, "1\n", "")


def test_process_exit_between_calls_is_ignored(runner):
    runner.run("setTimeout(() => process.exit(9), 20);")
    time.sleep(0.2)
    assert runner.run("1") == (0, 0, "1\n", "")


def test_the_globals_of_a_module_are_there(runner):
    assert runner.run("typeof require + typeof module + typeof exports + typeof __filename + typeof Buffer")[2] == (
        "'functionobjectobjectstringfunction'\n"
    )
    assert runner.run("require('path').join(__dirname, 'x') === __dirname + '/x' && module.exports === exports")[2] == "true\n"


def test_require_finds_modules_beside_the_program(tmp_path, monkeypatch):
    if os.path.exists("/app"):
        pytest.skip("/app is there")
    package = tmp_path / "node_modules/p"
    package.mkdir(parents=True)
    (package / "index.js").write_text("module.exports = 'package'")
    (tmp_path / "local.mjs").write_text("export default 'local'")
    monkeypatch.chdir(tmp_path)
    runner = make_runner()
    assert runner.run("require('p')")[2] == "'package'\n"
    assert runner.run("(await import('p')).default + (await import('./local.mjs')).default")[2] == "'packagelocal'\n"
    runner.close()


def test_dynamic_import_works_in_functions_too(runner):
    assert runner.run("async function load() { return import(/* 'import(' */ 'fs') }\ntypeof (await load()).readFileSync")[2] == (
        "'function'\n"
    )
    assert runner.run("'import(1)'")[2] == "'import(1)'\n"


def test_import_declarations_work(runner):
    source = "import path, { join as j,\n  sep } from 'node:path';\nimport * as all from 'os'\nimport 'fs'\nj('a', sep, path.sep) + typeof all.cpus"
    assert runner.run(source) == (0, 0, "'a/function'\n", "")
    assert runner.run("typeof path.join")[2] == "'function'\n"


def test_the_interpreters_own_parser_is_hidden_from_user_code(runner):
    assert "MODULE_NOT_FOUND" in runner.run("require('internal/deps/acorn/acorn/dist/acorn')")[3]
    assert runner.run("typeof __swiftlet_hooks__")[2] == "'undefined'\n"


def test_large_output_is_complete_before_the_end(runner):
    taken = []

    def drain():
        while sum(map(len, taken)) < 2_000_000:
            taken.append(runner.output(0))
            time.sleep(0.01)

    thread = threading.Thread(target=drain)
    thread.start()
    runner.start("process.stdout.write('x'.repeat(2_000_000));")
    thread.join(30)
    assert runner.finish()[:4] == (0, 0, "", "")
    assert sum(map(len, taken)) == 2_000_000


def test_replaced_or_ended_streams_come_back(runner):
    runner.run("process.stdout.write = () => true; console.log('lost')")
    assert runner.run("console.log('back')") == (0, 0, "back\n", "")
    assert runner.run("process.stdout.end('end\\n'); process.stderr.destroy();")[2] == "end\n"
    assert runner.run("console.log('back'); console.error('too')") == (0, 0, "back\n", "too\n")


def test_children_do_not_get_the_agents_socket(runner):
    ours = os.readlink("/proc/%d/fd/3" % runner.process.pid)
    runner.run("links = require('child_process').execSync('for f in /proc/$$/fd/*; do readlink $f; done').toString();")
    assert ours.startswith("socket:") and ours not in runner.run("links")[2]


def test_processor_time_is_counted(runner):
    runner.start("for (let end = Date.now() + 100; Date.now() < end;);")
    assert runner.finish()[4] > 10_000_000


@pytest.mark.parametrize(
    "source",
    [
        "while (true);",
        "try { for (;;); } finally { console.log('no') }",
        "await new Promise(() => {})",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "await null; for (;;);",
        "setTimeout(() => { for (;;); }, 1); await new Promise(() => {})",
        "setImmediate(() => { for (;;); }); await new Promise(() => {})",
        "process.nextTick(() => { for (;;); }); await new Promise(() => {})",
        "require('fs').readFile('/', () => { for (;;); }); await new Promise(() => {})",
        "({ [require('util').inspect.custom]() { for (;;); } })",
        "/(a+)+b/.test('a'.repeat(40))",
        "require('child_process').execSync('sleep 60')",
        "for (;;) await null",
    ],
)
def test_an_interrupt_ends_a_call_and_not_the_interpreter(runner, source):
    runner.run("kept = 5")
    started = time.monotonic()
    status, code, stdout, stderr = runner.run_interrupted(source)
    assert (status, code, stdout) == (1, 130, "") and "interrupted" in stderr
    assert "runner.js" not in stderr
    assert time.monotonic() - started < 10
    assert runner.run("await new Promise(r => setTimeout(r, 5, kept))") == (0, 0, "5\n", "")


def test_an_interrupt_right_behind_a_call_is_not_lost(runner):
    for _ in range(20):
        runner.start("for (;;);")
        time.sleep(0.005)
        runner.process.send_signal(signal.SIGINT)
        assert runner.finish()[:2] == (1, 130)


def test_interrupts_between_calls_are_ignored(runner):
    for _ in range(100):
        runner.start("1")
        runner.process.send_signal(signal.SIGINT)
        assert runner.finish()[0] in (0, 1)
        runner.process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    runner.output(0), runner.output(1)
    assert runner.run("1 + 1")[2] == "2\n"


def test_a_handler_of_user_code_does_not_stop_an_interrupt(runner):
    runner.run("process.on('SIGINT', () => {});")
    assert runner.run_interrupted("while (true);")[1] == 130
    runner.run("process.removeAllListeners('SIGINT');")
    assert runner.run_interrupted("await new Promise(() => {})")[1] == 130


def test_prepare_makes_randomness_and_environment_its_own():
    values = []
    for seed in (b"a" * 16 + b"b" * 16, b"c" * 32, b"a" * 16 + b"b" * 16):
        # As in clones of one VM, V8's own generator is in the same state in all.
        runner = make_runner("--random-seed=42")
        runner.prepare(seed, GREETING="hé")
        values.append(runner.run("[Math.random(), Math.random()]")[2])
        assert runner.run("process.env.GREETING")[2] == "'hé'\n"
        runner.close()
    assert values[0] == values[2] != values[1]


def test_contexts_made_later_have_randomness_of_the_seed_too():
    values = []
    for seed in (b"a" * 32, b"c" * 32):
        runner = make_runner("--random-seed=42")
        runner.prepare(seed)
        values.append(runner.run("require('vm').runInNewContext('Math.random()')")[2])
        runner.close()
    assert values[0] != values[1]


def test_random_numbers_are_spread_over_the_whole_range(runner):
    runner.run("n = Array.from({length: 10000}, Math.random);")
    assert runner.run("Math.min(...n) >= 0 && Math.max(...n) < 1 && new Set(n).size === 10000")[2] == "true\n"
    assert runner.run("Math.abs(n.reduce((a, b) => a + b) / 1e4 - 0.5) < 0.02")[2] == "true\n"


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IB", 0, 2),
        struct.pack("<IB", 0xFFFFFFFF, 2),
        struct.pack("<IBI", 5, 2, 100),
        struct.pack("<IB", 1, 9),
        struct.pack("<IBI", 5, 1, 0),
        b"",
    ],
)
def test_anything_malformed_or_an_end_ends_the_process(data):
    runner = make_runner()
    runner.socket.sendall(data)
    if not data:
        runner.socket.close()
    runner.process.wait(10)


def test_an_end_during_an_endless_loop_ends_the_process():
    runner = make_runner()
    runner.start("for (;;);")
    time.sleep(0.2)
    runner.close()
