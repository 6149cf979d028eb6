# SPDX-License-Identifier: Apache-2.0
"""Schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

__all__ = ["cosine"]


def cosine(steps: int, warmup: int, *, lowest: float = 0.01) -> Callable[[int], float]:
    """Return the factor of the learning rate by step: linear warm-up, then half a cosine.

    Args:
        steps: Number of steps.
        warmup: Steps of warm-up.
        lowest: Last factor.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return lowest + (1 - lowest) * 0.5 * (1 + cos(pi * progress))

    return factor
