# SPDX-License-Identifier: Apache-2.0
"""Fidelity of a restored image."""

from __future__ import annotations

from torch import Tensor


def psnr(image: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Return the peak signal-to-noise ratio over all elements, in dB; infinite for equal images.

    Args:
        image: Any shape.
        target: Same shape as ``image``.
        data_range: Largest possible value minus smallest.

    Returns:
        A scalar tensor, fp32 (fp64 for fp64 input).

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> psnr(torch.zeros(4), torch.full((4,), 0.1))
        tensor(20.)
    """
    if image.shape != target.shape:
        raise ValueError(f"image and target must have one shape, got {image.shape} and {target.shape}")
    error = (image - target) if image.is_floating_point() else (image.float() - target.float())
    return 10 * (data_range**2 / error.square().mean()).log10()
