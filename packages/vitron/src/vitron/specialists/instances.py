# SPDX-License-Identifier: Apache-2.0
"""Instances: the objects of one answer, each with its own mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.specialists.protocol import Request

__all__ = ["choose_instances", "is_plural", "label_of", "split_instances"]

PLURAL = "all "  # begins the instruction of a request for every object of a kind
SAME = 0.8  # IoU above which two detections are one object
SMALLEST = 0.001  # share of the image below which a part is a speck

Mask = NDArray[np.bool_]


def is_plural(request: Request) -> bool:
    """Return whether a request means every object of a kind: its instruction begins with ``all``.

    Example:
        >>> from vitron.specialists import Action
        >>> is_plural(Request(module="image_segmentation", actions=(Action("segment", "all red circles"),)))
        True
    """
    return any(action.text.lower().startswith(PLURAL) for action in request.actions)


def label_of(request: Request) -> str:
    """Return what a request names, without ``all``."""
    text = next((action.text for action in request.actions if action.text), "")
    return text[len(PLURAL) :].strip() if text.lower().startswith(PLURAL) else text or "region"


def split_instances(mask: Mask) -> list[Mask]:
    """Return the connected parts of a mask, in reading order; parts of a video also touch across frames.

    Args:
        mask: ``(T, H, W)``. Parts that cover less than 0.1 % of every frame are left out.

    Returns:
        One mask ``(T, H, W)`` for each part.
    """
    from scipy import ndimage  # slow to import and rarely needed

    labelled: Any = ndimage.label(mask, np.ones((3, 3, 3)))
    parts, count = labelled
    found = (np.asarray(parts == number) for number in range(1, int(count) + 1))
    return [part for part in found if part.sum(axis=(1, 2)).max() >= SMALLEST * mask[0].size]


def choose_instances(request: Request, instances: Sequence[Mask], scores: Sequence[float]) -> list[int]:
    """Return which of the instances that a model found by a text a request means.

    Args:
        request: A plural request means all, any other the one with the highest IoU with the region, or
            without a region the one with the highest score. A region that the user gave has to be touched.
        instances: Masks, ``(H, W)`` each.
        scores: Score of each.

    Returns:
        Positions of the chosen ones, the highest score first; none if none is meant.
    """
    found = [position for position, each in enumerate(instances) if each.any()]
    region = request.mask
    if region is not None:
        touched = [position for position in found if (instances[position] & region).any()]
        found = touched if touched or request.region is not None else found
        if touched and not is_plural(request):
            return [max(touched, key=lambda position: _iou(instances[position], region))]
    ranked = sorted(found, key=lambda position: -scores[position])
    return _distinct(ranked, instances) if is_plural(request) else ranked[:1]


def _distinct(ranked: Sequence[int], instances: Sequence[Mask]) -> list[int]:
    """Leave out instances that are almost the same as one before them."""
    kept = list[int]()
    for position in ranked:
        if all(_iou(instances[position], instances[other]) <= SAME for other in kept):
            kept.append(position)
    return kept


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())
