# SPDX-License-Identifier: Apache-2.0
"""Intervals on an axis whose end joins its beginning."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["pieces"]


def pieces(start: int, length: int, side: int, cell: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Cut an interval at the end of its axis, where it continues at 0, and at the borders of cells.

    Args:
        start: First position, in [0, side).
        length: Number of positions; may run over the end any number of times.
        side: Length of the axis.
        cell: Length of a cell, or ``None`` for no cells.

    Yields:
        Pairs of slices: inside the interval, and on the axis.

    Example:
        >>> list(pieces(6, 4, 8))
        [(slice(0, 2, None), slice(6, 8, None)), (slice(2, 4, None), slice(0, 2, None))]
    """
    done = 0
    while done < length:
        at = (start + done) % side
        end = side if cell is None else min(side, (at // cell + 1) * cell)
        count = min(length - done, end - at)
        yield slice(done, done + count), slice(at, at + count)
        done += count
