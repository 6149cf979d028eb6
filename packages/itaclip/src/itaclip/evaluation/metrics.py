# SPDX-License-Identifier: Apache-2.0
"""Confusion matrices and the scores that benchmarks report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from itaclip.evaluation.datasets import IGNORE


def confusion(labels: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of every true class by predicted class.

    Args:
        labels: Predicted classes, ``(H, W)``, integers in ``[0, num_classes)``.
        target: True classes, ``(H, W)``, integers in ``[0, num_classes)``, or 255 for pixels that do not
            count.
        num_classes: Number of classes ``K``.

    Returns:
        ``(K, K)``, int64, on the CPU: row true, column predicted.

    Raises:
        ValueError: If the sizes differ or a number is no class.
    """
    if labels.shape != target.shape:
        raise ValueError(
            f"labels and target must have one size, got {tuple(labels.shape)}, {tuple(target.shape)}"
        )
    given, true = labels.cpu().long(), target.cpu().long()
    judged = true[true != IGNORE]
    for name, values in (("labels", given), ("target", judged)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"{name} must lie in [0, {num_classes}), got {int(values.min())}..{int(values.max())}"
            )
    if not judged.numel():
        return torch.zeros(num_classes, num_classes, dtype=torch.int64)
    # checked above, without the sorting that torchmetrics does for it
    return multiclass_confusion_matrix(given, true, num_classes, ignore_index=IGNORE, validate_args=False)


class ClassRow(TypedDict):
    """The scores of one class.

    Attributes:
        label: Display name.
        iou: Intersection over union in per cent; ``None`` if the class is nowhere true or
            predicted.
        accuracy: Share of its pixels that were found, in per cent; ``None`` if it has none.
        share: Share of all counted pixels that are of this class, in per cent.
    """

    label: str
    iou: float | None
    accuracy: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a whole data set, in per cent.

    A class that is neither true nor predicted anywhere has no IoU and stays out of mIoU; one that is only
    predicted counts with an IoU of 0. A class without true pixels has no accuracy and stays out
    of mAcc. Classes with pixels always count.

    Args:
        matrix: ``(K, K)`` counts over all images, row true, column predicted.
        labels: Display names of the classes.

    Source: the convention of the benchmarks: intersections and unions are summed over the whole set before
        they are divided.
    """

    matrix: Tensor
    labels: tuple[str, ...]

    @property
    def iou(self) -> Tensor:
        """``(K,)``, fp64; NaN for absent classes."""
        hits = self.matrix.diagonal().double()
        return 100 * hits / (self.matrix.sum(0) + self.matrix.sum(1) - hits)

    @property
    def accuracy(self) -> Tensor:
        """``(K,)``, fp64: share of each class's pixels that were found; NaN for classes without pixels."""
        return 100 * self.matrix.diagonal().double() / self.matrix.sum(1)

    @property
    def mean_iou(self) -> float:
        """MIoU; NaN without counted pixels."""
        return float(self.iou.nanmean())

    @property
    def mean_accuracy(self) -> float:
        """MAcc; NaN without counted pixels."""
        return float(self.accuracy.nanmean())

    @property
    def pixel_accuracy(self) -> float:
        """AAcc, the share of all counted pixels that are right; NaN without counted pixels."""
        return float(100 * self.matrix.diagonal().sum().double() / self.matrix.sum())

    @property
    def num_counted(self) -> int:
        """Number of classes in the mIoU."""
        return int((~self.iou.isnan()).sum())

    def rows(self) -> list[ClassRow]:
        """Return the scores of every class."""
        share = 100 * self.matrix.sum(1).double() / self.matrix.sum().clamp(min=1)
        columns: Sequence[list[float]] = (self.iou.tolist(), self.accuracy.tolist(), share.tolist())
        return [
            ClassRow(label=label, iou=_number(iou), accuracy=_number(accuracy), share=round(part, 4))
            for label, iou, accuracy, part in zip(self.labels, *columns, strict=True)
        ]

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, rounded to a hundredth of a per cent."""
        return {
            "mIoU": _number(self.mean_iou),
            "aAcc": _number(self.pixel_accuracy),
            "mAcc": _number(self.mean_accuracy),
            "classes_counted": self.num_counted,
            "per_class": self.rows(),
        }


def _number(value: float) -> float | None:
    return None if value != value else round(value, 2)
