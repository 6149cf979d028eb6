# SPDX-License-Identifier: Apache-2.0
"""Over which sizes a picture grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pixelsmith.job.spec import nearest_size


@dataclass(frozen=True, slots=True)
class Stage:
    """One enlargement.

    Attributes:
        size: Height and width, pixels.
        scale: Enlargement against the picture that the first stage began with, per side.
    """

    size: tuple[int, int]
    scale: float


def plan_stages(
    first: tuple[int, int], target: tuple[int, int], multiple: int, count: int = 1
) -> list[Stage]:
    """Divide the way from one size to another into stages that enlarge by the same factor.

    Args:
        first: Height and width of the picture that is there, pixels.
        target: Those that are wanted.
        multiple: Pixels that divide the sides of the stages on the way.
        count: Stages.

    Raises:
        ValueError: If ``count`` is below 1.

    Example:
        >>> [stage.size for stage in plan_stages((1024, 1024), (4096, 4096), 8, 2)]
        [(2048, 2048), (4096, 4096)]
    """
    if count < 1:
        raise ValueError(f"stages must be at least 1, got {count}")
    grown = [target[0] / first[0], target[1] / first[1]]
    found: list[Stage] = []
    for number in range(1, count + 1):
        share = number / count
        between = first[0] * grown[0] ** share, first[1] * grown[1] ** share
        size = target if number == count else nearest_size(between, multiple)
        found.append(Stage(size, math.sqrt(size[0] * size[1] / (first[0] * first[1]))))
    return found
