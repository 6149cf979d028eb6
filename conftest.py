# SPDX-License-Identifier: Apache-2.0
"""What the tests of every project share: on which device a check runs."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and in nox -s gpu a CUDA device: the same check runs on both."""
    return request.param


@pytest.fixture
def compiler(device: str) -> str:
    """The backend of torch.compile: on the CPU only its graphs, for which no C++ compiler is needed."""
    return "inductor" if device == "cuda" else "aot_eager"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of CUDA devices where there is none; with REQUIRE_GPU stop instead."""
    on_device = [item for item in items if item.get_closest_marker("gpu")]
    if not on_device:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("REQUIRE_GPU"):
        raise pytest.UsageError("no CUDA device is available, and REQUIRE_GPU is set")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for item in on_device:
        if interpreted and item.get_closest_marker("interpret"):
            continue  # its kernels run on the CPU
        item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
