# SPDX-License-Identifier: Apache-2.0
"""Sizes that the kernels can hold in registers."""

from __future__ import annotations

import torch

__all__ = ["MAX_LISTED", "MAX_ROW"]

# tokens of a window up to which a program keeps whole rows of scores in registers
MAX_ROW = {torch.float32: 1024, torch.float16: 2048, torch.bfloat16: 2048}
MAX_LISTED = 1024  # of a longer window: choosing holds twice as many scores in registers
