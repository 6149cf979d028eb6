# SPDX-License-Identifier: Apache-2.0
"""Whether Python may look at the numbers in a tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def is_differentiated_by_transform(*tensors: Tensor | None) -> bool:
    """Return whether ``torch.func.grad`` or a relative of it watches one of the tensors.

    They cannot pass an operator whose derivative is registered with ``torch.library``.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    return any(x is not None and _is_watched(x) for x in tensors)


def _is_watched(x: Tensor) -> bool:
    inner = torch.func.debug_unwrap(x, recurse=False)
    # a batched tensor hides that the one inside it requires grad
    return inner is not x and (x.requires_grad or inner.requires_grad or _is_watched(inner))


def hides_values(x: Tensor) -> bool:
    """Return whether ``x`` is traced, has no numbers, or stands for a whole batch of tensors."""
    return (
        torch.compiler.is_compiling()
        or x.device.type == "meta"
        or isinstance(x, FakeTensor)
        or torch.func.debug_unwrap(x, recurse=False) is not x
    )
