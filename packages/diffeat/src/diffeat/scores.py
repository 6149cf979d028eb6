# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union, with its two conventions for classes that do not occur."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffeat.options import Absent


def mean_iou(
    predictions: Tensor,
    targets: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    absent: Absent = "skip",
) -> float:
    """Mean intersection over union, counted over all pixels together.

    Args:
        predictions: Class numbers, any shape.
        targets: Class numbers of the same shape, or ``ignore_index``.
        num_classes: Classes ``K``.
        ignore_index: Class number of ignored pixels.
        absent: Score of a class that neither occurs nor is predicted: ``"skip"`` excludes it from the mean;
            ``"zero"`` counts it as 0, as the authors' code does.

    Raises:
        ValueError: If shapes differ or ``absent`` is something else.

    Examples:
        >>> import torch
        >>> mean_iou(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3)
        0.5
        >>> round(mean_iou(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 3, absent="zero"), 3)
        0.333
    """
    from torchmetrics.functional.classification import multiclass_jaccard_index

    if absent not in {"skip", "zero"}:
        raise ValueError(f"absent must be 'skip' or 'zero', got {absent!r}")
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions and targets must have one shape, got {tuple(predictions.shape)} and "
            f"{tuple(targets.shape)}"
        )
    if not bool((targets != ignore_index).any()):
        return 0.0
    arguments: dict[str, Any] = {"ignore_index": ignore_index, "validate_args": False}
    flat, wanted = predictions.flatten(), targets.flatten().long()
    if absent == "skip":
        return float(multiclass_jaccard_index(flat, wanted, num_classes, average="macro", **arguments))
    each = multiclass_jaccard_index(flat, wanted, num_classes, average="none", **arguments)
    return float(each.nan_to_num(0.0).mean())
