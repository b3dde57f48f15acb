# SPDX-License-Identifier: Apache-2.0
"""What people run, and what has broken others: commands, outputs, background children, languages."""

import concurrent.futures
import hashlib
import time

import requests

from server import wait_until


# Commands


def test_a_command_has_several_lines(session):
    assert session.bash("a=1\nb=2\nif true; then\n  echo $((a + b))\nfi")["stdout"] == "3\n"
    assert session.run("def f(n):\n    return n * 2\n\nprint(f(21))")["stdout"] == "42\n"


def test_a_command_has_a_megabyte(session):
    text = "x" * (1 << 20)
    assert session.bash("v=" + text + "\necho ${#v}")["stdout"] == "1048576\n"
    assert session.run("print(len('" + text + "'))")["stdout"] == "1048576\n"


def test_quotes_arrive_as_they_were_sent(session):
    quotes = "'\"`$(echo no)\\ \\n %s é 🎉"
    assert session.bash("cat <<'END'\n" + quotes + "\nEND")["stdout"] == quotes + "\n"
    assert session.run("print(" + repr(quotes) + ")")["stdout"] == quotes + "\n"


def test_nul_is_an_error_of_the_code_and_not_of_the_server(session):
    result = session.run("print(1)\0")
    assert result["exit_code"] == 1
    assert "null bytes" in result["stderr"]
    reply = session.post("/execute", {"command": "echo \0", "language": "bash", "session_id": session.id})
    assert reply.status_code == 422
    assert session.bash("echo fine")["stdout"] == "fine\n"


def test_invalid_utf8_in_a_request_is_refused(session):
    reply = requests.post(
        session.server.url + "/execute",
        data=b'{"command": "echo \xff\xfe"}',
        headers={"X-API-Key": session.key, "Content-Type": "application/json"},
        timeout=30,
    )
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["type"] == "json_invalid"


def test_the_last_line_needs_no_end(session):
    assert session.bash("printf abc")["stdout"] == "abc"
    assert session.bash("# only a comment")["exit_code"] == 0
    assert session.bash("")["exit_code"] == 0
    assert session.run("")["exit_code"] == 0


def test_a_syntax_error_is_a_result(session):
    result = session.bash("echo (")
    assert result["exit_code"] == 2
    assert "syntax error" in result["stderr"]
    result = session.run("def f(:")
    assert result["exit_code"] == 1
    assert "SyntaxError" in result["stderr"]


def test_bash_is_fresh_each_time_and_works_in_app(session):
    session.bash("left=over; cd /tmp")
    assert session.bash('pwd; echo "[$left][$#][$0]"; ls -l /proc/self/fd | wc -l')["stdout"] == "/app\n[][0][bash]\n5\n"


def test_a_replaced_directory_is_where_the_next_call_is(session):
    session.bash("true")
    session.bash("mv /app /old; mkdir /app; touch /app/new")
    assert session.bash("ls; pwd; echo x > here; ls /app/here")["stdout"] == "new\n/app\n/app/here\n"
    session.bash("rm -r /app")
    assert session.bash("pwd")["stdout"] == "/app\n"
    assert session.run("import os; os.chdir('/app')")["exit_code"] == 0


def test_a_script_may_begin_with_a_dash(session):
    assert session.bash("-x")["exit_code"] == 127


def test_set_e_traps_and_exit_work(session):
    result = session.bash("set -e\ntrap 'echo bye' EXIT\nfalse\necho never")
    assert (result["stdout"], result["exit_code"]) == ("bye\n", 1)
    assert session.bash("kill -TERM $$")["exit_code"] == 128 + 15
    assert session.bash("kill -TERM $$")["signal"] == 15


# Output


def test_output_that_looks_like_a_frame_is_output(session):
    script = (
        "import os, struct\n"
        "frame = struct.pack('<IIB3x', 38, 1, 11) + bytes(38)\n"
        "for _ in range(1000): os.write(1, frame)\n"
        "n = os.write(1, b'__INSTAVM_EC__$__ec\\n{\"exit_code\": 7}\\n')"
    )
    result = session.run(script)
    assert result["exit_code"] == 0
    assert result["stdout"].endswith('__INSTAVM_EC__$__ec\n{"exit_code": 7}\n')
    assert session.run("1 + 1")["stdout"] == "2\n"


