# SPDX-License-Identifier: Apache-2.0
"""Preloaded libraries: an import gets one only where it would have come to the same."""

import pathlib
import subprocess
import sys
import sysconfig

import pytest

from runner_harness import Runner

INTERPRETER = pathlib.Path(__file__).resolve().parents[1] / "interpreters/python"
STARTED = "import time\nSTARTED = time.monotonic_ns()\n"
NATIVE = r"""
#include <Python.h>
/* Single-phase initialisation: what it keeps of its dependency is there for the life of the process. */
static PyObject *version;
static PyObject *get_version(PyObject *self, PyObject *none) { return Py_NewRef(version); }
static PyMethodDef methods[] = {{"version", get_version, METH_NOARGS, 0}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "native", 0, -1, methods};
PyMODINIT_FUNC INITIALISE(void) {
    PyObject *base = PyImport_ImportModule("lib_base");
    if (!base) return 0;
    version = PyObject_GetAttrString(base, "VERSION");
    return PyModule_Create(&definition);
}
"""
FILES = {
    "lib_base.py": STARTED + "VERSION = 1\nclass Thing:\n    pass\n",
    "lib_other.py": STARTED,
    "lib_top/__init__.py": STARTED + "import lib_base\nfrom . import inner\n",
    "lib_top/inner.py": STARTED,
    "lib_top/extra.py": STARTED + "import lib_other\n",
    "lib_mode.py": STARTED + "import os\nMODE = os.environ.get('LIB_MODE', 'none')\n",
    "lib_config.py": STARTED + "import os\nCONFIG = open('lib.conf').read() if os.path.exists('lib.conf') else ''\n",
    "lib_warns.py": STARTED
    + "import warnings\nwarnings.filterwarnings('ignore', 'lib_filter')\nwarnings.warn('lib is old', DeprecationWarning)\n",
    "lib_optional.py": STARTED + "try:\n    import lib_absent\n    HAS = True\nexcept ImportError:\n    HAS = False\n",
    "lib_asks.py": STARTED + "import importlib.util\nHAS = importlib.util.find_spec('lib_absent') is not None\n",
    "lib_random.py": STARTED + "import random\nGENERATOR = random.Random(1)\n",
}
ROOTS = [
    "lib_top", "lib_top.extra", "lib_mode", "lib_config", "lib_warns", "lib_random", "lib_not_installed", "lib_native", "lib_optional",
    "lib_asks", "lib_getenv",
]  # fmt: skip


# The second has the name of one that reads variables with getenv(3), those that begin with NPY_.
EXTENSIONS = ("_native", "_multiarray_umath")


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """Compiled extension modules, which are the same for all tests."""
    directory = tmp_path_factory.mktemp("native")
    (directory / "native.c").write_text(NATIVE)
    words = ["gcc", "-shared", "-fPIC", "-I", sysconfig.get_paths()["include"], "native.c"]
    for name in EXTENSIONS:
        subprocess.run([*words, "-DINITIALISE=PyInit_" + name, "-o", name + ".so"], cwd=directory, check=True)
    return {name: (directory / (name + ".so")).read_bytes() for name in EXTENSIONS}


