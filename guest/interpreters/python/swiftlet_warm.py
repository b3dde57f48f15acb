# SPDX-License-Identifier: Apache-2.0
"""What the interpreter does ahead of its first call, and what makes a clone's interpreter an individual."""

import gc
import os
import random
import signal
import struct
import sys
import time

import swiftlet_heap

# In this order. Those that a first table, picture or figure imports as well change nothing in what was imported before, but for the file
# formats that PIL knows, which it looks up itself at its first use.
LIBRARIES = (
    "numpy", "pandas", "pandas.io.formats.string", "pandas.io.formats.html", "pandas.io.formats.csvs",
    "PIL.Image", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin", "PIL.PngImagePlugin",
    "matplotlib.pyplot", "matplotlib.backends.backend_agg", "requests", "httpx",
)  # fmt: skip
# Below the first many bytes a guest keeps its memory for its user; below the second it gets numpy alone.
SMALL_MEMORY = 200 << 20
LARGE_MEMORY = 400 << 20
# A word of the kernel's command line: the guest becomes a template.
TEMPLATE = "swiftlet.template"
# Made by the interpreter that preloads. One that is started after it, in a clone, has a user who waits.
MARK = "/run/swiftlet/preloaded"


def libraries():
    """What this interpreter shall preload."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory < SMALL_MEMORY:
        return ()
    if memory < LARGE_MEMORY or not is_template():
        return LIBRARIES[:1]
    return LIBRARIES


def is_template():
    try:
        with open("/proc/cmdline") as words:
            if TEMPLATE not in words.read().split():
                return False
        os.close(os.open(MARK, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return True


def warm(preloader, names):
    """Preloads libraries, and keeps what they hold out of the garbage collector's and the guest's way."""
    gc.collect()
    mark = swiftlet_heap.HeapMark() if len(names) > 1 else None
    preloader.preload(names)
    preloader.settle(names)
    gc.collect()
    gc.freeze()
    if mark is not None:
        try:
            mark.move_growth()
        except OSError as error:
            # It works all the same, and takes more of the guest's memory; the template's console says so.
            report("The preloaded libraries stay in anonymous memory: %s" % error)


def report(message):
    with open("/dev/console", "w") as console:
        console.write("swiftlet: %s\n" % message)


def become_own(preloader, seed):
    """Replaces the random state that all clones of a template have in common, and follows the variables of this VM."""
    random.seed(seed)
    preloader.reseed(seed)
    ssl, uuid, tempfile, platform, process = map(
        preloader.module, ("ssl", "uuid", "tempfile", "platform", "multiprocessing.process")
    )
    # numpy imports more of itself for that, so it waits until numpy is imported.
    preloader.when_imported("numpy.random.mtrand", lambda module: module.seed(list(struct.unpack("<8I", seed[:32]))))
    if ssl is not None:
        ssl.RAND_add(seed, 32.0)
    if uuid is not None:
        uuid._node = None
        uuid._last_timestamp = None
    if tempfile is not None:
        tempfile._name_sequence = None
    if platform is not None:
        platform._uname_cache = None
    if process is not None:
        process.current_process()._config["authkey"] = process.AuthenticationString(os.urandom(32))
    if "TZ" in os.environ:
        time.tzset()
    # Python reads it at its start.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]


def start_over(program, control, payload):
    """Replaces this process with one that has preloaded nothing and goes on with the prepare.

    The session has variables that a preloaded library of C code has read at its load, as OPENBLAS_CORETYPE. No user code has run.
    """
    # Before the file, which would get this number.
    os.dup2(control.socket.fileno(), 3)
    file = os.memfd_create("prepare", 0)
    os.write(file, payload)
    os.lseek(file, 0, os.SEEK_SET)
    # Until the new program has its handler; the agent asks more than once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, program, "--over", str(file)])


def interrupted_prepare(file):
    with open(int(file), "rb") as payload:
        return payload.read()
