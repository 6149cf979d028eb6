# SPDX-License-Identifier: Apache-2.0
"""Run lengths of masks as COCO writes them: column by column, background first, plain or as a string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["compress", "decode_mask", "decompress", "encode_mask"]

_FIRST, _LAST = 48, 111  # characters "0" to "o" carry six bits each
_MORE, _SIGN, _VALUE = 0x20, 0x10, 0x1F
_MAX_RUN = 1 << 40


def encode_mask(mask: NDArray[np.bool_]) -> list[int]:
    """Return the run lengths of a mask.

    Args:
        mask: ``(H, W)``, boolean.

    Returns:
        Lengths of runs in column-major order, the first of background (0 if the mask starts with foreground).

    Example:
        >>> encode_mask(np.array([[0, 1], [0, 1]], dtype=bool))
        [2, 2]
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]]) if flat.size else np.zeros(1, dtype=np.int64)
    runs = [int(run) for run in np.diff(edges)]
    return [0, *runs] if flat.size and flat[0] else runs


def decode_mask(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of run lengths.

    Args:
        counts: Plain lengths, or their compressed string.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        ``(height, width)``, boolean.

    Raises:
        ValueError: If the lengths are negative or do not add up to the size, or the string is not valid.
    """
    runs = decompress(counts) if isinstance(counts, str) else list(counts)
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(
            f"run lengths must add up to {height} x {width} = {height * width}, none below 0, got {sum(runs)}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def compress(runs: Iterable[int]) -> str:
    """Return plain run lengths as COCO's string.

    From the fourth on, a length is written as its difference to the one two places before. Each number is
    written in groups of five bits, lowest first, with a sixth bit that is set if more follow.
    """
    listed, out = list(runs), list[str]()
    for place, run in enumerate(listed):
        rest = run - listed[place - 2] if place > 2 else run
        while True:
            group, rest = rest & _VALUE, rest >> 5
            done = rest == (-1 if group & _SIGN else 0)
            out.append(chr(_FIRST + (group if done else group | _MORE)))
            if done:
                break
    return "".join(out)


def decompress(text: str) -> list[int]:
    """Return the plain run lengths of COCO's string.

    Raises:
        ValueError: If the string holds another character, or ends within a number.
    """
    runs = list[int]()
    value, shift = 0, 0
    for char in text:
        if not _FIRST <= ord(char) <= _LAST:
            raise ValueError(f"compressed run lengths are characters from '0' to 'o', got {char!r}")
        group = ord(char) - _FIRST
        value |= (group & _VALUE) << shift
        shift += 5
        if shift > 60:
            raise ValueError("compressed run lengths hold a number that is too long")
        if group & _MORE:
            continue
        if group & _SIGN:
            value -= 1 << shift
        value += runs[-2] if len(runs) > 2 else 0
        if not 0 <= value < _MAX_RUN:
            raise ValueError(f"compressed run lengths hold {value}, which is not a length")
        runs.append(value)
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return runs
