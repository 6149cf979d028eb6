# SPDX-License-Identifier: Apache-2.0
"""Matrix products in the precision of their inputs, whatever the process allows elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch


def autocast_off(device: torch.device) -> torch.autocast:
    """Return a context in which autocast does not change a dtype on this device."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


@contextlib.contextmanager
def ieee_products(device: torch.device) -> Generator[None, None, None]:
    """Forbid TF32 and bf16 inside fp32 products, as ``torch.set_float32_matmul_precision`` may allow them."""
    backends: Any = torch.backends
    backend = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul
    before = backend.fp32_precision
    if before in ("none", "ieee"):  # nothing to forbid: leave the setting of the process alone
        yield
        return
    backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        backend.fp32_precision = before
