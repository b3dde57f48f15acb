# SPDX-License-Identifier: Apache-2.0
"""Libraries that are loaded in a template, kept out of `sys.modules`, and handed over at the user's first import.

Importing pandas and matplotlib takes 6 s under emulation, and clones share a template's memory. An import gets a preloaded module only if
it would have come to the same one: the import system finds the same file first, the file is unchanged, the environment variables and files
that the module read at its import are as they were, and all of that holds for every module that its import brings. Otherwise the
import system goes on as if nothing were preloaded.
"""

import builtins
import ctypes
import gc
import importlib._bootstrap as bootstrap
import os
import random
import sys
import warnings
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder

from swiftlet_preload_extension import CopyLoader
from swiftlet_preload_record import EVERYTHING, Recorder, assign, identity_of, settle

# Set in place when the library is handed over, as the library would have done at its load.
THREAD_VARIABLES = (b"OPENBLAS_NUM_THREADS", b"GOTO_NUM_THREADS", b"OMP_NUM_THREADS")
IMPORTING = bootstrap._find_and_load_unlocked.__code__


class Preloader:
    """Finds preloaded modules for imports; stands first in `sys.meta_path` and asks the others what they would find."""

    def __init__(self, hold, hooks):
        """`hold` runs an action that an interrupt must not cut in two; `hooks` are called with modules by name."""
        self.hold = hold
        self.hooks = hooks
        self.entries = {}
        # Those of the libraries, worked out ahead.
        self.closures = {}
        self.generators = []
        # Keys that extension modules put into the interpreter's dictionaries, as pybind11's registry of types.
        self.registrations = []
        self.libraries = []

    # Loading ahead

    def preload(self, names):
        """Imports what of the names is installed, and takes it out of `sys.modules` again."""
        cached = set(sys.path_importer_cache)
        dictionaries = [builtins.__dict__, interpreter_dictionary()]
        keys = [set(dictionary) for dictionary in dictionaries]
        hidden = self.hide_own_finders()
        recorder = Recorder()
        with recorder:
            for name in names:
                try:
                    __import__(name)
                except ImportError:
                    # The image has none of it.
                    continue
        sys.meta_path[:] = hidden
        self.environment = recorder.environment
        for dictionary, before in zip(dictionaries, keys):
            added = {key: dictionary.pop(key) for key in set(dictionary) - before}
            self.registrations.append((dictionary, added))
        for path in set(sys.path_importer_cache) - cached:
            del sys.path_importer_cache[path]
        self.detach(recorder.entries)
        self.find_generators()
        self.usual_finders = list(sys.meta_path)
        self.usual_hooks = list(sys.path_hooks)
        self.usual_import = builtins.__import__
        sys.meta_path.insert(0, self)

    def settle(self, names):
        """Brings together what hand-overs need, and works out ahead what the libraries' imports bring."""
        self.entries = {entry.name: entry for entry in settle(self.entries.values())}
        for name in names:
            package = name.rpartition(".")[0]
            self.closures.update((item, self.closure(item)) for item in (package, name) if item in self.entries)

    @staticmethod
    def hide_own_finders():
        """Leaves the finders that Python has; those of the runner wait for the user's imports. Returns them all."""
        finders = list(sys.meta_path)
        sys.meta_path[:] = [finder for finder in finders if not type(finder).__module__.startswith("swiftlet_")]
        return finders

    def detach(self, entries):
        """Takes loaded modules out of `sys.modules` and out of their packages."""
        for entry in entries.values():
            if sys.modules.get(entry.name) is entry.module:
                self.entries[entry.name] = entry
        for entry in self.entries.values():
            del sys.modules[entry.name]
            for name in entry.extras:
                sys.modules.pop(name, None)
            self.libraries += entry.libraries
        for entry in self.entries.values():
            package, _, child = entry.name.rpartition(".")
            parent = self.module(package)
            if parent is not None and parent.__dict__.get(child) is entry.module:
                del parent.__dict__[child]
                entry.is_detached = True

    def find_generators(self):
        self.generators = [item for item in gc.get_objects() if type(item) is random.Random]

    def module(self, name):
        """A module that is loaded or preloaded, or None."""
        if name in sys.modules:
            return sys.modules[name]
        entry = self.entries.get(name)
        return None if entry is None else entry.module

    def when_imported(self, name, hook):
        """Calls a hook with a module: now if it was imported, or right after it is handed over."""
        if name in sys.modules:
            hook(sys.modules[name])
        else:
            self.hooks[name] = hook

    def reseed(self, seed):
        """Makes the randomness that preloaded modules hold this VM's own."""
        for number, generator in enumerate(self.generators):
            generator.seed(seed + b"%d" % number)
    # Finding

    def find_spec(self, name, path=None, target=None):
        entry = self.entries.get(name)
        # Who only asks where a module is, or loads it again, gets the import system's own answer.
        if entry is None or entry.is_given or target is not None or not is_import(sys._getframe(1)):
            return None
        closure = self.closure(name)
        if self.is_current(closure):
            loader = _HandOver(self, entry, closure)
            return ModuleSpec(name, loader, origin=entry.spec.origin, is_package=hasattr(entry.module, "__path__"))
        # They are not asked a second time: finders may keep count.
        spec = self.ask_others(name, path)
        if spec is not None and type(spec.loader) is ExtensionFileLoader and self.is_loaded_file(entry, spec.origin):
            spec.loader = CopyLoader(name, spec.origin)
        return spec

    @staticmethod
    def is_loaded_file(entry, origin):
        return entry.identity is not None and identity_of(origin) == entry.identity

    def closure(self, name):
        """All that an import of the module brings, dependencies first."""
        if name in self.closures:
            return self.closures[name]
        found, seen = [], set()
        waiting = [(name, False)]
        while waiting:
            name, is_complete = waiting.pop()
            if is_complete:
                found.append(self.entries[name])
                continue
            if name in seen or name not in self.entries:
                continue
            seen.add(name)
            waiting.append((name, True))
            waiting += [(need, False) for need in reversed(self.entries[name].needs or ())]
            waiting.append((name.rpartition(".")[0], False))
        return found

    def is_current(self, closure):
        """Whether an import would come to exactly these modules, and they to the same state."""
        if sys.path_hooks != self.usual_hooks or builtins.__import__ is not self.usual_import:
            return False
        modules = sys.modules
        missing = object()
        for entry in closure:
            loaded = modules.get(entry.name, missing)
            if loaded is not entry.module and (loaded is not missing or entry.is_given):
                return False
        waiting = [entry for entry in closure if not entry.is_given]
        return (
            self.has_same_variables(waiting)
            and self.has_same_files(waiting)
            and all(self.is_found_first(entry) for entry in waiting if "." not in entry.name)
            and self.has_same_searches(waiting)
            and self.is_left_alone(waiting)
        )

    def has_same_variables(self, entries):
        now = os.environ._data
        for entry in entries:
            for name, value in entry.variables.items():
                if value != (now if name == EVERYTHING else now.get(name)):
                    return False
        return self.has_same_library_variables(entries)

    def has_same_library_variables(self, entries):
        """Whether libraries would read at their load what they did: C code cannot be made to read it again."""
        now, before = os.environ._data, self.environment
        if now == before:
            return True
        prefixes = tuple({prefix for entry in entries for prefix in entry.prefixes or ()})
        return not any(
            name.startswith(prefixes) and name not in THREAD_VARIABLES and now.get(name) != before.get(name)
            for name in now.keys() | before.keys()
        )

    def suits_variables(self):
        """Whether the libraries that are loaded are as a new process would load them."""
        return self.has_same_library_variables(self.entries.values())

    @staticmethod
    def has_same_files(entries):
        for entry in entries:
            if entry.identity is not None and identity_of(entry.file) != entry.identity:
                return False
            for (path, kind), identity in entry.files.items():
                if identity_of(path, kind) != identity:
                    return False
        return True

    def ask_others(self, name, path, finders=None):
        for finder in list(sys.meta_path) if finders is None else finders:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None:
                spec = find(name, path, None)
                if spec is not None:
                    return spec
        return None

    def is_found_first(self, entry):
        spec, known = self.ask_others(entry.name, None), entry.spec
        return (
            spec is not None
            and spec.origin == known.origin
            and type(spec.loader) is type(known.loader)
            and list(spec.submodule_search_locations or ()) == list(known.submodule_search_locations or ())
        )

    def has_same_searches(self, entries):
        """Whether optional dependencies have neither come nor gone."""
        for entry in entries:
            for name, was_there in entry.searches.items():
                parent = self.module(name.rpartition(".")[0])
                is_there = name in sys.modules or self.ask_others(name, getattr(parent, "__path__", None)) is not None
                if is_there != was_there:
                    return False
        return True

    def is_left_alone(self, entries):
        """Whether no finder of the user's wants to load one of the submodules itself."""
        if PathFinder not in sys.meta_path:
            return False
        before = sys.meta_path[: sys.meta_path.index(PathFinder)]
        others = [finder for finder in before if finder is not self and finder not in self.usual_finders]
        if not others:
            return True
        for entry in entries:
            package = self.module(entry.name.rpartition(".")[0])
            if self.ask_others(entry.name, getattr(package, "__path__", None), others) is not None:
                return False
        return True

    # Handing over

    def give(self, closure):
        """Puts modules into `sys.modules`, and makes the changes that their import makes."""
        given = [entry for entry in closure if not entry.is_given]
        for entry in given:
            entry.is_given = True
            sys.modules[entry.name] = entry.module
            if entry.is_detached:
                package, _, child = entry.name.rpartition(".")
                setattr(self.module(package), child, entry.module)
            self.repeat_changes(entry)
        for dictionary, added in self.registrations:
            for key, value in added.items():
                dictionary.setdefault(key, value)
        for entry in given:
            if entry.name in self.hooks:
                self.hooks[entry.name](entry.module)

    def repeat_changes(self, entry):
        for name, module in (entry.extras or {}).items():
            sys.modules.setdefault(name, module)
        for item, is_appended in entry.filters or ():
            warnings._add_filter(*item, append=is_appended)
        for finder in entry.finders or ():
            if finder not in sys.meta_path:
                sys.meta_path.append(finder)
        for name, value in (entry.assignments or {}).items():
            assign(name, value)
        if entry.libraries:
            self.set_thread_counts(entry.libraries)

    def set_thread_counts(self, libraries):
        now = os.environ._data
        if all(now.get(name) == self.environment.get(name) for name in THREAD_VARIABLES):
            return
        available = len(os.sched_getaffinity(0))
        for path in libraries:
            if "openblas" in path:
                wanted = next(filter(None, (number(now.get(name)) for name in THREAD_VARIABLES)), available)
                call(path, "openblas_set_num_threads", min(wanted, available))
            elif "libgomp" in path:
                call(path, "omp_set_num_threads", number(now.get(b"OMP_NUM_THREADS")) or available)


