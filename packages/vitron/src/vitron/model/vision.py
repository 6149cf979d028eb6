# SPDX-License-Identifier: Apache-2.0
"""Patches to tokens: projectors, merging of patches, pooling of frames."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

__all__ = ["make_projector", "merge_patches", "pool_frames"]


def make_projector(name: str, width: int, out: int) -> nn.Module:
    """Return a projector from patch features to the language model.

    Args:
        name: ``linear``, ``identity``, or ``mlp{n}x_gelu``: ``n`` linear layers with GELU between them.
        width: Input channels.
        out: Output channels.

    Raises:
        ValueError: If the name is none of these, or ``identity`` would have to change the width.
    """
    if name == "identity":
        if width != out:
            raise ValueError(f"projector 'identity' needs equal widths, got {width} and {out}: use 'linear'")
        return nn.Identity()
    if name == "linear":
        return nn.Linear(width, out)
    found = re.fullmatch(r"mlp([1-9])x_gelu", name)
    if found is None:
        raise ValueError(f"projector must be linear, identity or mlp{{n}}x_gelu, got {name!r}")
    layers: list[nn.Module] = [nn.Linear(width, out)]
    for _ in range(int(found[1]) - 1):
        layers += [nn.GELU(), nn.Linear(out, out)]
    return nn.Sequential(*layers)


def merge_patches(patches: Tensor, merge: int) -> Tensor:
    """Concatenate squares of patches, so that the language model reads fewer tokens.

    Args:
        patches: ``(N, G * G, C)``, row by row.
        merge: Side of a square; divides ``G``.

    Returns:
        ``(N, (G / merge)**2, merge**2 * C)``.
    """
    if merge == 1:
        return patches
    count, total, channels = patches.shape
    side = int(total**0.5)
    grid = patches.view(count, side // merge, merge, side // merge, merge, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(count, -1, merge * merge * channels)


def pool_frames(patches: Tensor, counts: Tensor, pool: str) -> Tensor:
    """Average the frames of each medium.

    Args:
        patches: ``(F, P, C)``, the frames of all media in a row.
        counts: Frames of each medium, ``(M,)`` int64; their sum is ``F``.
        pool: ``mean`` (paper, 3.1), ``none``, or ``every-k``.

    Returns:
        ``(B, P, C)``: for each medium in turn one block, one a frame, or one for every ``k`` frames.
    """
    if pool == "none":
        return patches
    every = None if pool == "mean" else int(pool.partition("-")[2])
    blocks, start = list[int](), 0
    for count in counts.tolist():
        step = every or count
        blocks += [start + frame // step for frame in range(count)]
        start = blocks[-1] + 1
    where = torch.tensor(blocks, device=patches.device)
    sums = patches.new_zeros(start, *patches.shape[1:]).index_add(0, where, patches)
    sizes = torch.bincount(where, minlength=start).to(patches.dtype)
    return sums / sizes[:, None, None]
