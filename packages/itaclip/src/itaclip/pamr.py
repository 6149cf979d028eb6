# SPDX-License-Identifier: Apache-2.0
"""Pixel-adaptive mask refinement: scores flow between neighbours of like colour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# the eight neighbours of a pixel, in raster order
_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
# pixels of one addition on a CPU: output, input and weights of a block then stay in its cache
_CPU_BLOCK = 2**16


def affinity(image: Tensor, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Return the weights of the neighbours of each pixel.

    Args:
        image: ``(C, H, W)``.
        dilations: Distances of the neighbours, in pixels.

    Returns:
        ``(8 * len(dilations), H, W)``, fp32, summing to one over the neighbours of a pixel: softmax of the
        mean over channels of ``-|x - neighbour| / (1e-8 + 0.1 std)``, where the standard deviation is over
        the 3x3 neighbourhoods of all dilations, edges replicated.

    Source: PAMR, arXiv 2005.08104, Sec. 4.2, as ITACLIP and SCLIP use it.
    """
    image = image.float()
    reach = max(dilations)
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")[0]
    count = 9 * len(dilations)
    # sums of differences to the pixel itself: exact zeros in flat regions
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for offset in _offsets(dilations):
        difference = _shifted(padded, offset, reach, image.shape[-2:]) - image
        total += difference
        squares += difference.square()
    variance = (squares - total.square() / count).clamp(min=0) / (count - 1)
    sharpness = 1 / (1e-8 + 0.1 * variance.sqrt())
    logits = image.new_empty((8 * len(dilations), *image.shape[-2:]))
    for number, offset in enumerate(_offsets(dilations)):
        difference = _shifted(padded, offset, reach, image.shape[-2:]) - image
        torch.mean(difference.abs_().mul_(sharpness), dim=0, out=logits[number])
    return logits.neg_().softmax(dim=0)


def refine(masks: Tensor, weights: Tensor, *, steps: int, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Replace every pixel by the weighted mean of its neighbours, ``steps`` times.

    Neighbours are added up one after the other, so the memory is that of a few copies of the masks.

    Args:
        masks: ``(K, H, W)``, any number of maps; each is refined by itself.
        weights: Result of :func:`affinity`, of the same size.
        steps: Iterations; 0 returns the masks.
        dilations: Distances given to :func:`affinity`.

    Returns:
        ``(K, H, W)``, fp32.

    Raises:
        ValueError: If masks and weights differ in size.
    """
    if masks.shape[-2:] != weights.shape[-2:]:
        raise ValueError(
            f"masks and weights must have one size, got {tuple(masks.shape)} and {tuple(weights.shape)}"
        )
    masks = masks.float()
    for _ in range(steps):
        masks = _step(masks, weights, dilations)
    return masks


def _step(masks: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    reach = max(dilations)
    K, H, W = masks.shape
    padded = F.pad(masks[None], (reach,) * 4, mode="replicate")[0]
    refined = torch.zeros_like(masks)
    rows = max(1, _CPU_BLOCK // W) if masks.device.type == "cpu" else H
    maps = max(1, _CPU_BLOCK // (rows * W)) if masks.device.type == "cpu" else K
    offsets = _offsets(dilations)
    for top in range(0, H, rows):
        bottom = min(top + rows, H)
        shares = weights[:, top:bottom]
        for start in range(0, K, maps):
            target = refined[start : start + maps, top:bottom]
            source = padded[start : start + maps, top : bottom + 2 * reach]
            for share, offset in zip(shares, offsets, strict=True):
                target.addcmul_(_shifted(source, offset, reach, target.shape[-2:]), share)
    return refined


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    return [(y * distance, x * distance) for distance in dilations for y, x in _AROUND]


def _shifted(padded: Tensor, offset: tuple[int, int], reach: int, size: Sequence[int]) -> Tensor:
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + size[0], left : left + size[1]]
