# SPDX-License-Identifier: Apache-2.0
"""From image file to image file, band by band."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

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

Page = tuple[Iterator[NDArray[Any]], tuple[int, ...], "np.dtype[Any]", ImageFile]
"""Bands, shape, dtype, and what is kept beside the pixels."""


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
    finished: list[_Finished] = []

    def begin(page: ImageFile) -> Result:
        result = Result(Source(page.pixels), scale, strength)
        check_format(target, result.shape, page.pixels.dtype)  # before anything is computed
        return result

    def parts(several: Iterable[ImageFile]) -> Iterator[Page]:
        for page in several:
            result = begin(page)
            yield _bands(stream, result), result.shape, page.pixels.dtype, page
            finished.append(_Finished.of(result))

    before, following = next(pages), next(pages, None)
    if following is not None:
        write_pages(target, parts(chain([before, following], pages)))
        return _report(finished, before.note)
    result = begin(before)
    if compare is None and result.shape[0] * result.shape[1] > _STREAMED:
        bands, dtype = _bands(stream, result), before.pixels.dtype
        write_bands(target, bands, shape=result.shape, dtype=dtype, beside=before)
    else:
        after = replace(before, pixels=_whole(stream, result))
        if compare is not None:
            write_image(before_after(before, after, (source.name, target.name)), compare)
        write_image(after, target)
    return _report([_Finished.of(result)], before.note)


class _Finished(NamedTuple):
    """What is kept of a page once it is written."""

    shape: tuple[int, ...]
    change: float | None
    noise: float

    @classmethod
    def of(cls, result: Result) -> Self:
        """Return it for a result whose rows were all taken."""
        return cls(result.shape, result.change, result.noise)


def _bands(stream: Stream, result: Result) -> Iterator[NDArray[Any]]:
    opened = stream([result])
    yield from next(opened)


def _whole(stream: Stream, result: Result) -> NDArray[Any]:
    canvas, top = np.empty(result.shape, result.source.dtype), 0
    for rows in _bands(stream, result):
        canvas[top : top + len(rows)] = rows
        top += len(rows)
    return canvas


def _report(finished: list[_Finished], note: str) -> FileReport:
    height, width = finished[0].shape[:2]
    change = max((each.change for each in finished if each.change is not None), default=None)
    noise = min(each.noise for each in finished)
    pages = f"{len(finished)} pages" if len(finished) > 1 else ""
    notes = [_with_cure(note), pages, remark_on_change(change, noise)]
    return FileReport(width=width, height=height, change=change, note="; ".join(filter(None, notes)))


def _with_cure(note: str) -> str:
    """Say how all images of a file are restored."""
    if note.startswith("first of"):
        kind = "a .tif" if "pages" in note else "an .mp4 or .gif"
        return f"{note} ({kind} file as output keeps all)"
    return note


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
