# SPDX-License-Identifier: Apache-2.0
"""Regions as the text between region tags.

====================================  =================================================
``[120, 45, 600, 810]``               box: left, top, right, bottom
``points [500, 500] -[10, 20]``       clicks, those with a minus on what is not meant
``polygon [0, 0] [999, 0] [500, 9]``  corners
``scribble [1, 2] [9, 9]; [5, 5]``    strokes, apart by semicolons
``mask 64 x 48 e0352N2O0001``         height, width, run lengths of COCO
``mask_2``, ``region_1``              a mask, or a region of the user, of this conversation
====================================  =================================================

Behind a region ``@ 3`` names the frame it was drawn on and ``| 3, 7`` the part of the video that is meant,
which may also stand alone. Integers from 0 to 999 are steps of 1/999 of the image's side, numbers with a
point are fractions, larger integers are pixels, which only a reader who knows the image's size understands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from vitron.errors import RegionError, explain
from vitron.protocol.contract import (
    BoxRegion,
    MaskRegion,
    PointsRegion,
    PolygonRegion,
    ReferenceRegion,
    Region,
    ScribbleRegion,
)
from vitron.protocol.rle import compress

STEPS = 999
_NUMBER = r"-?[0-9]{1,9}(?:\.[0-9]{0,17})?"
_SPAN = re.compile(r"\|\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*$")
_FRAME = re.compile(r"@\s*([0-9]{1,9})\s*$")
_FOUR = re.compile(rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]")
_PAIR = re.compile(rf"\s*(-?)\s*[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]\s*,?")
_MASK = re.compile(r"mask\s+([0-9]{1,9})\s*x\s*([0-9]{1,9})\s+([0-o]*)")
_KINDS = ("points", "polygon", "scribble")

Frames = tuple[int, int]
Size = tuple[int, int]


def to_code(fraction: float) -> int:
    """Return a fraction of a side as the nearest of the integers 0 to 999; the error is at most 0.5 / 999."""
    return round(fraction * STEPS)


def snap(region: Region) -> Region:
    """Return a region as its text encodes it: all coordinates on steps of 1/999, a thin box one step wide."""
    return parse_region(format_region(region))[0] or region


def format_region(region: Region) -> str:
    """Return the text of a region, which :func:`parse_region` reads.

    Example:
        >>> format_region(BoxRegion(x0=0, y0=0.25, x1=0.5, y1=1))
        '[0, 250, 500, 999]'
    """
    match region:
        case BoxRegion():
            x0, x1 = _widen(to_code(region.x0), to_code(region.x1))
            y0, y1 = _widen(to_code(region.y0), to_code(region.y1))
            text = f"[{x0}, {y0}, {x1}, {y1}]"
        case PointsRegion():
            signs = region.positive or (True,) * len(region.points)
            pairs = zip(region.points, signs, strict=True)
            text = "points " + " ".join(("" if sign else "-") + _pair(point) for point, sign in pairs)
        case PolygonRegion():
            text = "polygon " + " ".join(map(_pair, region.points))
        case ScribbleRegion():
            text = "scribble " + "; ".join(" ".join(map(_pair, stroke)) for stroke in region.strokes)
        case MaskRegion():
            counts = region.counts if isinstance(region.counts, str) else compress(region.counts)
            text = f"mask {region.size[0]} x {region.size[1]} {counts}"
        case ReferenceRegion():
            text = region.name
    return text if region.frame is None else f"{text} @ {region.frame}"


def format_frames(frames: Frames) -> str:
    """Return the text of a part of a video, first and last frame included."""
    return f"| {frames[0]}, {frames[1]}"


def _widen(low: int, high: int) -> tuple[int, int]:
    if low < high:
        return low, high
    return (low, low + 1) if low < STEPS else (low - 1, low)


def _pair(point: tuple[float, float]) -> str:
    return f"[{to_code(point[0])}, {to_code(point[1])}]"


def parse_region(text: str, *, size: Size | None = None) -> tuple[Region | None, Frames | None]:
    """Read the text between region tags.

    Args:
        text: Region in one of the forms of the table above.
        size: Width and height of the image in pixels, if known; then integers above 999 are pixels.

    Returns:
        The region, and the part of the video; one of them may be ``None``.

    Raises:
        RegionError: If the text is not a region, corners are reversed, or a point is outside the image.

    Example:
        >>> parse_region("[0, 0, 999, 333] | 2, 7")[1]
        (2, 7)
    """
    rest, frames, frame = text.strip(), None, None
    if found := _SPAN.search(rest):
        frames, rest = (int(found[1]), int(found[2])), rest[: found.start()].rstrip()
        if frames[1] < frames[0]:
            raise RegionError(f"the last frame must not come before the first, got {found[0]}")
    if found := _FRAME.search(rest):
        frame, rest = int(found[1]), rest[: found.start()].rstrip()
    if not rest:
        if frames is None:
            raise RegionError(f"a region needs a place, got {_short(text)}")
        return None, frames
    try:
        return _shape(rest, frame, size), frames
    except ValidationError as error:
        raise RegionError(f"the region {_short(text)} is not valid: {explain(error)}") from error


def _shape(text: str, frame: int | None, size: Size | None) -> Region:
    if found := _FOUR.fullmatch(text):
        x0, y0, x1, y1 = _fractions(found.groups(), size, text)
        return BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1, frame=frame)
    if found := _MASK.fullmatch(text):
        return MaskRegion(size=(int(found[1]), int(found[2])), counts=found[3], frame=frame)
    word, _, rest = text.partition(" ")
    if word.lower() not in _KINDS:
        if found := re.fullmatch(r"(mask|region)\s?_\s?([1-9][0-9]{0,5})", text):
            return ReferenceRegion(name=f"{found[1]}_{found[2]}", frame=frame)
        raise RegionError(
            f"a region is a box as [0, 0, 500, 999], points, a polygon, a scribble, a mask or its name, "
            f"got {_short(text)}"
        )
    strokes = [_pairs(part, size, text) for part in rest.split(";")]
    signs = [sign for stroke in strokes for _, sign in stroke]
    lines = tuple(tuple(point for point, _ in stroke) for stroke in strokes)
    if word.lower() == "scribble" and all(signs):
        return ScribbleRegion(strokes=lines, frame=frame)
    if len(strokes) > 1 or (word.lower() != "points" and not all(signs)):
        raise RegionError(f"only a scribble has several strokes and only points a minus, got {_short(text)}")
    if word.lower() == "polygon":
        return PolygonRegion(points=lines[0], frame=frame)
    return PointsRegion(points=lines[0], positive=tuple(signs), frame=frame)


def _pairs(text: str, size: Size | None, whole: str) -> list[tuple[tuple[float, float], bool]]:
    found, place = list[tuple[tuple[float, float], bool]](), 0
    while place < len(text):
        pair = _PAIR.match(text, place)
        if pair is None:
            raise RegionError(f"points are pairs as [500, 250], got {_short(whole)}")
        x, y = _fractions((pair[2], pair[3]), size, whole)
        found.append(((x, y), not pair[1]))
        place = pair.end()
    return found


def _fractions(numbers: Sequence[str], size: Size | None, whole: str) -> list[float]:
    """Return the fractions of numbers, x and y alternating."""
    values = [float(number) for number in numbers]
    if any("." in number for number in numbers) and max(values) <= 1:
        scales = [1.0] * len(values)
    elif max(values) <= STEPS and not any("." in number for number in numbers):
        scales = [float(STEPS)] * len(values)
    elif size is not None:
        scales = [float(size[place % 2]) for place in range(len(values))]
    else:
        raise RegionError(
            f"a place is given in steps from 0 to {STEPS} or fractions from 0 to 1 unless the size of the "
            f"image is known, got {_short(whole)}"
        )
    fractions = [value / scale for value, scale in zip(values, scales, strict=True)]
    if min(fractions) < 0 or max(fractions) > 1:
        inside = "" if size is None else f" of {size[0]} x {size[1]}"
        raise RegionError(f"a region must lie inside the image{inside}, got {_short(whole)}")
    return fractions


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