class Site:
    """A directory of libraries, and an interpreter that has preloaded them."""

    def __init__(self, directory, native):
        self.libraries = directory / "libraries"
        self.other = directory / "other"
        self.app = directory / "app"
        self.app.mkdir()
        for name, content in FILES.items():
            self.write(self.libraries / name, content)
        for package, name in zip(("lib_native", "lib_getenv"), EXTENSIONS):
            self.write(self.libraries / package / "__init__.py", STARTED + "from .%s import version\n" % name)
            (self.libraries / package / (name + ".so")).write_bytes(native[name])
        words = ["env", "-C", self.app, "PYTHONPATH=%s" % self.libraries, sys.executable]
        self.runner = Runner([*map(str, words), str(INTERPRETER / "runner.py"), "--preload", *ROOTS])

    @staticmethod
    def write(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def run(self, source):
        """Runs code that must succeed; returns what it printed."""
        status, code, stdout, stderr = self.runner.run(source)
        assert (status, code) == (0, 0), stderr
        return stdout.rstrip("\n")

    def is_preloaded(self, name):
        """Imports a module; whether it was loaded before that."""
        source = "import time, importlib\n_now = time.monotonic_ns()\n_m = importlib.import_module(%r)\n_m.STARTED < _now"
        return {"True": True, "False": False}[self.run(source % name)]


@pytest.fixture
def site(tmp_path, native):
    site = Site(tmp_path, native)
    yield site
    site.runner.close()


def test_a_module_is_there_at_the_first_import_and_not_before(site):
    assert site.run("import sys\n[name for name in sys.modules if name.startswith('lib_')]") == "[]"
    assert site.is_preloaded("lib_top")
    assert site.run("[name for name in sys.modules if name.startswith('lib_')]") == "['lib_base', 'lib_top.inner', 'lib_top']"
    assert site.run("_m.__spec__.loader.__class__.__name__, _m.__loader__.__class__.__name__") == str(("SourceFileLoader",) * 2)
    assert site.run("import lib_top.inner\nlib_top.inner is sys.modules['lib_top.inner']") == "True"


def test_a_submodule_is_no_attribute_before_its_own_import(site):
    assert site.is_preloaded("lib_top")
    assert site.run("import sys\nhasattr(_m, 'extra'), hasattr(_m, 'inner'), 'lib_other' in sys.modules") == "(False, True, False)"
    assert site.is_preloaded("lib_top.extra")
    assert site.run("import lib_top\nhasattr(lib_top, 'extra'), 'lib_other' in sys.modules") == "(True, True)"


def test_looking_for_a_module_answers_as_without(site):
    source = "import importlib.util, pkgutil, sys\nspec = importlib.util.find_spec('lib_top')\n"
    assert site.run(source + "type(spec.loader).__name__, 'lib_top' in sys.modules") == "('SourceFileLoader', False)"
    assert site.run("module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nmodule.__name__") == "'lib_top'"
    assert site.run("sorted(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations))") == "['extra', 'inner']"
    assert site.is_preloaded("lib_top")


def test_a_changed_file_is_imported_anew(site):
    site.write(site.libraries / "lib_base.py", STARTED + "VERSION = 2\n")
    assert not site.is_preloaded("lib_base")
    assert site.run("_m.VERSION") == "2"
    # What depends on it too, and nothing else.
    assert not site.is_preloaded("lib_top")
    assert site.is_preloaded("lib_other")


def test_a_dependency_deep_below_counts(site):
    site.write(site.libraries / "lib_other.py", STARTED + "NEW = True\n")
    assert not site.is_preloaded("lib_top.extra")
    assert site.run("import lib_other\nlib_other.NEW") == "True"
    assert site.is_preloaded("lib_top")


def test_an_extension_module_is_initialised_again_with_its_new_dependency(site):
    site.write(site.libraries / "lib_base.py", STARTED + "VERSION = 2\n")
    assert not site.is_preloaded("lib_native")
    assert site.run("import lib_native\nlib_native.version()") == "2"
    assert site.run("lib_native._native.__file__") == repr(str(site.libraries / "lib_native/_native.so"))


def test_an_extension_module_is_handed_over(site):
    assert site.is_preloaded("lib_native")
    assert site.run("import lib_native\nlib_native.version()") == "1"


@pytest.mark.parametrize(
    "place", ["working directory", "sys.path", "PYTHONPATH", "package", "finder", "submodule finder", "path hook"]
)
def test_a_module_that_is_found_first_wins(site, place):
    directory = site.app if place == "working directory" else site.other
    file = "lib_base/__init__.py" if place == "package" else "lib_base.py"
    site.write(directory / file, STARTED + "VERSION = 'mine'\n")
    site.write(site.other / "inner.py", STARTED + "VERSION = 'mine'\n")
    if place == "PYTHONPATH":
        site.runner.prepare(bytes(32), PYTHONPATH=str(site.other))
    elif place in ("sys.path", "package"):
        site.run("import sys\nsys.path.insert(0, %r)" % str(site.other))
    elif place == "path hook":
        hook = "def hook(path):\n    if path != %r: raise ImportError\n    return FileFinder(%r, (SourceFileLoader, ['.py']))\n"
        site.run(
            "import sys\nfrom importlib.machinery import FileFinder, SourceFileLoader\n"
            + hook % (str(site.libraries), str(site.other))
            + "sys.path_hooks.insert(0, hook)\nsys.path_importer_cache.clear()"
        )
    elif place.endswith("finder"):
        name = "lib_top.inner" if place.startswith("submodule") else "lib_base"
        site.run(
            "import sys\nfrom importlib.util import spec_from_file_location\n"
            "class Finder:\n    def find_spec(self, name, path=None, target=None):\n"
            "        if name == %r: return spec_from_file_location(name, %r)\n"
            "sys.meta_path.insert(0, Finder())" % (name, str(site.other / (name.split(".")[-1] + ".py")))
        )
        if place.startswith("submodule"):
            assert not site.is_preloaded("lib_top")
            assert site.run("import lib_top\nlib_top.inner.VERSION") == "'mine'"
            return
    assert not site.is_preloaded("lib_base")
    assert site.run("_m.VERSION") == "'mine'"
    if place != "path hook":
        assert not site.is_preloaded("lib_top")


def test_a_module_of_the_users_in_sys_modules_stays(site):
    site.run("import sys, types\nsys.modules['lib_base'] = types.ModuleType('lib_base')")
    assert not site.is_preloaded("lib_top")
    assert site.run("hasattr(_m.lib_base, 'STARTED')") == "False"
    assert "ModuleNotFoundError" in site.runner.run("sys.modules['lib_other'] = None\nimport lib_other")[3]


def test_a_variable_of_the_session_is_read_at_the_import(site):
    site.runner.prepare(bytes(32), LIB_MODE="session", LIB_ELSE="x")
    assert not site.is_preloaded("lib_mode")
    assert site.run("_m.MODE") == "'session'"
    assert site.is_preloaded("lib_top")


def test_a_variable_that_code_sets_is_read_at_the_import(site):
    site.run("import os\nos.environ['LIB_MODE'] = 'code'")
    assert not site.is_preloaded("lib_mode")
    assert site.run("_m.MODE") == "'code'"


def test_a_variable_that_nobody_read_changes_nothing(site):
    site.runner.prepare(bytes(32), LIB_ELSE="x")
    assert site.is_preloaded("lib_mode")


def test_a_variable_that_a_library_read_gives_a_new_process(site):
    process = site.run("import os\nos.getpid()")
    site.runner.prepare(bytes(32), NPY_SOMETHING="1")
    assert not site.is_preloaded("lib_getenv")
    assert site.run("import os\nos.getpid()") == process
    assert site.run("os.environ['NPY_SOMETHING'], b'NPY_SOMETHING=1' in open('/proc/self/environ', 'rb').read()") == "('1', True)"
    assert not site.is_preloaded("lib_other")
    assert site.runner.run_interrupted("while True: pass")[:2] == (1, 130)


def test_a_variable_that_a_library_read_changed_by_code_gives_an_import_anew(site):
    site.run("import os\nos.environ['NPY_SOMETHING'] = '1'")
    assert not site.is_preloaded("lib_getenv")
    assert site.is_preloaded("lib_base")


def test_a_file_that_is_read_at_the_import_counts(site):
    site.write(site.app / "lib.conf", "mine")
    assert not site.is_preloaded("lib_config")
    assert site.run("_m.CONFIG") == "'mine'"
    assert site.is_preloaded("lib_top")


@pytest.mark.parametrize("name", ["lib_optional", "lib_asks"])
def test_an_optional_dependency_that_was_installed_counts(site, name):
    site.write(site.libraries / "lib_absent.py", "")
    assert not site.is_preloaded(name)
    assert site.run("_m.HAS") == "True"


@pytest.mark.parametrize("name", ["lib_optional", "lib_asks"])
def test_an_optional_dependency_that_is_missing_still_changes_nothing(site, name):
    assert site.is_preloaded(name)
    assert site.run("_m.HAS") == "False"


def test_a_file_in_another_working_directory_counts(site):
    site.write(site.other / "lib.conf", "elsewhere")
    site.run("import os\nos.chdir(%r)" % str(site.other))
    assert not site.is_preloaded("lib_config")


def test_warnings_are_as_without(site):
    find = "import warnings\n[str(f[1].pattern) for f in warnings.filters if f[1] is not None and 'lib' in f[1].pattern]"
    assert site.run(find) == "[]"
    assert site.is_preloaded("lib_warns")
    assert site.run(find) == "['lib_filter']"


def test_a_warning_of_an_import_follows_the_users_filters(site):
    site.run("import warnings\nwarnings.simplefilter('always')")
    assert "DeprecationWarning: lib is old" in site.runner.run("import lib_warns")[3]


def test_a_warning_can_be_an_error(site):
    stderr = site.runner.run("import warnings\nwarnings.simplefilter('error')\nimport lib_warns")[3]
    assert "DeprecationWarning: lib is old" in stderr and "swiftlet_" not in stderr


def test_a_reload_executes_the_file(site):
    site.run("import lib_base, importlib\nbefore = lib_base.STARTED\nsame = importlib.reload(lib_base)")
    assert site.run("same is lib_base, lib_base.STARTED > before") == "(True, True)"


def test_a_module_that_was_taken_out_is_executed_again(site):
    assert site.is_preloaded("lib_base")
    site.run("import sys, lib_base\nold = sys.modules.pop('lib_base')")
    assert not site.is_preloaded("lib_base")
    assert site.run("_m is old") == "False"
    # Its class would be another one than the class that a preloaded dependent knows.
    assert not site.is_preloaded("lib_top")


def test_pickles_come_back_as_the_same_class(site):
    source = "import pickle, lib_base\ndata = pickle.dumps(lib_base.Thing())\ntype(pickle.loads(data)) is lib_base.Thing"
    assert site.run(source) == "True"
    assert site.run("from lib_top import lib_base as other\nother is lib_base") == "True"


def test_an_unpickling_imports_the_module(site):
    assert site.run("import pickle\ntype(pickle.loads(b'clib_base\\nThing\\n)R.')).__module__") == "'lib_base'"


def test_random_state_of_preloaded_modules_is_replaced(site):
    value = "import lib_random\nlib_random.GENERATOR.random()"
    site.runner.prepare(b"a" * 32)
    first = site.run(value)
    site.runner.prepare(b"b" * 32)
    second = site.run(value)
    site.runner.prepare(b"a" * 32)
    assert first == site.run(value) and first != second


def test_child_processes_import_as_without(site):
    source = (
        "import subprocess, sys, os\nprint(subprocess.run([sys.executable, '-c', "
        "'import sys, lib_top, os; print(type(lib_top.__spec__.loader).__name__, [f for f in sys.meta_path if \"swiftlet\" in repr(f)])'],"
        " capture_output=True, text=True, check=True).stdout)"
    )
    assert site.run(source).strip() == "SourceFileLoader []"
    assert site.run("[name for name in os.environ if 'SWIFTLET' in name.upper()]") == "[]"


def test_threads_that_import_at_once_get_the_same_modules(site):
    site.run(
        "import threading, importlib\nfound = []\n"
        "def load(name): found.append((name, importlib.import_module(name)))\n"
        "names = ['lib_top.extra', 'lib_base', 'lib_top', 'lib_other'] * 5\n"
        "threads = [threading.Thread(target=load, args=(name,)) for name in names]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()"
    )
    assert site.run("len(found), len({(n, id(m)) for n, m in found})") == "(20, 4)"


def test_a_failing_import_of_a_changed_module_shows_the_users_frames_alone(site):
    site.write(site.libraries / "lib_base.py", "1 / 0\n")
    stderr = site.runner.run("import lib_top")[3]
    assert "ZeroDivisionError" in stderr and "lib_base.py" in stderr and "swiftlet_" not in stderr


def test_memory_that_is_moved_into_a_file_keeps_its_content():
    source = """
import gc, os, sys
sys.path.insert(0, %r)
import swiftlet_heap
def anonymous():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:"))
mark = swiftlet_heap.HeapMark()
small = [str(n) for n in range(300_000)]
large = [bytes([n %% 251]) * 5000 for n in range(4000)]
before = anonymous()
moved = mark.move_growth()
assert moved > 30 << 20, moved
assert before - anonymous() > 20 << 10, (before, anonymous())
assert all(small[n] == str(n) for n in range(300_000))
assert all(large[n] == bytes([n %% 251]) * 5000 for n in range(4000))
pid = os.fork()
small.reverse(); large.clear(); gc.collect()
more = [bytearray(n) for n in range(20_000)]
assert small[0] == "299999" and len(more[19_999]) == 19_999
if pid == 0:
    os._exit(7)
assert os.waitpid(pid, 0)[1] == 7 << 8
"""
    subprocess.run([sys.executable, "-c", source % str(INTERPRETER)], check=True, timeout=120)
