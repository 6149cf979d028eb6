# SPDX-License-Identifier: Apache-2.0
"""From image file to image file, band by band."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from common_kernels.runtime.images import (
    ImageFile,
    check_format,
    read_image,
    read_pages,
    write_bands,
    write_image,
    write_pages,
)
from numpy.typing import NDArray

from semanir.pictures import before_after
from semanir.restoring.source import Result, Source

__all__ = ["HARDLY_CHANGED", "NOISE_SHARE", "FileReport", "remark_on_change", "restore_file"]

HARDLY_CHANGED = 1.0
"""Change in levels of 8 bits, as the root of the mean square, below which a result hardly differs."""

NOISE_SHARE = 0.25
"""Share of what looks like noise in the input, below which a change is hardly one, too."""

_TIFF = frozenset({".tif", ".tiff"})
_STREAMED = 16_000_000  # pixels of the result above which it is never whole in memory

Stream = Callable[[list[Result]], Iterator[Iterator[NDArray[Any]]]]
"""Restores images: yields the bands of each from the top down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of a file.

    Attributes:
        width: Width of the result in pixels.
        height: Height of the result in pixels.
        change: Root of the mean squared change of the colours, in levels of 8 bits; of several pages the
            largest; ``None`` if the network enlarges.
        note: Remarks for the user, separated by semicolons; may be empty.
    """

    width: int
    height: int
    change: float | None
    note: str


def restore_file(
    stream: Stream,
    source: Path,
    target: Path,
    *,
    scale: int,
    strength: float,
    compare: Path | None,
    max_pixels: int,
) -> FileReport:
    """Restore an image file; see :meth:`semanir.Restorer.restore_file`."""
    takes_pages = target.suffix.lower() in _TIFF and compare is None
    pages = (
        read_pages(source, max_pixels=max_pixels)
        if takes_pages
        else iter([read_image(source, max_pixels=max_pixels)])
    )
    results: list[Result] = []

    def begin(before: ImageFile) -> Result:
        result = Result(Source(before.pixels), scale, strength)
        check_format(target, result.shape, before.pixels.dtype)  # before anything is computed
        results.append(result)
        return result

    before, following = next(pages), next(pages, None)
    result = begin(before)
    if following is not None:
        write_pages(
            target,
            (
                (_bands(stream, result), result.shape, page.pixels.dtype, page)
                for page, result in chain(
                    [(before, result)], ((page, begin(page)) for page in chain([following], pages))
                )
            ),
        )
    elif compare is None and result.shape[0] * result.shape[1] > _STREAMED:
        write_bands(
            target, _bands(stream, result), shape=result.shape, dtype=before.pixels.dtype, beside=before
        )
    else:
        after = replace(before, pixels=_whole(stream, result))
        if compare is not None:
            write_image(before_after(before, after, (source.name, target.name)), compare)
        write_image(after, target)
    return _report(results, before.note)


def _bands(stream: Stream, result: Result) -> Iterator[NDArray[Any]]:
    yield from next(stream([result]))


def _whole(stream: Stream, result: Result) -> NDArray[Any]:
    canvas, top = np.empty(result.shape, result.source.dtype), 0
    for rows in _bands(stream, result):
        canvas[top : top + len(rows)] = rows
        top += len(rows)
    return canvas


def _report(results: list[Result], note: str) -> FileReport:
    height, width = results[0].shape[:2]
    changes = [result.change for result in results if result.change is not None]
    change = max(changes, default=None)
    noise = min(result.noise for result in results)
    notes = [note, f"{len(results)} pages" if len(results) > 1 else "", remark_on_change(change, noise)]
    return FileReport(width=width, height=height, change=change, note="; ".join(filter(None, notes)))


def remark_on_change(change: float | None, noise: float) -> str:
    """Return one sentence if a result hardly differs from its input, else nothing.

    Args:
        change: Root of the mean squared change, in levels of 8 bits; ``None`` if the sizes differ.
        noise: Standard deviation of what looks like noise in the input, in levels of 8 bits.
    """
    if change is None or change >= max(HARDLY_CHANGED, NOISE_SHARE * noise):
        return ""
    beside = f", where {noise:.0f} look like noise" if change < NOISE_SHARE * noise and noise >= 1 else ""
    return (
        f"hardly changed, by {change:.2f} of 255 levels{beside}: there is little to restore, or nothing that "
        "this network was trained on"
    )
