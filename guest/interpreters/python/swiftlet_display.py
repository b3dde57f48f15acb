# SPDX-License-Identifier: Apache-2.0
"""Rich results: the values that a call shows, as bundles of MIME types, in the forms that a notebook gives them.

What makes them is IPython's formatters; a plain value's text goes past them. docs/agent-protocol.md has the message.
"""

import base64
import importlib.machinery
import json
import math
import os
import sys
import threading

from swiftlet_control import HEADER

RESULT = 4
MAXIMUM_BUNDLE = 4 << 20
MAXIMUM_CALL = 16 << 20
MAXIMUM_COUNT = 256
# What is shown by the way waits for more up to here, and leaves together with it.
MAXIMUM_WAITING = 64 << 10

VALUE, DISPLAY = "execute_result", "display_data"
# They have no methods but those that everybody knows.
CONTAINERS = frozenset((list, tuple, dict, set, frozenset))
TEXT_START, TEXT_END = '{"type":"execute_result","data":{"text/plain":', '},"metadata":{}}'

quoted = json.encoder.encode_basestring_ascii


class Results:
    """A call's bundles on their way to the agent, bounded; what is over the bounds is counted."""

    def __init__(self, control, interrupts):
        self.control = control
        self.interrupts = interrupts
        # Threads show values too, and their messages must not mix.
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.is_open = False
        self.dropped = 0
        self.begin()
        self.is_open = False

    def begin(self):
        self.count = 0
        self.bytes = 0
        self.is_told = False
        self.is_open = True

    def end(self, kind, payload):
        """Ends the call with the message that does so; nothing of it may follow."""
        with self.lock:
            self.is_open = False
            if self.dropped:
                self.control.queue(RESULT, b'{"dropped":%d}' % self.dropped)
                self.dropped = 0
            self.control.send(kind, payload)

    def add_text(self, text):
        """Adds a last expression's value that is nothing but text. It leaves together with the call's end."""
        if len(text) > MAXIMUM_BUNDLE:
            self.interrupts.hold(self.drop)
            return
        body = (TEXT_START + quoted(printable(text)) + TEXT_END).encode()
        # The way of most calls. It needs no hold: the message is there whole, or not at all.
        message = HEADER.pack(1 + len(body), RESULT) + body
        if not self.fits(len(body)):
            self.interrupts.hold(self.drop)
            return
        with self.lock:
            self.count += 1
            self.bytes += len(body)
            self.control.waiting += message
        if len(self.control.waiting) > MAXIMUM_WAITING:
            self.interrupts.hold(self.flush)

    def add_bundle(self, kind, data, metadata, complain):
        """Adds a bundle that a formatter or user code has made.

        `complain` is called for each part that cannot be told, while its exception is handled.
        """
        parts = []
        for mime, value in data.items():
            if isinstance(value, (str, bytes, bytearray)) and len(value) > MAXIMUM_BUNDLE:
                self.interrupts.hold(self.drop)
                return
            try:
                parts.append("%s:%s" % (quoted(printable(str(mime))), content(mime, value)))
            except Exception:
                complain()
        try:
            notes = json_text(dict(metadata or {}))
        except Exception:
            complain()
            notes = "{}"
        body = '{"type":"%s","data":{%s},"metadata":%s}' % (kind, ",".join(parts), notes)
        self.interrupts.hold(self.add, body.encode("utf-8", "replace"), kind == DISPLAY)

    def add(self, body, is_urgent):
        # A child that user code forked has nothing to tell the agent.
        if os.getpid() != self.pid:
            return
        if not self.fits(len(body)):
            self.drop()
            return
        with self.lock:
            # The call may have ended meanwhile, for a thread.
            if not self.is_open:
                self.dropped += 1
                return
            self.count += 1
            self.bytes += len(body)
            self.control.queue(RESULT, body)
            if is_urgent or len(self.control.waiting) > MAXIMUM_WAITING:
                self.control.flush()

    def fits(self, size):
        return (
            self.is_open
            and self.count < MAXIMUM_COUNT
            and size <= MAXIMUM_BUNDLE
            and self.bytes + size <= MAXIMUM_CALL
        )

    def flush(self):
        if os.getpid() == self.pid:
            with self.lock:
                self.control.flush()

    def drop(self):
        if os.getpid() != self.pid:
            return
        with self.lock:
            # The first is told at once: who dies before the call's end has not been silent about it.
            if self.is_open and not self.is_told:
                self.is_told = True
                self.control.queue(RESULT, b'{"dropped":1}')
                self.control.flush()
            else:
                self.dropped += 1


