# SPDX-License-Identifier: Apache-2.0
import pytest


def pytest_configure(config: pytest.Config) -> None:
    # the schedulers of diffusers hand torch tensors to numpy 2.4
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't:DeprecationWarning")