class _HandOver:
    """The loader of one import that gets a preloaded module."""

    def __init__(self, preloader, entry, closure):
        self.preloader = preloader
        self.entry = entry
        self.closure = closure

    def create_module(self, spec):
        return self.entry.module

    def exec_module(self, module):
        # The import system has put this import's own in its place.
        module.__spec__ = self.entry.spec
        issued = [item for entry in self.closure if not entry.is_given for item in entry.warnings or ()]
        self.preloader.hold(self.preloader.give, self.closure)
        for item in issued:
            warnings.warn_explicit(*item)


def is_import(frame):
    """Whether the import system asks in order to import: not `importlib.util.find_spec`, not `importlib.reload`."""
    return frame.f_back is not None and frame.f_back.f_code is IMPORTING


def interpreter_dictionary():
    get, state = ctypes.pythonapi.PyInterpreterState_GetDict, ctypes.pythonapi.PyInterpreterState_Get
    state.restype, get.restype, get.argtypes = ctypes.c_void_p, ctypes.py_object, [ctypes.c_void_p]
    return get(state())


def number(text):
    """The count that a variable gives, as OpenBLAS reads it; 0 for none."""
    digits = (text or b"").split(b",")[0].strip()
    return int(digits) if digits.isdigit() else 0


def call(path, function, argument):
    try:
        getattr(ctypes.CDLL(path), function)(ctypes.c_int(argument))
    except (OSError, AttributeError) as error:
        print("swiftlet: the threads of %s keep their number: %s" % (path, error), file=sys.stderr)
