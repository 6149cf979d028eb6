# SPDX-License-Identifier: Apache-2.0
"""The division of an image into tiles, and the windows that statistics are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Statistics = Literal["global", "tile"]
MARGIN = 4
"""Latents beyond each border of a canvas that the autoencoder sees, see :mod:`pixelsmith.io.margins`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """The division of an image into tiles for the autoencoder.

    Attributes:
        tile: Side of the kept part of a tile, in latents.
        halo: Width of the border that is processed and thrown away, in latents.
        statistics: Group normalisation by the whole image, ``"global"``, or of each tile by itself,
            ``"tile"``, which sequential offloading always uses.
        samples: Number of windows that the statistics are taken from, spread over the image. A window
            has a quarter of the side of a tile with its halo; 8 are on the device at a time, which take the
            memory of half a tile. The statistics are exact for images that are no larger than all windows.
    """

    tile: int = 96
    halo: int = 16
    statistics: Statistics = "global"
    samples: int = 32

    def __post_init__(self) -> None:
        if min(self.tile, self.samples) < 1 or self.halo < 0:
            raise ValueError(
                "tile and samples must be at least 1 and halo at least 0, got "
                f"{self.tile}, {self.samples} and {self.halo}"
            )
        if self.statistics not in get_args(Statistics):
            raise ValueError(f"statistics must be 'global' or 'tile', got {self.statistics!r}")


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along an axis, in latents.

    Attributes:
        start: First processed latent.
        stop: End of the processed latents, exclusive.
        keep_start: First kept latent.
        keep_stop: End of the kept latents, exclusive.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def length(self) -> int:
        """The processed latents."""
        return self.stop - self.start

    @property
    def inner(self) -> slice:
        """The kept latents, counted from ``start``."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def cut_axis(side: int, tiling: Tiling, slack: int = 0) -> list[Span]:
    """Return the tiles along an axis of ``side`` latents; a single one may be larger by ``slack``."""
    if side <= tiling.tile + 2 * tiling.halo + slack:
        return [Span(0, side, 0, side)]
    spans: list[Span] = []
    for start in range(0, side, tiling.tile):
        stop = min(start + tiling.tile, side)
        first, last = max(start - tiling.halo, 0), min(stop + tiling.halo, side)
        spans.append(Span(first, last, start, stop))
    return spans


def largest_tile(tiling: Tiling) -> int:
    """Return the side of the largest tile of a job in latents: one tile is one with its margin, too."""
    return tiling.tile + 2 * (tiling.halo + MARGIN)


def sample_windows(size: tuple[int, int], tiling: Tiling) -> list[tuple[Span, Span]]:
    """Return windows of equal size, rows and columns of each, from which statistics are taken.

    They lie on a raster that begins and ends at the borders: the effect of the borders on a network has to be
    in the statistics, or it is magnified without limit where an image is flat. An image that is no larger
    than all windows together is one window.

    Args:
        size: Height and width of the canvas in latents.
        tiling: Configuration with the side and number of the windows.
    """
    side = max((tiling.tile + 2 * tiling.halo) // 4, 4)
    if size[0] * size[1] <= tiling.samples * side * side:
        return [(Span(0, size[0], 0, size[0]), Span(0, size[1], 0, size[1]))]
    lengths = [min(side, each) for each in size]
    most = [each // length for each, length in zip(size, lengths, strict=True)]
    down, across = _raster(size, most, tiling.samples)
    rows, columns = (
        [_window(number, count, size[axis], lengths[axis]) for number in range(count)]
        for axis, count in enumerate((down, across))
    )
    return [(row, column) for row in rows for column in columns]


def _window(number: int, count: int, side: int, length: int) -> Span:
    """Return one of ``count`` windows along an axis; inside an image a quarter at each end is not kept."""
    halo = length // 4
    last = side - length
    first = last // 2 if count == 1 else number * last // (count - 1)
    stop = first + length
    return Span(first, stop, first + halo if first else 0, stop - halo if stop < side else side)


def _raster(size: tuple[int, int], most: list[int], samples: int) -> tuple[int, int]:
    """Return the numbers of windows per column and per row, as equal as their product allows."""
    # two on an axis reach both borders
    least = min(2, most[0]) if samples >= 4 else 1
    found: list[tuple[float, int, int]] = []
    for down in range(least, min(most[0], samples) + 1):
        across = min(most[1], samples // down)
        if across >= (min(2, most[1]) if samples >= 4 else 1):
            found.append((max(size[0] / down, size[1] / across), down, across))
    _, down, across = min(found)
    return down, across
