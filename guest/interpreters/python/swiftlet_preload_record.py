# SPDX-License-Identifier: Apache-2.0
"""Records what imports depend on and what they change, module by module, while libraries are preloaded.

A preloaded module may stand in for a later import only if that import would have read the same environment variables and files, and
would have imported the same modules. So they are observed here, and not listed by hand.
"""

import builtins
import importlib._bootstrap as bootstrap
import importlib.util
import io
import marshal
import os
import re
import stat
import sys
import warnings

# Stands for all variables: the environment was read as a whole.
EVERYTHING = b"*"
# Variables that C code reads with getenv(3), by a part of its library's name; found with a getenv of our own in LD_PRELOAD.
LIBRARY_VARIABLES = {
    "_multiarray_umath": (b"NPY_",),
    "openblas": (b"OPENBLAS_", b"GOTO_", b"GOTOBLAS_", b"OMP_"),
    "libgomp": (b"OMP_", b"GOMP_", b"ACC_"),
    "libiomp": (b"OMP_", b"KMP_"),
    "libmkl": (b"OMP_", b"MKL_", b"KMP_"),
    "libblis": (b"OMP_", b"BLIS_"),
    "libgfortran": (b"GFORTRAN_",),
    "libfreetype": (b"FREETYPE_",),
    "libcrypto": (b"OPENSSL_", b"SSL_CERT_"),
}
# The kinds of questions to the file system: for a file's status, content, or a directory's names.
STATUS, CONTENT, LISTING = range(3)
PROBES = {"stat": STATUS, "lstat": STATUS, "access": STATUS, "open": CONTENT, "listdir": LISTING, "scandir": LISTING}
# As pytz does, which asks for each of 600 time zones: the directories' times tell whether a name has come or gone.
MANY_QUESTIONS = 16
LIBRARY_LINE = re.compile(r" (/\S+/([^/\s]+\.so[.0-9]*))$", re.MULTILINE)


class Entry:
    """A preloaded module, with what its loading read and changed."""

    __slots__ = (
        "name", "module", "spec", "needs", "searches", "variables", "prefixes", "libraries", "files", "file", "identity", "filters", "warnings",
        "finders", "assignments", "extras", "is_detached", "is_given",
    )  # fmt: skip

    def __init__(self, name):
        self.name = name
        self.module = None
        self.spec = None
        # Names of the modules that its execution imported, in order.
        self.needs = {}
        # Names that it looked for without loading them, and whether they were there: optional dependencies.
        self.searches = {}
        # Environment variables that it read, with the values they had; None is a variable that was not set.
        self.variables = {}
        # Prefixes of variables that libraries read that came with it.
        self.prefixes = set()
        self.libraries = []
        # What it asked the file system: (path, kind of question) to `identity_of` afterwards.
        self.files = {}
        # Its own file, or None.
        self.file = None
        self.identity = None
        # Warning filters that it added: (filter, is appended).
        self.filters = []
        # Warnings that it issued, whether a filter would have shown them or not.
        self.warnings = []
        self.finders = []
        # Environment variables that it set, or removed (None).
        self.assignments = {}
        # Modules that it put into sys.modules itself: Cython's shared types, other names of modules.
        self.extras = {}
        # Its parent package's attribute was taken away until the module is handed over.
        self.is_detached = False
        self.is_given = False

    def plain(self):
        return self.name, list(self.needs), self.searches, self.variables, self.files, self.file, self.identity


def settle(entries):
    """Copies of entries in memory of their own, close together: who hands modules over touches few pages besides the modules' own."""
    # Version 2 makes new strings, and does not look for ones that are there.
    copies = marshal.loads(marshal.dumps([entry.plain() for entry in entries], 2))
    settled = []
    for entry, values in zip(entries, copies):
        copy = Entry.__new__(Entry)
        for name in Entry.__slots__:
            value = getattr(entry, name)
            # Most have none of most things.
            setattr(copy, name, value if value or value is False else None)
        copy.name, copy.needs, copy.searches, copy.variables, copy.files, copy.file, copy.identity = values
        settled.append(copy)
    return settled


