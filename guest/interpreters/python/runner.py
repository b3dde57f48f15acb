# SPDX-License-Identifier: Apache-2.0
"""The guest's Python interpreter: one process for the life of a VM, its variables kept between calls.

The agent starts it and talks to it over descriptor 3; docs/agent-protocol.md has the messages. Plain code takes a short path of
our own, because IPython's costs ten times as much under emulation; what only IPython understands goes to IPython.
"""

import ast
import asyncio
import builtins
import ctypes
import io
import linecache
import os
import re
import resource
import signal
import struct
import sys
import threading
import traceback
import types

import swiftlet_control
import swiftlet_display
import swiftlet_preload
import swiftlet_preload_extension
import swiftlet_warm
from swiftlet_control import take

READY, PREPARED, DONE = 1, 2, 3
PREPARE, EXECUTE = 1, 2
FINISHED, EXCEPTION, EXIT = 0, 1, 2
CODE_NAME = "<cell %d>"
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
OWN_FILES = (
    __file__,
    swiftlet_control.__file__,
    swiftlet_display.__file__,
    swiftlet_preload.__file__,
    swiftlet_preload_extension.__file__,
)
SCALARS = frozenset((int, float, bool, str, bytes))

PIP_LINE = re.compile(r"^(pip3?|conda)\s+(install|uninstall|list|show|freeze|download|check|--version|-V)\b.*$")


class Interrupts:
    """SIGINT raises KeyboardInterrupt while user code runs, and is ignored at all other times."""

    def __init__(self):
        self.armed = False
        self.held = False
        self.pending = False
        self.main = threading.get_ident()
        signal.signal(signal.SIGINT, self.handle)

    def handle(self, number, frame):
        if self.held:
            self.pending = True
        elif self.armed:
            raise KeyboardInterrupt

    def hold(self, action, *arguments):
        """Does something that an interrupt must not cut in two; one that comes meanwhile counts afterwards."""
        if threading.get_ident() != self.main or self.held:
            return action(*arguments)
        self.pending = False
        self.held = True
        try:
            action(*arguments)
        finally:
            self.held = False
        if self.pending and self.armed:
            raise KeyboardInterrupt

    def restore(self):
        # User code may have put its own handler in place; the next call's timeout relies on ours.
        if signal.getsignal(signal.SIGINT) is not self.handle:
            signal.signal(signal.SIGINT, self.handle)


def make_stream(descriptor, errors):
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors=errors, line_buffering=True
    )


