# SPDX-License-Identifier: Apache-2.0
"""Libraries that a template has preloaded: fast at the first import, and otherwise as if nothing were."""

import io
import json
import pathlib
import subprocess
import sys
import zipfile

import pytest
import requests

from server import Server, wait_until

# Imports a library, and says whether it is the preloaded one.
IMPORT = """
import importlib, json, sys
_finder = next(f for f in sys.meta_path if type(f).__name__ == "Preloader")
def load(name):
    module = importlib.import_module(name)
    entry = _finder.entries.get(name)
    return entry is not None and entry.is_given and entry.module is module
"""
# Takes nearly all of the memory that is available.
FILL = """
lines = open("/proc/meminfo").read().split("\\n")
available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
block = bytearray((available << 10) - (24 << 20))
for place in range(0, len(block), 4096):
    block[place] = 1
print(len(block))
"""
NUMPY = "numpy==1.26.4"


@pytest.fixture(scope="module")
def server():
    server = Server(variant="standard", SWIFTLET_POOL_SIZE="1", SWIFTLET_VCPU_COUNT="2")
    yield server
    server.stop()


@pytest.fixture
def clones(server):
    """Makes sessions in clones of the template."""
    sessions = []

    def make(**options):
        def clone():
            session = server.session(vcpu_count=2, **options)
            sessions.append(session)
            return session.run("1")["restore"]["origin"] != "boot" and session

        return wait_until(clone, 180)

    yield make
    for session in sessions:
        session.kill()


def run(session, source):
    """Runs code that must succeed; returns what its last line printed, as JSON."""
    result = session.run(IMPORT + source, timeout=300)
    assert result["exit_code"] == 0, result["stderr"]
    return json.loads(result["stdout"].strip().split("\n")[-1])


def loads(session, *names):
    return run(session, "print(json.dumps([load(name) for name in %r]))" % (names,))


def put(session, path, content):
    reply = requests.put(
        "%s/v1/sessions/%s/files%s" % (session.server.url, session.id, path),
        data=content,
        headers={"X-API-Key": session.key},
        timeout=120,
    )
    assert reply.status_code in (200, 201), reply.text


def install(session, wheel, content):
    put(session, "/tmp/" + wheel, content)
    result = session.bash("pip install -q --no-index --no-deps /tmp/" + wheel, 300)
    assert result["exit_code"] == 0, result["stderr"]


def wheel(name, version, files):
    """A wheel's file name and bytes."""
    information = "%s-%s.dist-info/" % (name, version)
    files = {
        **files,
        information + "METADATA": "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version),
        information + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[information + "RECORD"] = "".join("%s,,\n" % path for path in [*files, information + "RECORD"])
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return "%s-%s-py3-none-any.whl" % (name, version), data.getvalue()


@pytest.mark.alone
def test_the_first_import_takes_a_fraction_of_an_import(clones):
    session = clones()
    assert run(session, "print(json.dumps([n for n in ('numpy', 'pandas', 'matplotlib', 'PIL', 'httpx') if n in sys.modules]))") == []
    fast = session.run("import pandas, matplotlib.pyplot")
    slow = session.bash("python3 -c 'import pandas, matplotlib.pyplot'", 300)
    assert fast["exit_code"] == slow["exit_code"] == 0
    assert fast["cpu_time"] < slow["cpu_time"] / 6, (fast["cpu_time"], slow["cpu_time"])
    assert loads(session, "numpy", "pandas", "matplotlib.pyplot", "PIL.Image", "requests", "httpx") == [True] * 6


@pytest.mark.alone
def test_memory_is_left_to_the_guest(clones):
    """What libraries hold is page cache; without preloading some 121 MiB of 469 are not available."""
    lines = clones().bash("cat /proc/meminfo")["stdout"].split("\n")
    megabytes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line}
    assert megabytes["MemTotal"] - megabytes["MemAvailable"] < 121 + 20, megabytes