def identity_of(path, kind=STATUS):
    """What tells a file from a changed one; None if there is none. A directory counts with its content if it was listed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if kind == LISTING or stat.S_ISREG(status.st_mode):
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_ino, stat.S_IFMT(status.st_mode))


def join_questions(files):
    """Replaces many questions for the status of one directory's files by one for its listing."""
    directories = {}
    for path, kind in files:
        if kind == STATUS:
            directories.setdefault(os.path.dirname(path), []).append(path)
    for directory, paths in directories.items():
        if directory and len(paths) >= MANY_QUESTIONS:
            for path in paths:
                del files[path, STATUS]
            files[directory, LISTING] = None


def loaded_libraries():
    """Paths of the shared libraries of this process, by their names."""
    try:
        with open("/proc/self/maps") as maps:
            return {name: path for path, name in LIBRARY_LINE.findall(maps.read())}
    except OSError:
        return {}


class Recorder:
    """Observes all imports while it is active; `entries` has those that succeeded, dependencies first."""

    def __init__(self):
        self.entries = {}
        self.stack = []
        self.undo = []
        # Names in sys.modules whose origin is known.
        self.known = set()

    def __enter__(self):
        self.environment = dict(os.environ._data)
        self.filters_before = list(warnings.filters)
        self.finders_before = list(sys.meta_path)
        self.libraries = loaded_libraries()
        # Warnings that are not shown by default matter too: the user's filters may show them.
        warnings.simplefilter("always")
        self.observe()
        self.known = set(sys.modules)
        self.replace(bootstrap, "_load_unlocked", self.loading(bootstrap._load_unlocked))
        searching = self.searching(bootstrap._find_spec)
        self.replace(bootstrap, "_find_spec", searching)
        self.replace(importlib.util, "_find_spec", searching)
        self.replace(bootstrap, "_gcd_import", self.importing(bootstrap._gcd_import))
        self.replace(builtins, "__import__", self.importing_statement(builtins.__import__))
        self.replace(os._Environ, "__getitem__", self.reading_variable(os._Environ.__getitem__))
        self.replace(os._Environ, "__iter__", self.reading_all(os._Environ.__iter__))
        # It finds a program for a child process, whichever module starts one.
        self.replace(os, "get_exec_path", self.unobserving(os.get_exec_path))
        self.replace(warnings, "_showwarnmsg", self.warning)
        for name, kind in PROBES.items():
            self.replace(os, name, self.probing(getattr(os, name), kind))
        opening = self.probing(io.open, CONTENT)
        self.replace(io, "open", opening)
        self.replace(builtins, "open", opening)
        return self

    def __exit__(self, *error):
        for owner, name, value in reversed(self.undo):
            setattr(owner, name, value)
        self.drop_passing_changes()
        warnings.filters[:] = self.filters_before
        warnings._filters_mutated()
        sys.meta_path[:] = self.finders_before
        for name in set(os.environ._data) | set(self.environment):
            assign(name, self.environment.get(name))

    def replace(self, owner, name, value):
        self.undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def drop_passing_changes(self):
        """Forgets changes that were undone again before the end, and takes files as the imports left them."""
        for entry in self.entries.values():
            entry.filters = [change for change in entry.filters if change[0] in warnings.filters]
            entry.finders = [finder for finder in entry.finders if finder in sys.meta_path]
            entry.assignments = {
                name: value for name, value in entry.assignments.items() if os.environ._data.get(name) == value
            }
            # What was loaded then is a need.
            entry.searches = {name: is_there for name, is_there in entry.searches.items() if name not in entry.needs}
            join_questions(entry.files)
            for path, kind in entry.files:
                entry.files[path, kind] = identity_of(path, kind)
            entry.file = getattr(entry.module, "__file__", None)
            entry.identity = identity_of(entry.file) if entry.file else None

    # Modules

    def loading(self, original):
        def load(spec):
            entry = Entry(spec.name)
            self.attribute_changes()
            if self.stack:
                self.stack[-1].needs[spec.name] = True
            self.stack.append(entry)
            self.known.add(entry.name)
            try:
                module = original(spec)
            except BaseException:
                self.known.discard(entry.name)
                raise
            finally:
                self.attribute_changes()
                if str(spec.origin).endswith(".so"):
                    self.find_libraries(entry)
                self.stack.pop()
            entry.module, entry.spec = module, getattr(module, "__spec__", None) or spec
            # Completed later than what it needs, so it stands behind.
            self.entries[entry.name] = entry
            return module

        return load

    def importing(self, original):
        def import_(name, *rest):
            module = original(name, *rest)
            self.need(getattr(module, "__name__", name))
            return module

        return import_

    def importing_statement(self, original):
        def import_(name, globals=None, locals=None, fromlist=(), level=0):
            module = original(name, globals, locals, fromlist, level)
            if self.stack:
                base = name
                if level:
                    base = bootstrap._resolve_name(name, bootstrap._calc___package__(globals), level)
                self.need(base)
                for item in fromlist or ():
                    self.need("%s.%s" % (base, item))
            return module

        return import_

    def searching(self, original):
        def find(name, path, target=None):
            spec = original(name, path, target)
            if self.stack:
                self.stack[-1].searches[name] = spec is not None
            return spec

        return find

    def need(self, name):
        if self.stack and name in sys.modules and name != self.stack[-1].name:
            self.stack[-1].needs.setdefault(name, True)

    # Changes, which belong to the module whose code runs

    def observe(self):
        self.noted_filters = list(warnings.filters)
        self.noted_finders = list(sys.meta_path)
        self.noted_variables = dict(os.environ._data)

    def attribute_changes(self):
        entry = self.stack[-1] if self.stack else None
        self.find_extras(entry)
        if (
            warnings.filters == self.noted_filters
            and sys.meta_path == self.noted_finders
            and os.environ._data == self.noted_variables
        ):
            return
        if entry is not None:
            self.find_filters(entry)
            entry.finders += [finder for finder in sys.meta_path if finder not in self.noted_finders]
            for name in set(os.environ._data) | set(self.noted_variables):
                value = os.environ._data.get(name)
                if value != self.noted_variables.get(name):
                    entry.assignments[name] = value
        self.observe()

    def find_filters(self, entry):
        is_front = True
        front, appended = [], []
        for item in warnings.filters:
            if item in self.noted_filters:
                is_front = False
            elif is_front:
                front.append((item, False))
            else:
                appended.append((item, True))
        # The one in front was added last.
        entry.filters += front[::-1] + appended

    def find_extras(self, entry):
        # Each module that is being loaded is known from its start, so the numbers differ only where one came by another way.
        if len(sys.modules) == len(self.known):
            return
        for name in sys.modules.keys() - self.known:
            if entry is not None:
                entry.extras[name] = sys.modules[name]
        self.known = set(sys.modules).union(item.name for item in self.stack)

    def find_libraries(self, entry):
        now = self.unobserved(loaded_libraries)
        for name in now.keys() - self.libraries.keys():
            entry.libraries.append(now[name])
            for part, prefixes in LIBRARY_VARIABLES.items():
                if part in name:
                    entry.prefixes.update(prefixes)
        self.libraries = now

    # What is read

    def reading_variable(self, original):
        def read(environ, name):
            if self.stack and isinstance(name, (str, bytes)):
                key = os.fsencode(name)
                self.stack[-1].variables.setdefault(key, environ._data.get(key))
            return original(environ, name)

        return read

    def reading_all(self, original):
        def iterate(environ):
            if self.stack:
                self.stack[-1].variables.setdefault(EVERYTHING, dict(environ._data))
            return original(environ)

        return iterate

    def probing(self, original, kind):
        def probe(path=".", *rest, **options):
            if self.stack and isinstance(path, (str, bytes, os.PathLike)):
                self.stack[-1].files[os.fspath(path), kind] = None
            return original(path, *rest, **options)

        return probe

    def unobserved(self, action, *arguments):
        stack, self.stack = self.stack, []
        try:
            return action(*arguments)
        finally:
            self.stack = stack

    def unobserving(self, original):
        return lambda *arguments: self.unobserved(original, *arguments)

    def warning(self, message):
        if self.stack:
            self.stack[-1].warnings.append((message.message, message.category, message.filename, message.lineno))


def assign(name, value):
    """Gives an environment variable this value, both as bytes; None removes it."""
    if os.environ._data.get(name) == value:
        return
    if value is None:
        del os.environ[os.fsdecode(name)]
    else:
        os.environ[os.fsdecode(name)] = os.fsdecode(value)
