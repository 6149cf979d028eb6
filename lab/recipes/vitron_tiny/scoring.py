# SPDX-License-Identifier: Apache-2.0
"""Scores of messages and masks against the truth, independent of a model.

Shares are in [0, 1]. A missing mask counts as empty; where prediction and truth are both empty, the overlap
is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.errors import RegionError
from vitron.protocol import parse
from vitron.protocol.contract import BoxRegion, Invocation, Turn
from vitron.protocol.regions.text import parse_region

Bool = NDArray[np.bool_]


Z = 1.959964
"""Quantile of the normal distribution of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageScore:
    """Score of one message.

    Attributes:
        parsed: Whether it has no issue.
        modules: Whether it calls the right modules in the right order, or none where none is right.
        instructions: Whether each call besides is an exact match: instruction, arguments, region and frames.
        spurious: Whether it has a call where none is right.
        text: Whether its text is an exact match.
        box: IoU of its box and the true one, from 0 to 1; ``None`` if the truth has none.
    """

    parsed: bool
    modules: bool
    instructions: bool
    spurious: bool
    text: bool
    box: float | None = None


def score_message(example: Example, reply: str) -> MessageScore:
    """Compare a message, tags included, with the last message of an example."""
    truth, turn = example.messages[-1], parse(reply)
    said = tuple(call.model_copy(update={"source": None}) for call in turn.invocations)
    modules = [call.module for call in said] == [call.module for call in truth.calls]
    return MessageScore(
        parsed=not turn.issues,
        modules=modules,
        instructions=modules and all(_same(*pair) for pair in zip(said, truth.calls, strict=True)),
        spurious=bool(said) and not truth.calls,
        text=turn.text.strip() == truth.text.strip(),
        box=_box_overlap(turn, truth.text),
    )


def _same(said: Invocation, truth: Invocation) -> bool:
    return (said.instruction, said.args, said.region, said.frames) == (
        truth.instruction,
        truth.args,
        truth.region,
        truth.frames,
    )


def _box_overlap(turn: Turn, truth: str) -> float | None:
    wanted = box_in(truth)
    if wanted is None:
        return None
    found = box_in(turn.text)
    return 0.0 if found is None else box_iou(found.corners, wanted.corners)


def box_in(text: str) -> BoxRegion | None:
    """Return the box between the square brackets of a text, or ``None``."""
    start, stop = text.find("["), text.find("]")
    if not 0 <= start < stop:
        return None
    try:
        region, _ = parse_region(text[start : stop + 1])
    except RegionError:
        return None
    return region if isinstance(region, BoxRegion) else None


Corners = tuple[float, float, float, float]


def box_iou(one: Corners, other: Corners) -> float:
    """Return intersection over union of two boxes: left, top, right, bottom."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def cumulative_iou(pairs: Iterable[tuple[Bool, Bool]]) -> float:
    """Return cIoU: all intersections together over all unions together."""
    shared = joined = 0
    for found, truth in pairs:
        shared += int(np.count_nonzero(found & truth))
        joined += int(np.count_nonzero(found | truth))
    return shared / joined if joined else 1.0


def mean_iou(pairs: Iterable[tuple[Bool, Bool]]) -> float:
    """Return the mean over videos of the mean over frames.

    Args:
        pairs: Found and true masks of each video, ``(T, H, W)``.

    Raises:
        ValueError: If there is no video.
    """
    return fmean(
        fmean(cumulative_iou([frame]) for frame in zip(found, truth, strict=True)) for found, truth in pairs
    )


def fit_mask(found: Bool | None, truth: Bool) -> Bool:
    """Return a found mask, or an empty one if there is none or it has another shape."""
    return found if found is not None and found.shape == truth.shape else np.zeros_like(truth)


def share(values: Sequence[bool]) -> float:
    """Return the share of true values.

    Raises:
        ValueError: If there is none.
    """
    if not values:
        raise ValueError("values must have at least one entry, got none")
    return sum(values) / len(values)


def lower_bound(right: int, count: int) -> float:
    """Return the lower bound of Wilson's 95 % confidence interval of a share.

    Args:
        right: Number of successes.
        count: Number of trials, at least 1.

    Source:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    rate, square = right / count, Z * Z / count
    spread = Z * sqrt(rate * (1 - rate) / count + square / (4 * count))
    return max(0.0, (rate + square / 2 - spread) / (1 + square))


def upper_bound(right: int, count: int) -> float:
    """Return the upper bound of the same interval; see :func:`lower_bound`."""
    return 1 - lower_bound(count - right, count)


def lead_bound(own: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the lower bound of the 95 % interval of the lead of one method over another on the same items.

    Args:
        own: Whether the method is right, for each item.
        other: Whether the other one is, in the same order.
    """
    leads = np.asarray(own, float) - np.asarray(other, float)
    if leads.size < 2:
        return -1.0
    return float(leads.mean() - Z * leads.std(ddof=1) / sqrt(leads.size))