def test_a_hundred_megabytes_arrive_whole_while_memory_stays_flat(server, session):
    session.bash("true")
    before = server.resident_megabytes()
    peak = before
    body = {
        "command": "yes 0123456789abcde | head -c 104857600",
        "language": "bash",
        "session_id": session.id,
        "timeout": 300,
    }
    started = time.monotonic()
    total = 0
    tail = b""
    with requests.post(
        server.url + "/execute", json=body, headers={"X-API-Key": server.key}, stream=True, timeout=310
    ) as reply:
        assert reply.status_code == 200
        for piece in reply.iter_content(1 << 20):
            total += len(piece)
            tail = (tail + piece)[-2000:]
            peak = max(peak, server.resident_megabytes())
    # Each line feed takes two bytes in JSON.
    assert total > 104857600 + 6553600
    assert b'"exit_code":0' in tail and b'"stdout_dropped_bytes":0' in tail
    assert peak - before < 50, "%d MB more" % (peak - before)
    print("100 MB in %.1f s, +%d MB" % (time.monotonic() - started, peak - before))


def test_a_large_output_is_the_same_byte_for_byte(session):
    result = session.run(
        "import random, hashlib\nr = random.Random(1)\ns = ''.join(chr(r.randrange(32, 0x2fff)) for _ in range(1_000_000))\n"
        "import sys\nsys.stdout.write(s)\nprint(hashlib.sha256(s.encode()).hexdigest(), file=sys.stderr)"
    )
    assert hashlib.sha256(result["stdout"].encode()).hexdigest() == result["stderr"].strip()


def test_bytes_that_are_no_text_are_replaced_and_nothing_else_is(session):
    result = session.bash(r"printf 'a\xff\xc3\xa9\xe2\x82b'; printf '\x00\x1b' >&2")
    assert result["stdout"] == "a\ufffdé\ufffdb"
    assert result["stderr"] == "\x00\x1b"


def test_stdout_and_stderr_are_apart_and_each_in_order(session):
    result = session.bash("for i in $(seq 200); do echo o$i; echo e$i >&2; done")
    assert result["stdout"].split() == ["o%d" % i for i in range(1, 201)]
    assert result["stderr"].split() == ["e%d" % i for i in range(1, 201)]
    result = session.run("import sys\nfor i in range(200):\n    print('o%d' % i)\n    print('e%d' % i, file=sys.stderr)")
    assert result["stdout"].split() == ["o%d" % i for i in range(200)]
    assert result["stderr"].split() == ["e%d" % i for i in range(200)]


def test_children_and_c_code_that_write_to_descriptor_1_are_captured(session):
    result = session.run(
        "import subprocess, ctypes, os\n"
        "subprocess.run(['echo', 'child'])\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.puts(b'from C')\n"
        "os.write(1, b'raw\\n');"
    )
    assert sorted(result["stdout"].split("\n")) == ["", "child", "from C", "raw"]


# Background


def test_a_background_child_does_not_hold_the_call_and_lives_on(session):
    started = time.monotonic()
    assert session.bash("sleep 300 & echo started")["stdout"] == "started\n"
    assert session.bash("nohup sh -c 'while :; do echo tick; sleep 0.1; done' & echo $! > /tmp/pid")["exit_code"] == 0
    assert time.monotonic() - started < 30
    assert "sleep 300" in session.bash("ps ax")["stdout"]
    # It writes into the pipe of a call that is over, and must not die of it.
    time.sleep(1)
    assert session.bash("kill -0 $(cat /tmp/pid) && echo alive")["stdout"] == "alive\n"
    session.bash("kill $(cat /tmp/pid); pkill sleep")


def test_a_background_child_of_python_lives_on(session):
    session.run("import subprocess; p = subprocess.Popen(['sleep', '200'])")
    assert session.run("p.poll() is None")["stdout"] == "True\n"
    session.run("p.kill(); p.wait()")


def test_threads_go_on_between_calls(session):
    session.run("import threading, time\ndone = []\nthreading.Timer(0.3, lambda: done.append(1)).start()")
    wait_until(lambda: session.run("done")["stdout"] == "[1]\n", 20)


# Python


def test_the_last_expression_is_shown(session):
    session.run("x = 41")
    assert session.run("x + 1")["stdout"] == "42\n"
    assert session.run("None")["stdout"] == ""
    assert session.run("x;")["stdout"] == ""
    assert session.run("'a'\n'b'")["stdout"] == "'b'\n"


def test_an_exception_keeps_the_state(session):
    session.run("kept = 7")
    result = session.run("1 / 0")
    assert result["exit_code"] == 1
    assert "ZeroDivisionError" in result["stderr"] and "runner.py" not in result["stderr"]
    assert session.run("kept")["stdout"] == "7\n"


