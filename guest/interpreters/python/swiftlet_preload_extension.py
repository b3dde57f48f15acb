# SPDX-License-Identifier: Apache-2.0
"""Loads an extension module a second time in one process, as if for the first time."""

import _imp
import os
import shutil
import tempfile
from importlib.machinery import ExtensionFileLoader, ModuleSpec


class CopyLoader(ExtensionFileLoader):
    """Loads an extension module from a copy of its file.

    A library is initialised once in a process, and Python gives a second import what the first one left. A preloaded extension module
    whose dependencies have changed since would go on with the old ones (pandas' with the C interface of another numpy), so it must
    be initialised again. To the dynamic linker another file is another library.
    """

    def create_module(self, spec):
        with tempfile.TemporaryDirectory(prefix="swiftlet-") as directory:
            path = os.path.join(directory, os.path.basename(self.path))
            shutil.copyfile(self.path, path)
            module = _imp.create_dynamic(ModuleSpec(spec.name, self, origin=path))
        module.__file__ = self.path
        return module

    def exec_module(self, module):
        _imp.exec_dynamic(module)