def test_an_installed_version_is_imported(clones):
    session = clones()
    install(session, *wheel("requests", "9.9.9", {"requests/__init__.py": "__version__ = '9.9.9'\n"}))
    assert loads(session, "requests", "urllib3", "httpx") == [False, True, True]
    assert run(session, "import requests\nprint(json.dumps(requests.__version__))") == "9.9.9"


def test_what_depends_on_an_installed_version_is_imported_anew(clones):
    session = clones()
    source = pathlib.PurePosixPath("/usr/lib/python3/dist-packages/pytz")
    # Debian's compiled files here are used without a look at their source.
    session.run("import shutil\nshutil.copytree(%r, '/tmp/new/pytz', ignore=shutil.ignore_patterns('__pycache__'))" % str(source))
    session.bash("cd /tmp/new && sed -i \"s/^__version__ = .*/__version__ = '2099.1'/\" pytz/__init__.py && tar cf /tmp/pytz.tar pytz")
    # A package's directory that stands first does what an installation does.
    assert session.bash("tar xf /tmp/pytz.tar -C $(python3 -c 'import site; print(site.getsitepackages()[0])')")["exit_code"] == 0
    assert loads(session, "numpy", "pandas", "matplotlib.pyplot") == [True, False, True]
    shown = "import pandas, pytz\nprint(json.dumps([pytz.__version__, pandas._libs.tslibs.timezones.maybe_get_tz('CET').__class__.__module__]))"
    assert run(session, shown) == ["2099.1", "pytz.tzfile"]
    assert run(session, "print(json.dumps(str(pandas.Timestamp('2020-01-01', tz='Europe/Paris'))))") == "2020-01-01 00:00:00+01:00"


def test_another_numpy_comes_with_libraries_that_use_it(clones, tmp_path):
    """Their extension modules were initialised with the other numpy's C interface."""
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--dest", str(tmp_path)]
    platform = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"]
    subprocess.run([*download, *platform, NUMPY], check=True)
    (file,) = tmp_path.glob("*.whl")
    session = clones()
    install(session, file.name, file.read_bytes())
    assert loads(session, "numpy", "pandas", "matplotlib.pyplot", "requests") == [False, False, False, True]
    values = run(
        session,
        "import numpy, pandas, matplotlib.pyplot as plt\n"
        "table = pandas.DataFrame({'a': numpy.arange(6) % 2, 'b': range(6)})\n"
        "plt.contour(numpy.random.rand(4, 4)); plt.savefig('/app/x.png'); plt.close()\n"
        "print(json.dumps([numpy.__version__, type(table.b.values) is numpy.ndarray, table.groupby('a').b.sum().tolist()]))",
    )
    assert values == ["1.26.4", True, [6, 9]]
    assert session.bash("file /app/x.png")["stdout"].startswith("/app/x.png: PNG image data")


def test_a_module_of_the_users_wins(clones):
    session = clones()
    put(session, "/app/requests.py", b"MINE = True\n")
    assert loads(session, "requests", "pandas") == [False, True]
    assert run(session, "import requests\nprint(json.dumps(requests.MINE))") is True


def test_variables_of_the_session_are_read_at_the_import(clones):
    session = clones(env={"MPLBACKEND": "svg", "UNRELATED": "1"})
    assert loads(session, "numpy", "pandas", "matplotlib") == [True, True, False]
    assert run(session, "import matplotlib\nprint(json.dumps(matplotlib.get_backend()))") == "svg"


def test_the_number_of_threads_is_the_sessions(clones):
    threads = (
        "import ctypes, os, numpy\npath = next(l.split()[-1] for l in open('/proc/self/maps') if 'libopenblas' in l)\n"
        "print(json.dumps(ctypes.CDLL(path).openblas_get_num_threads()))"
    )
    session = clones()
    assert run(session, threads) == 2
    assert run(clones(env={"OMP_NUM_THREADS": "1"}), threads) == 1
    session = clones()
    assert run(session, "import os\nos.environ['OPENBLAS_NUM_THREADS'] = '1'\n" + threads) == 1


