# SPDX-License-Identifier: Apache-2.0

import pytest


@pytest.fixture(scope="module")
def runner(request):
    """An interpreter that a module's harmless tests share, made as the module makes them."""
    runner = request.module.make_runner()
    yield runner
    runner.close()
