# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
from common_kernels.runtime.cli import run_app
from recipes.__main__ import app


@pytest.fixture
def recipes(capsys):
    """Run ``python -m recipes`` in this process; returns exit code and output."""

    def run(*arguments):
        code = run_app(app, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(exit_code=code, stdout=out, stderr=err)

    return run