def test_what_openblas_reads_at_its_load_counts(clones):
    session = clones(env={"OPENBLAS_CORETYPE": "Nehalem"})
    source = (
        "import ctypes, numpy\npath = next(l.split()[-1] for l in open('/proc/self/maps') if 'libopenblas' in l)\n"
        "name = ctypes.CDLL(path).openblas_get_corename\nname.restype = ctypes.c_char_p\nprint(json.dumps(name().decode()))"
    )
    assert run(session, source) == "Nehalem"
    assert loads(session, "numpy", "requests") == [False, False]


def test_libraries_survive_a_guest_that_is_short_of_memory(clones):
    """Their memory is pages of a file, which the kernel drops then and reads again."""
    session = clones()
    put(session, "/tmp/fill.py", FILL.encode())
    result = session.bash("python3 /tmp/fill.py", 300)
    assert result["exit_code"] == 0 and int(result["stdout"]) > 100 << 20, result
    assert loads(session, "numpy", "pandas", "matplotlib.pyplot") == [True, True, True]
    assert run(session, "import pandas\nprint(json.dumps(int(pandas.DataFrame({'a': [1, 2]}).a.sum())))") == 3


def test_a_style_file_of_the_users_is_read(clones):
    session = clones()
    put(session, "/app/matplotlibrc", b"lines.linewidth: 7\n")
    assert loads(session, "matplotlib.pyplot") == [False]
    assert run(session, "import matplotlib\nprint(json.dumps(matplotlib.rcParams['lines.linewidth']))") == 7


def test_a_backend_can_be_chosen(clones):
    session = clones()
    source = "import matplotlib\nmatplotlib.use('pdf')\nimport matplotlib.pyplot as plt\nprint(json.dumps(plt.get_backend()))"
    assert run(session, source) == "pdf"
    assert run(session, "plt.plot([1]); plt.savefig('/app/x'); plt.close()\nprint(json.dumps(open('/app/x.pdf', 'rb').read(5).decode()))") == "%PDF-"


def test_clones_share_no_random_state(clones):
    source = (
        "import numpy, random, multiprocessing.process, tempfile, uuid\n"
        "print(json.dumps([numpy.random.rand(), random.random(), bytes(multiprocessing.process.current_process().authkey).hex(),"
        " tempfile.mktemp(), str(uuid.uuid1())]))"
    )
    first, second = run(clones(), source), run(clones(), source)
    assert all(one != other for one, other in zip(first, second)), (first, second)


def test_programs_beside_the_interpreter_know_nothing_of_it(clones):
    session = clones()
    source = "import sys, subprocess; print([n for n in ('numpy', 'pandas') if n in sys.modules], [f for f in sys.meta_path if 'Preloader' in str(f)])"
    assert session.bash('python3 -c "%s"' % source)["stdout"] == "[] []\n"
    assert session.run("import subprocess\nprint(subprocess.check_output(['python3', '-c', %r], text=True))" % source)["stdout"] == "[] []\n\n"


@pytest.mark.alone
def test_a_second_interpreter_does_not_make_its_user_wait(clones):
    session = clones()
    session.run("import os\nos.kill(os.getpid(), 9)")
    assert session.run("1 + 1")["stdout"] == "2\n"
    assert loads(session, "numpy", "requests") == [True, False]
    assert run(session, "import pandas\nprint(json.dumps(int(pandas.Series([1, 2]).sum())))") == 3


def test_a_small_guest_preloads_less(server):
    session = server.session(vcpu_count=2, memory_mb=256)

    def clone():
        nonlocal session
        if session.run("1")["restore"]["origin"] != "boot":
            return True
        session.kill()
        session = server.session(vcpu_count=2, memory_mb=256)
        return False

    wait_until(clone, 180)
    assert loads(session, "numpy", "requests") == [True, False]
    session.kill()
