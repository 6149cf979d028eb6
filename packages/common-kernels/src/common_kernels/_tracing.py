# SPDX-License-Identifier: Apache-2.0
"""Whether Python may look at the numbers in a tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def hides_values(x: Tensor) -> bool:
    """Return whether ``x`` is traced, has no numbers, or stands for a whole batch of tensors."""
    return (
        torch.compiler.is_compiling()
        or x.device.type == "meta"
        or isinstance(x, FakeTensor)
        or torch.func.debug_unwrap(x, recurse=False) is not x
    )