def test_sys_exit_gives_its_code_and_keeps_the_state(session):
    session.run("kept = 8")
    assert session.run("import sys; sys.exit(3)")["exit_code"] == 3
    assert session.run("exit()")["exit_code"] == 0
    result = session.run("sys.exit('words')")
    assert (result["exit_code"], result["stderr"]) == (1, "words\n")
    assert session.run("kept")["stdout"] == "8\n"


def test_input_fails_at_once(session):
    result = session.run("input()")
    assert result["exit_code"] == 1
    assert "EOFError" in result["stderr"]
    assert session.bash("read line || echo none")["stdout"] == "none\n"


def test_threads_and_asyncio_work(session):
    result = session.run(
        "import asyncio, threading\n"
        "async def f(): await asyncio.sleep(0.01); return 5\n"
        "t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n"
        "print(asyncio.run(f()))"
    )
    assert result["stdout"] == "thread\n5\n"
    assert session.run("await f()")["stdout"] == "5\n"


def test_what_only_notebooks_know_works(session):
    session.bash("touch /app/here")
    assert "here" in session.run("!ls /app")["stdout"]
    assert session.run("%pip --version")["stdout"].startswith("pip ")
    assert session.run("pip --version")["stdout"].startswith("pip ")
    assert session.run("files = !ls /app\n'here' in files")["stdout"] == "True\n"
    assert session.run("%%bash\necho cell")["stdout"] == "cell\n"
    assert "Return the number of items" in session.run("len?")["stdout"]
    session.run("%cd /tmp")
    assert session.run("import os; os.getcwd()")["stdout"].endswith("'/tmp'\n")
    session.run("%cd /app")


def test_multiprocessing_and_pickle_find_main(session):
    result = session.run(
        "import multiprocessing, pickle\n"
        "def square(n): return n * n\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(square, [1, 2, 3]))\n"
        "print(pickle.loads(pickle.dumps(square))(4))"
    )
    assert result["stdout"] == "[1, 4, 9]\n16\n", result["stderr"]


def test_a_forked_child_does_not_answer_for_its_parent(session):
    result = session.run("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('parent' if pid else 'child')")
    assert sorted(result["stdout"].split()) == ["child", "parent"]
    assert session.run("1 + 1")["stdout"] == "2\n"


# At the same time


def test_two_bash_calls_and_a_python_call_run_at_once(session):
    session.run("1")
    session.bash("mkfifo /tmp/a /tmp/b /tmp/c")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # Each waits for the other: only together do they end.
        first = pool.submit(session.bash, "echo 1 > /tmp/a; cat /tmp/b")
        second = pool.submit(session.bash, "cat /tmp/a; cat /tmp/c > /tmp/b")
        third = pool.submit(session.run, "open('/tmp/c', 'w').write('py')")
        assert third.result()["exit_code"] == 0
        assert second.result()["stdout"] == "1\n"
        assert first.result()["stdout"] == "py"


def test_python_calls_of_a_session_run_one_after_another(session):
    session.run("inside = 0; seen = []")
    code = "inside += 1; seen.append(inside); import time; time.sleep(0.1); inside -= 1"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(session.run, [code] * 6))
    assert all(result["exit_code"] == 0 for result in results)
    assert session.run("seen")["stdout"] == "[1, 1, 1, 1, 1, 1]\n"


def test_a_call_that_waits_longer_than_its_timeout_did_not_run(session):
    session.run("ran = False")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = pool.submit(session.run, "import time; time.sleep(6)")
        time.sleep(0.5)
        result = session.run("ran = True", timeout=2)
        assert result["timed_out"] and "did not run" in result["stderr"]
        assert long.result()["exit_code"] == 0
    assert session.run("ran")["stdout"] == "False\n"


def test_twenty_sessions_run_at_once(server):
    def use(number):
        session = server.session(memory_mb=256)
        try:
            result = session.run("n = %d; n * n" % number, timeout=600)
            again = session.run("n", timeout=600)
            return result["stdout"], again["stdout"], result["vm_id"]
        finally:
            session.kill()

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        results = list(pool.map(use, range(20)))
    assert [result[0] for result in results] == ["%d\n" % (n * n) for n in range(20)]
    assert [result[1] for result in results] == ["%d\n" % n for n in range(20)]
    assert len({result[2] for result in results}) == 20
