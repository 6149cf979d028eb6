# SPDX-License-Identifier: Apache-2.0
"""The paper's formulas as functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-R BT.601, in the order red, green, blue
LUMA = (0.2989, 0.587, 0.114)


def luma_gray(images: Tensor) -> Tensor:
    """Return the grey version of RGB images, three equal channels.

    Args:
        images: ``(..., 3, H, W)``, usually normalised already: the weights then act on normalised channels.

    Source: arXiv 2411.12044, image engineering, as the published code applies it.
    """
    weights = images.new_tensor(LUMA).view(3, 1, 1)
    return (images * weights).sum(dim=-3, keepdim=True).expand_as(images)


def self_self_map(
    q: Tensor, k: Tensor, v: Tensor, *, pairs: Sequence[str], scale: float, bias: Tensor | None = None
) -> Tensor:
    """Return the sum of the softmax maps of several pairs.

    Args:
        q: Queries, ``(..., N, head_dim)``.
        k: Keys, ``(..., N, head_dim)``.
        v: Values, ``(..., N, head_dim)``.
        pairs: Any of ``"qq"``, ``"kk"``, ``"vv"`` and ``"qk"``.
        scale: Factor on the logits.
        bias: Added to the logits, broadcast over ``(..., N, N)``.

    Returns:
        ``(..., N, N)``, not divided by the number of pairs: rows add up to it.

    Source: arXiv 2411.12044, the self-self attention of the last block.
    """
    sides = {"q": q, "k": k, "v": v}
    total: Tensor | None = None
    for left, right in pairs:
        logits = sides[left] @ sides[right].transpose(-1, -2) * scale
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        total = weights if total is None else total + weights
    if total is None:
        raise ValueError("pairs must not be empty")
    return total


def mix_maps(last: Tensor, mids: Sequence[Tensor], weight: float) -> Tensor:
    """Return ``(1 - weight) * last + weight * mean(mids)``, or ``last`` without any mid-layer map.

    Source: arXiv 2411.12044, the combination with intermediate layers; the published code takes 0.5.
    """
    if not mids:
        return last
    return (1 - weight) * last + weight * torch.stack(list(mids)).mean(dim=0)


def mix_categories(first: Sequence[Tensor], second: Sequence[Tensor], lam: float) -> Tensor:
    """Return ``lam * mean(first) + (1 - lam) * mean(second)``, or the mean of the one that is not empty.

    Args:
        first: Maps of the branches that leave every pixel in its place.
        second: Maps of the flipped branches, flipped back.
        lam: Share of the first category.

    Raises:
        ValueError: If both are empty.

    Source: arXiv 2411.12044, image engineering.
    """
    if not first and not second:
        raise ValueError("first and second must not both be empty")
    if not second:
        return torch.stack(list(first)).mean(dim=0)
    if not first:
        return torch.stack(list(second)).mean(dim=0)
    return lam * torch.stack(list(first)).mean(dim=0) + (1 - lam) * torch.stack(list(second)).mean(dim=0)


def resize_positions(
    table: Tensor, native: tuple[int, int], grid: tuple[int, int], *, num_prefix: int, mode: str = "legacy"
) -> Tensor:
    """Fit learnt position embeddings to another grid of patches.

    Args:
        table: ``(num_prefix + native height * native width, C)``; the prefix rows stay as they are.
        native: Height and width of the table's grid, in patches.
        grid: Height and width that are wanted.
        num_prefix: Rows for class and register tokens.
        mode: ``"legacy"``: bicubic by the factor ``(n + 0.1) / native``, and no change at all whenever the
            number of patches agrees; ``"size"``: bicubic to the size, and no change where the grid agrees.

    Returns:
        ``(num_prefix + height * width, C)``.
    """
    same = grid[0] * grid[1] == native[0] * native[1] if mode == "legacy" else grid == native
    if same:
        return table
    prefix, patches = table[:num_prefix], table[num_prefix:]
    image = patches.reshape(1, *native, -1).permute(0, 3, 1, 2).float()  # (1, C, height, width)
    if mode == "legacy":
        factors = [(n + 0.1) / side for n, side in zip(grid, native, strict=True)]
        resized = F.interpolate(image, scale_factor=factors, mode="bicubic")
    else:
        resized = F.interpolate(image, size=grid, mode="bicubic")
    rows = resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)  # (height * width, C)
    return torch.cat([prefix, rows.to(table.dtype)])


def merge_names(scores: Tensor, owner: Tensor, num_classes: int) -> Tensor:
    """Return for every class the best score of its names.

    Args:
        scores: ``(names, ...)``.
        owner: ``(names,)``, the class of each name; every class owns one at least.
        num_classes: Classes.

    Returns:
        ``(num_classes, ...)``.
    """
    merged = scores.new_empty((num_classes, *scores.shape[1:]))
    for number in range(num_classes):
        names = (owner == number).nonzero().flatten()
        first, last = int(names[0]), int(names[-1])
        # names of a class usually stand together: a view then, not a copy
        group = scores[first : last + 1] if last - first + 1 == len(names) else scores[names]
        torch.amax(group, dim=0, out=merged[number])
    return merged


def share_foreground(
    scores: Tensor, prior: Tensor, foreground: Tensor, *, weight: float, logit_scale: float
) -> Tensor:
    """Add a prior to the scores of foreground names, so that it tells them apart but not from the background.

    The names of the foreground share out their common probability anew: they get ``scores + weight * prior``
    less what keeps the sum of their exponentials. The background keeps its scores, for a prior of whole
    windows does not know where in the window a thing is.

    Args:
        scores: ``(names, ...)``, not yet scaled.
        prior: Likewise.
        foreground: ``(names,)``, bool: the names of the foreground, one at least.
        weight: Factor on the prior.
        logit_scale: Factor on the scores before the softmax.

    Returns:
        ``(names, ...)``.
    """
    before = scores[foreground]
    after = before + weight * prior[foreground]
    gain = (after * logit_scale).logsumexp(dim=0) - (before * logit_scale).logsumexp(dim=0)
    shared = scores.clone()
    shared[foreground] = after - gain / logit_scale
    return shared


def gaussian_bias(queries: Tensor, keys: Tensor, std: float) -> Tensor:
    """Return ``exp(-distance^2 / (2 std^2))`` between tokens; 0 where one has no place.

    Args:
        queries: ``(N, 2)`` places in patches; NaN for class and register tokens.
        keys: ``(M, 2)``, likewise.
        std: Standard deviation in patches.

    Returns:
        ``(N, M)``.

    Source: NACLIP, arXiv 2404.08181, as a bias of the logits.
    """
    squared = (queries[:, None] - keys[None]).square().sum(dim=-1)  # (N, M)
    return torch.exp(squared / (-2 * std**2)).nan_to_num(nan=0.0)