class Interpreter:
    def __init__(self, control):
        self.control = control
        self.interrupts = Interrupts()
        self.count = 0
        self.loop = None
        self.shell = None
        self.libc = ctypes.CDLL(None)
        self.namespace = self.make_main()
        self.stdout = make_stream(1, "backslashreplace")
        self.stderr = make_stream(2, "backslashreplace")
        self.restore_streams()
        self.results = swiftlet_display.Results(control, self.interrupts)
        self.display = None
        self.preloader = None

    @staticmethod
    def make_main():
        module = types.ModuleType("__main__")
        module.__dict__["__builtins__"] = __builtins__
        module.__dict__["_"] = ""
        sys.modules["__main__"] = module
        return module.__dict__

    def restore_streams(self):
        for name in ("stdout", "stderr"):
            stream = getattr(self, name)
            if stream.closed:
                stream = make_stream(1 if name == "stdout" else 2, "backslashreplace")
                setattr(self, name, stream)
            setattr(sys, name, stream)
            setattr(sys, "__%s__" % name, stream)
        # `exit()` closes it.
        if getattr(sys.stdin, "closed", True):
            sys.stdin = open(os.devnull)

    def warm(self, libraries):
        """Pays in advance for what the first calls would have to wait for."""
        os.environ.setdefault("MPLBACKEND", "Agg")
        self.start_ipython()
        self.run("None")
        formatter = self.shell.display_formatter
        formatter.format([{"a": (1, 2)}])
        formatter.format(self)
        self.count = 0
        swiftlet_warm.warm(self.preloader, libraries)

    def start_ipython(self):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        config.InteractiveShell.xmode = "Plain"
        config.InteractiveShell.autocall = 0
        config.InteractiveShell.cache_size = 0
        config.InteractiveShell.separate_in = ""
        main = sys.modules["__main__"]
        quitters = {"exit": builtins.exit, "quit": builtins.quit}
        InteractiveShell.clear_instance()
        self.shell = InteractiveShell.instance(
            config=config, user_module=main, user_ns=self.namespace
        )
        # A pseudo-terminal would mix the two streams and change what programs print.
        self.shell.system = self.shell.system_raw
        self.display = swiftlet_display.Display(self.shell, self.results, self.print_traceback)
        self.preloader = swiftlet_preload.Preloader(self.interrupts.hold, self.display.watch_figures())
        self.shell.display_pub = self.display
        self.shell.displayhook.__class__ = _plain_hook(self.shell.displayhook.__class__, self)
        self.shell._showtraceback = lambda kind, error, lines: print(
            self.shell.InteractiveTB.stb2text(lines), file=sys.stderr
        )
        # IPython's `%pip` adds advice about a front end that is not there.
        self.shell.register_magic_function(self.pip, "line", "pip")
        # `display` and `get_ipython` work on the short path too.
        self.shell.builtin_trap.activate()
        for name in ("In", "Out", "_ih", "_oh", "_dh", "open"):
            self.namespace.pop(name, None)
        # IPython's own would ask its front end to end, which there is none of; the built-in ones raise SystemExit.
        self.namespace.update(quitters)
        sys.displayhook = self.show
        self.restore_streams()

    def pip(self, line):
        self.shell.system("%s -m pip %s" % (sys.executable, line))

    # A call

    def execute(self, source):
        before = self.processor_time()
        pid = os.getpid()
        status, code = FINISHED, 0
        self.results.begin()
        try:
            self.interrupts.armed = True
            try:
                status, code = self.run(source)
                # Who was interrupted is not kept waiting for pictures.
                if code != 130 and os.getpid() == pid and not self.show_figures():
                    status, code = EXCEPTION, 130
            finally:
                self.interrupts.armed = False
        except KeyboardInterrupt:
            # It came after the code's end, before the flag was down.
            pass
        if os.getpid() != pid:
            # A child that user code forked came back here; it must not answer for its parent.
            self.flush()
            os._exit(code & 0xFF if status == EXIT else (1 if status == EXCEPTION else 0))
        self.interrupts.restore()
        self.flush()
        self.restore_streams()
        spent = self.processor_time() - before
        self.results.end(DONE, struct.pack("<BiQ", status, code, max(0, spent)))

    def show_figures(self):
        """Shows the figures that a call leaves open; false when that was interrupted."""
        try:
            self.display.show_open_figures()
        except KeyboardInterrupt:
            self.print_traceback()
            return False
        except BaseException:
            self.print_traceback()
        return True

    @staticmethod
    def processor_time():
        total = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            total += usage.ru_utime + usage.ru_stime
        return int(total * 1e9)

    def run(self, source):
        self.count += 1
        name = CODE_NAME % self.count
        try:
            if PIP_LINE.match(source.strip()):
                return self.run_ipython("%" + source.strip())
            try:
                tree = self.parse(source, name)
            except SyntaxError:
                if not self.is_ipython(source, name):
                    raise
                tree = None
            if tree is None:
                return self.run_ipython(source)
            lines = source.splitlines(True)
            linecache.cache[name] = (len(source), None, lines, name)
            self.run_tree(tree, name, source)
            return FINISHED, 0
        except SystemExit as exit:
            return self.exited(exit)
        except KeyboardInterrupt:
            self.print_traceback()
            return EXCEPTION, 130
        except BaseException:
            self.print_traceback()
            return EXCEPTION, 1

    @staticmethod
    def parse(source, name):
        return compile(source, name, "exec", FLAGS | ast.PyCF_ONLY_AST)

    def is_ipython(self, source, name):
        """Whether code that is no Python is IPython's: with magics, shell escapes or questions."""
        if not any(mark in source for mark in "%!?"):
            return False
        try:
            self.parse(self.shell.transform_cell(source), name)
        except Exception:
            return False
        return True

    def run_tree(self, tree, name, source):
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not self.is_silenced(source):
            last = ast.Expression(tree.body.pop().value)
        if tree.body:
            self.run_code(compile(tree, name, "exec", FLAGS))
        if last is not None:
            self.show(self.run_code(compile(last, name, "eval", FLAGS)))

    @staticmethod
    def is_silenced(source):
        """A semicolon at the end hides the value, as in a notebook; a comment behind it does not count."""
        line = source.rstrip().rsplit("\n", 1)[-1]
        if not line.endswith(";") and "#" in line:
            line = line.split("#", 1)[0].rstrip()
        return line.endswith(";")

    def run_code(self, code):
        value = eval(code, self.namespace, self.namespace)
        if code.co_flags & 0x80:  # CO_COROUTINE: it awaits at top level
            return self.event_loop().run_until_complete(value)
        return value

    def event_loop(self):
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        return self.loop

    def show(self, value):
        if value is None:
            return
        self.namespace["_"] = value
        if type(value) in SCALARS:
            text = repr(value)
            sys.stdout.write(text + "\n")
            self.results.add_text(text)
        else:
            self.display.show(value)

    def run_ipython(self, source):
        result = self.shell.run_cell(source, store_history=False, silent=False)
        error = result.error_before_exec or result.error_in_exec
        if error is None:
            return FINISHED, 0
        if isinstance(error, SystemExit):
            return self.exited(error)
        return EXCEPTION, 130 if isinstance(error, KeyboardInterrupt) else 1

    def exited(self, exit):
        if exit.code is None:
            return EXIT, 0
        if isinstance(exit.code, int):
            return EXIT, exit.code & 0xFF
        print(exit.code, file=sys.stderr)
        return EXIT, 1

    def print_traceback(self):
        kind, error, trace = sys.exc_info()
        try:
            sys.stdout.flush()
        except Exception:
            # User code may have replaced or closed it; the traceback matters more.
            pass
        try:
            text = self.traceback_text(kind, error, trace)
        except BaseException as second:
            text = "%s (its traceback cannot be shown: %s)\n" % (kind.__name__, type(second).__name__)
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except Exception:
            os.write(2, text.encode("utf-8", "backslashreplace"))

    @staticmethod
    def traceback_text(kind, error, trace):
        """The traceback as Python prints it, without the frames of this file."""
        whole = traceback.TracebackException(kind, error, trace)
        parts, seen = [whole], set()
        while parts:
            part = parts.pop()
            if part is None or id(part) in seen:
                continue
            seen.add(id(part))
            part.stack = traceback.StackSummary.from_list([f for f in part.stack if f.filename not in OWN_FILES])
            parts += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
        return "".join(whole.format())

    def flush(self):
        for stream in (sys.stdout, sys.stderr, self.stdout, self.stderr):
            try:
                stream.flush()
            except Exception:
                # A stream of the user's that cannot be flushed has nothing for us.
                pass
        self.libc.fflush(None)

    # Becoming this VM's own

    def prepare(self, payload):
        seed, offset = take(payload, 0)
        (count,) = struct.unpack_from("<I", payload, offset)
        offset += 4
        for _ in range(count):
            name, offset = take(payload, offset)
            value, offset = take(payload, offset)
            os.environb[name] = value
        if not self.preloader.suits_variables():
            self.flush()
            swiftlet_warm.start_over(__file__, self.control, payload)
        swiftlet_warm.become_own(self.preloader, seed)
        # What a rehearsal left behind.
        self.count = 0
        self.namespace["_"] = ""
        self.control.send(PREPARED)


def _plain_hook(base, interpreter):
    class PlainHook(base):
        """Shows a value without IPython's `Out[n]:`."""

        def __call__(self, result=None):
            interpreter.show(result)

    return PlainHook


def main(arguments):
    """`--preload NAME...` replaces the choice of libraries that is made for this guest; `--over FILE` goes on with a prepare."""
    option, *rest = arguments or [""]
    libraries = rest if option == "--preload" else () if option == "--over" else swiftlet_warm.libraries()
    control = swiftlet_control.Control()
    interpreter = Interpreter(control)
    sys.argv = [""]
    sys.path[0] = ""
    interpreter.warm(libraries)
    if option == "--over":
        interpreter.prepare(swiftlet_warm.interrupted_prepare(rest[0]))
    else:
        control.send(READY)
    while True:
        try:
            kind, payload = control.receive()
        except EOFError:
            return
        if kind == PREPARE:
            interpreter.prepare(payload)
        elif kind == EXECUTE:
            source, _ = take(payload, 0)
            interpreter.execute(source.decode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    main(sys.argv[1:])
