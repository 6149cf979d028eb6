# SPDX-License-Identifier: Apache-2.0
"""Frames that agree with those before them: a recursive mean along the motion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TemporalBlend", "estimate_motion", "warp"]

_SMALLEST = 12  # pixels of the shorter side at the coarsest level
_MOST_LEVELS = 5
_REACH = 3  # pixels that each level searches around the motion of the coarser one
_COST_WINDOW = 9  # pixels over which differences are summed
_LAZINESS = 2e-4  # cost of a pixel of change, so that flat parts follow their surroundings
_TOLERANCE = 4 / 255  # difference at which the previous frame counts little
_SMOOTHING = 5  # pixels over which the difference is averaged


class TemporalBlend:
    """Mixes each restored frame with the previous result, where both show the same.

    The previous result is moved along the motion, which block matching on a pyramid finds, and weighed by
    ``weight * exp(-(d / 4) ** 2)``, ``d`` being the local difference in levels of 8 bits. After a cut, and
    where something was hidden, the difference is large and the frame stays as it is.

    Args:
        weight: Weight of the previous frame where both agree, in [0, 1).
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._previous: Tensor | None = None

    def __call__(self, frame: Tensor) -> Tensor:
        """Return the frame mixed with those before it.

        Args:
            frame: ``(C, H, W)``, fp32, nominally in [0, 1].
        """
        if not self.weight:
            return frame
        result, previous = frame, self._previous
        if previous is not None and previous.shape == frame.shape:
            moved = warp(previous, estimate_motion(frame, previous))
            difference = (moved - frame).mean(dim=0, keepdim=True)[None]  # (1, 1, H, W)
            local = F.avg_pool2d(difference, _SMOOTHING, 1, _SMOOTHING // 2, count_include_pad=False)
            agreement = torch.exp(-(local[0] / _TOLERANCE).square())
            change = self.weight * agreement * (moved - frame)
            result = frame + change.clamp(-_TOLERANCE, _TOLERANCE)
        self._previous = result
        return result


def warp(image: Tensor, motion: Tensor) -> Tensor:
    """Return ``image`` read at each pixel plus its motion, bilinearly, edges repeated.

    Args:
        image: ``(C, H, W)``.
        motion: ``(2, H, W)``: right and down, in pixels.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, dtype=image.dtype, device=image.device)
    columns = torch.arange(width, dtype=image.dtype, device=image.device)
    x = (2 * (columns + motion[0]) + 1) / width - 1
    y = (2 * (rows[:, None] + motion[1]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)[None]
    return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]


def estimate_motion(frame: Tensor, other: Tensor) -> Tensor:
    """Find where each pixel of a frame is in another one, by block matching from coarse to fine.

    Args:
        frame: ``(C, H, W)``, nominally in [0, 1].
        other: ``(C, H, W)``.

    Returns:
        ``(2, H, W)``: right and down in pixels, in steps of half a pixel, so that ``warp(other, motion)`` is
        like ``frame``.
    """
    pyramid = [(frame.mean(dim=0, keepdim=True), other.mean(dim=0, keepdim=True))]
    while len(pyramid) < _MOST_LEVELS and min(pyramid[-1][0].shape[-2:]) >= 2 * _SMALLEST:
        a, b = (F.avg_pool2d(each[None], 2, ceil_mode=True)[0] for each in pyramid[-1])
        pyramid.append((a, b))
    motion = torch.zeros(2, *pyramid[-1][0].shape[-2:], device=frame.device)
    for level, (a, b) in reversed(list(enumerate(pyramid))):
        if motion.shape[-2:] != a.shape[-2:]:
            size = a.shape[-2:]
            motion = 2 * F.interpolate(motion[None], size=size, mode="bilinear", align_corners=False)[0]
        # the finest level only corrects what the others found
        reach = _REACH if level else 1
        motion = _search(a, b, motion.round(), [float(step) for step in range(-reach, reach + 1)])
    return _search(*pyramid[0], motion, [-0.5, 0.0, 0.5])


def _search(a: Tensor, b: Tensor, motion: Tensor, steps: list[float]) -> Tensor:
    """Return the best of the motions around the given one, pixel by pixel.

    None and the median are tried too, so that a mistake of a coarser level can be taken back.
    """
    best = torch.full_like(a, torch.inf)
    found = motion

    def consider(tried: Tensor, effort: float) -> None:
        nonlocal best, found
        difference = (warp(b, tried) - a).abs()[None]
        window = min(_COST_WINDOW, *(side - 1 + side % 2 for side in a.shape[-2:]))
        cost = F.avg_pool2d(difference, window, 1, window // 2, count_include_pad=False)[0]
        cost = cost + _LAZINESS * effort
        better = cost < best
        best, found = torch.where(better, cost, best), torch.where(better, tried, found)

    median = motion.flatten(1).median(dim=1).values[:, None, None].expand_as(motion)
    for tried in (motion, median, torch.zeros_like(motion)):
        consider(tried, 0.0)
    start = found
    for down in steps:
        for right in steps:
            if down or right:
                consider(start + start.new_tensor([right, down])[:, None, None], abs(right) + abs(down))
    return found
