# SPDX-License-Identifier: Apache-2.0
"""A measure of how far the borders of patches and tiles show in images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixelsmith.store.rows import Rows, bands

__all__ = ["Line", "SeamProfile", "seam_profile"]

_BAND = 512
_NEIGHBOURS = 8  # lines on each side that a line is compared with
_FLOOR = 0.25  # levels added to every step, so that rounding in flat images does not count

Levels = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """One line between neighbouring pixels.

    Attributes:
        axis: Direction of the line.
        position: Pixels before it: rows above a row line, columns left of a column line.
        ratio: Step across it over the median of its neighbours.
    """

    axis: Literal["row", "column"]
    position: int
    ratio: float


@dataclass(frozen=True, slots=True)
class SeamProfile:
    """How the step across each line compares with its neighbours.

    Attributes:
        spacing: Pixels between the lines at which a seam can lie.
        rows: Ratio of the line above each row, ``(H,)``; NaN beside the border, where it is not defined.
        columns: Ratio of the line left of each column, ``(W,)``.
    """

    spacing: int
    rows: Levels
    columns: Levels

    def worst(self, count: int = 1) -> list[Line]:
        """Return the lines at multiples of ``spacing`` with the largest ratios, largest first."""
        found = [
            Line(axis, at, float(values[at]))
            for axis, values in self._axes()
            for at in range(self.spacing, len(values), self.spacing)
            if np.isfinite(values[at])
        ]
        return sorted(found, key=lambda line: -line.ratio)[:count]

    def score(self, period: int | None = None, shift: int = 0) -> float:
        """Return the median ratio of the lines of a grid: 1 where a grid shows no more than its surroundings.

        Args:
            period: Pixels between the lines, in both directions; ``spacing`` if not given.
            shift: Position of the first line in pixels.

        Raises:
            ValueError: If the image has no such line.
        """
        period = period or self.spacing
        lines = np.concatenate([values[shift % period :: period] for _, values in self._axes()])
        lines = lines[np.isfinite(lines)]
        if not len(lines):
            raise ValueError(f"period must leave a line in the image, got {period}")
        return float(np.median(lines))

    def _axes(self) -> Iterator[tuple[Literal["row", "column"], Levels]]:
        yield "row", self.rows
        yield "column", self.columns


def seam_profile(images: Sequence[Rows], spacing: int) -> SeamProfile:
    """Compare the step across every line of images with the steps across its neighbours.

    A step counts as far as it differs from the mean of the steps on both sides of it, so slopes and soft
    edges count little, and a seam, which is one pixel wide, counts in full. Its mean over the length of a
    line is compared with the median of that of 16 neighbours at multiples of ``spacing``. Enlarging by a
    whole factor, blocks of JPEG and decoders leave a pattern of that spacing that is no seam, and it
    cancels. Edges of things lie elsewhere in every image: the profile of several is the median over them.

    Args:
        images: Images of one size.
        spacing: Pixels between the lines at which a seam can lie, those of a latent; at least 2.

    Raises:
        ValueError: If there is no image, their sizes differ, or they are smaller than two spacings.

    Example:
        >>> from pixelsmith.store.rows import ArrayRows
        >>> image = np.full((64, 64, 3), 90, dtype=np.uint8)
        >>> image[:, 40:] = 100
        >>> seam_profile([ArrayRows(image)], 4).worst()[0].position
        40
    """
    sizes = {(image.height, image.width) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images must be of one size, got {sorted(sizes)}")
    if spacing < 2 or min(*sizes.pop()) <= 2 * spacing:
        raise ValueError(f"spacing must be at least 2 and leave two lines in the image, got {spacing}")
    found = [_steps(image) for image in images]
    rows, columns = (np.median([_ratios(steps[axis], spacing) for steps in found], axis=0) for axis in (0, 1))
    return SeamProfile(spacing, rows, columns)


def _steps(image: Rows) -> tuple[Levels, Levels]:
    """Return the mean step across the line above each row, ``(H,)``, and left of each column, ``(W,)``."""
    down, right = np.full(image.height, np.nan), np.zeros(image.width)
    for top, band in bands(image, _BAND):
        grey: NDArray[np.float32] = band.astype(np.float32).mean(axis=2)
        right[2:-1] += _odd(grey).sum(axis=0)
        # rows of the neighbouring bands complete the steps at both ends of this one
        first, last = max(0, top - 2), min(image.height, top + _BAND + 1)
        tall: NDArray[np.float32] = image.read(first, last).astype(np.float32).mean(axis=2)
        if len(tall) >= 4:
            down[first + 2 : last - 1] = _odd(tall.T).mean(axis=0)
    right[[0, 1, -1]] = np.nan
    return down, right / image.height


def _odd(grey: NDArray[np.float32]) -> Levels:
    """Return how far each step differs from the mean of its two neighbours, ``(n, W - 3)``."""
    steps = np.diff(grey, axis=1).astype(np.float64)
    return np.abs(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2)


def _ratios(steps: Levels, spacing: int) -> Levels:
    """Return each step over the median of its neighbours at multiples of ``spacing``."""
    near = np.full((2 * _NEIGHBOURS, len(steps)), np.nan)
    for number in range(_NEIGHBOURS):
        apart = spacing * (number + 1)
        if apart < len(steps):
            near[number, :-apart] = steps[apart:]
            near[_NEIGHBOURS + number, apart:] = steps[:-apart]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # lines without a neighbour have no ratio
        usual: Levels = np.nanmedian(near, axis=0)
    return (steps + _FLOOR) / (usual + _FLOOR)
