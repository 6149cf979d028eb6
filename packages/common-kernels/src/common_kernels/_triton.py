# SPDX-License-Identifier: Apache-2.0
"""Whether Triton kernels can run on a tensor's device; needs no Triton itself."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

# Triton reads the variable when a kernel is defined; a change after the import has no effect
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_INSTALLED = importlib.util.find_spec("triton") is not None
_MIN_CAPABILITY = 8


def why_no_triton(x: Tensor) -> str | None:
    """Return why no Triton kernel can take ``x``, or ``None``."""
    if not _INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not (INTERPRETED and x.device.type == "cpu"):
        return (
            f"needs tensors on a CUDA device, got {x.device.type}"
            " (TRITON_INTERPRET=1, set before the import, runs slowly on the CPU)"
        )
    if x.is_cuda and _is_too_old(x.device):
        return f"needs compute capability {_MIN_CAPABILITY}.0 or newer"
    if INTERPRETED and x.dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    return None


def _is_too_old(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_properties(device).major < _MIN_CAPABILITY
