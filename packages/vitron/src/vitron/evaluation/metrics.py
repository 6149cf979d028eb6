# SPDX-License-Identifier: Apache-2.0
"""Scores of masks, boxes and spans of frames.

IoU, J and F of two empty masks are 1. Everything is computed in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MaskScores",
    "accuracy_at",
    "boundary_f",
    "box_iou",
    "ciou",
    "giou",
    "j_and_f",
    "mask_iou",
    "overlap",
    "tube_iou",
    "video_miou",
]

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]
BOUNDARY_SHARE = 0.008  # tolerance of boundaries, as a share of the diagonal


class MaskScores(NamedTuple):
    """Scores of one object through a video, each a mean over frames in [0, 1].

    Attributes:
        j: Region similarity.
        f: Boundary similarity.
    """

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """Mean of both."""
        return (self.j + self.f) / 2


def overlap(found: Mask, true: Mask) -> tuple[int, int]:
    """Return the numbers of pixels in the intersection and in the union of two masks.

    Args:
        found: Predicted mask, boolean, any shape.
        true: True mask of the same shape.

    Raises:
        ValueError: If shapes differ.
    """
    if found.shape != true.shape:
        raise ValueError(f"masks must have one shape, got {found.shape} and {true.shape}")
    return int(np.count_nonzero(found & true)), int(np.count_nonzero(found | true))


def mask_iou(found: Mask, true: Mask) -> float:
    """Return the intersection over the union, 1 if both are empty.

    Args:
        found: Predicted mask, boolean, any shape.
        true: True mask of the same shape.
    """
    shared, covered = overlap(found, true)
    return shared / covered if covered else 1.0


def ciou(overlaps: Sequence[tuple[int, int]]) -> float:
    """Return the sum of all intersections over the sum of all unions.

    Large masks weigh more; :func:`giou` is the mean of the same pairs.

    Args:
        overlaps: Result of :func:`overlap` for each sample.

    Example:
        >>> round(ciou([(1, 2), (90, 100)]), 3), giou([(1, 2), (90, 100)])
        (0.892, 0.7)
    """
    covered = sum(each[1] for each in overlaps)
    return sum(each[0] for each in overlaps) / covered if covered else 1.0


def giou(overlaps: Sequence[tuple[int, int]]) -> float:
    """Return the mean over samples of the intersection over the union, 1 for two empty masks.

    Args:
        overlaps: Result of :func:`overlap` for each sample.
    """
    scores = [shared / covered if covered else 1.0 for shared, covered in overlaps]
    return float(np.mean(scores)) if scores else 1.0


def box_iou(found: Box, true: Box) -> float:
    """Return the intersection over the union of two boxes.

    Args:
        found: Left, top, right and bottom, in any unit; a box without area overlaps nothing.
        true: True box, in the same unit.
    """
    width = min(found[2], true[2]) - max(found[0], true[0])
    height = min(found[3], true[3]) - max(found[1], true[1])
    shared = max(0.0, width) * max(0.0, height)
    covered = sum(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (found, true)) - shared
    return shared / covered if covered > 0 else 0.0


def accuracy_at(ious: Sequence[float], threshold: float = 0.5) -> float:
    """Return the share of boxes whose IoU is strictly above a threshold."""
    return float(np.mean([iou > threshold for iou in ious])) if len(ious) else 0.0


def video_miou(videos: Sequence[Sequence[float]]) -> float:
    """Return the mean over videos of the mean over frames.

    Args:
        videos: IoU of each frame of each video.
    """
    means = [float(np.mean(frames)) for frames in videos if len(frames)]
    return float(np.mean(means)) if means else 0.0


def tube_iou(found: Mapping[int, Box], true: Mapping[int, Box]) -> tuple[float, float]:
    """Compare two boxes that move through a video.

    Args:
        found: Box of each frame of the predicted span.
        true: True boxes.

    Returns:
        ``vIoU``: the sum of the frames' IoU over those that both spans hold, divided by how many frames
        either holds; and ``tIoU``: shared frames over all frames. Both are 1 if neither has a frame.
    """
    either, both = found.keys() | true.keys(), found.keys() & true.keys()
    if not either:
        return 1.0, 1.0
    return sum(box_iou(found[at], true[at]) for at in both) / len(either), len(both) / len(either)


def boundary_f(found: Mask, true: Mask, *, share: float = BOUNDARY_SHARE) -> float:
    """Return the F-measure of the boundaries of two masks, 1 if neither has one.

    A boundary pixel counts as found if a boundary pixel of the other mask lies within a distance, rounded up
    to whole pixels.

    Args:
        found: Predicted mask ``(H, W)``, boolean.
        true: True mask of the same shape.
        share: Largest distance as a share of the diagonal.

    Raises:
        ValueError: If shapes differ.

    Source: DAVIS, Perazzi et al., CVPR 2016, Sec. 5.
    """
    if found.shape != true.shape or found.ndim != 2:
        raise ValueError(f"masks must be (H, W) of one shape, got {found.shape} and {true.shape}")
    edges = [_boundary(mask) for mask in (found, true)]
    counts = [int(np.count_nonzero(edge)) for edge in edges]
    if not any(counts):
        return 1.0
    if not all(counts):
        return 0.0
    radius = int(np.ceil(share * np.hypot(*found.shape)))
    grown = [_grow(edge, radius) for edge in edges]
    precision = np.count_nonzero(edges[0] & grown[1]) / counts[0]
    recall = np.count_nonzero(edges[1] & grown[0]) / counts[1]
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _boundary(mask: Mask) -> Mask:
    """Mark the pixels that differ from the one to the right, below, or right below."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return np.asarray(
        (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:]), dtype=np.bool_
    )


def _grow(mask: Mask, radius: int) -> Mask:
    """Dilate a mask by a disc."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    for row in range(-radius, radius + 1):
        reach = int(np.sqrt(radius * radius - row * row))
        for column in range(-reach, reach + 1):
            ours = out[max(0, row) : height + min(0, row), max(0, column) : width + min(0, column)]
            ours |= mask[max(0, -row) : height + min(0, -row), max(0, -column) : width + min(0, -column)]
    return out


def j_and_f(found: Mask, true: Mask) -> MaskScores:
    """Score one object through a video, as DAVIS does.

    Args:
        found: ``(T, H, W)``, boolean; without the given frame.
        true: True mask of the same shape.
    """
    if found.shape != true.shape or found.ndim != 3 or not len(found):
        raise ValueError(f"masks must be (T, H, W) of one shape, got {found.shape} and {true.shape}")
    pairs = list(zip(found, true, strict=True))
    j = float(np.mean([mask_iou(*pair) for pair in pairs]))
    return MaskScores(j, float(np.mean([boundary_f(*pair) for pair in pairs])))