def printable(text):
    """The text with lone surrogates spelt out, as stdout shows them."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def content(mime, value):
    """A MIME type's value as JSON text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return '"%s"' % base64.b64encode(value).decode()
    if isinstance(value, str):
        return quoted(printable(value))
    if mime == "application/json" or str(mime).endswith("+json"):
        return json_text(value)
    return quoted(printable(str(value)))


def portable(value):
    """What JSON has no form for, in one that it has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=portable)


def json_text(value):
    try:
        return ENCODER.encode(value)
    except (ValueError, TypeError):
        # Numbers that JSON does not have, or keys.
        return ENCODER.encode(cleaned(value))


def cleaned(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(item) for item in value]
    if hasattr(value, "tolist"):
        return cleaned(value.tolist())
    return value


class Display:
    """IPython's way to show values: as text on stdout, and whole among the results."""

    def __init__(self, shell, results, complain):
        self.shell = shell
        self.results = results
        self.complain = complain
        self.is_publishing = False
        self.formatters = shell.display_formatter.formatters
        others = [f for mime, f in self.formatters.items() if mime != "text/plain"]
        others += [shell.display_formatter.mimebundle_formatter, shell.display_formatter.ipython_display_formatter]
        self.methods = frozenset(("__getattr__", *(f.print_method for f in others)))
        # What they were taught, by type and by type's name; most of it is empty.
        self.taught = [(f.type_printers, f.deferred_printers) for f in others]
        self.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", figure_png)

    def show(self, value):
        """Shows the value of a last expression that is no scalar."""
        if not self.has_forms(value):
            text = self.formatters["text/plain"](value)
            # A formatter that failed has said so.
            if text is not None:
                sys.stdout.write(text + "\n")
                self.results.add_text(text)
            return
        data, metadata = self.shell.display_formatter.format(value)
        self.emit(VALUE, data, metadata)

    def has_forms(self, value):
        """Whether any formatter but that for text may know the value. Asking them all takes milliseconds under emulation."""
        kind = type(value)
        if kind not in CONTAINERS:
            for name in self.methods:
                if hasattr(kind, name):
                    return True
            if not self.methods.isdisjoint(getattr(value, "__dict__", ())):
                return True
        for types, names in self.taught:
            if types or names:
                for base in kind.__mro__:
                    if base in types or (base.__module__, base.__name__) in names:
                        return True
        return False

    # What IPython calls its display publisher.

    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **rest):
        self.emit(DISPLAY, data, metadata)

    def clear_output(self, wait=False):
        pass

    def emit(self, kind, data, metadata, is_text_shown=True):
        # An object that has shown itself leaves nothing.
        if not data:
            return
        text = data.get("text/plain")
        if isinstance(text, str) and is_text_shown:
            sys.stdout.write(text + "\n")
        self.results.add_bundle(kind, data, metadata, self.complain)

    # matplotlib's figures

    def watch_figures(self):
        """Lets `plt.show()` show figures: as soon as matplotlib is imported, which user code does.

        Returns what does so for a module that is imported by another way, by the module's name.
        """
        finder = _FigureFinder(self.show_figure)
        sys.meta_path.insert(0, finder)
        return {finder.NAME: finder.adopt}

    def show_open_figures(self):
        """Shows and closes what pyplot has open, as notebooks do at a cell's end."""
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        if helpers is None:
            return
        for manager in helpers.Gcf.get_all_fig_managers():
            self.show_figure(manager)

    def show_figure(self, manager):
        try:
            data, metadata = self.shell.display_formatter.format(manager.canvas.figure)
            # Programs that only save their figures print nothing about them.
            self.emit(DISPLAY, data, metadata, is_text_shown=False)
        finally:
            sys.modules["matplotlib._pylab_helpers"].Gcf.destroy(manager.num)


def figure_png(figure):
    from IPython.core.pylabtools import print_figure

    return print_figure(figure, "png")


class _FigureFinder:
    """Takes part in one import: that of the module whose figure managers know no screen."""

    NAME = "matplotlib.backend_bases"

    def __init__(self, show):
        self.show = show

    def find_spec(self, name, path=None, target=None):
        if name != self.NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.adopt(module)

        spec.loader.exec_module = exec_module
        return spec

    def adopt(self, module):
        """Lets the module's figure managers show their figures as results."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        show = self.show
        module.FigureManagerBase.show = lambda manager: show(manager)
