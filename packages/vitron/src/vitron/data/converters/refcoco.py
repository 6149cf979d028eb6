# SPDX-License-Identifier: Apache-2.0
"""RefCOCO, RefCOCO+ and RefCOCOg: expressions in JSON, masks and boxes in COCO's instances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitron.data.converters.common import (
    assistant_message,
    box_of,
    call,
    field,
    find_json,
    image_by_id,
    items_of,
    read_json,
    sample_of,
    split_of,
    user_message,
)
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.errors import DataError, explain
from vitron.protocol.contract import MaskRegion, PolygonRegion
from vitron.protocol.regions.convert import mask_to_region
from vitron.protocol.regions.raster import rasterise
from vitron.protocol.regions.text import format_region
from vitron.protocol.rle import decode_mask

Task = Literal["referring_segmentation", "referring_box", "region_caption"]


def read_refcoco(
    source: Path, *, task: Task = "referring_segmentation", split: str | None = None
) -> Iterator[Sample]:
    """Yield one sample for each expression, or for each region.

    The folder holds ``refs.json``, the list that the release keeps in a pickle, ``instances.json`` and
    ``images``. A polygon covers the pixels whose centres lie inside, where COCO's own code differs by pixels
    on the edge.

    Args:
        source: The folder.
        task: Segment an expression, give its box, or give an expression for a box.
        split: Part of the list, such as ``"testA"``; all if ``None``.

    Raises:
        DataError: If the files do not hold that.
    """
    refs = find_json(source, ("refs*.json",))
    folder = refs.parent
    table: dict[str, Any] = read_json(find_json(folder, ("instances*.json",)))
    images = {each.get("id"): each for each in items_of(table.get("images"), "images")}
    notes = {each.get("id"): each for each in items_of(table.get("annotations"), "annotations")}
    for number, ref in enumerate(items_of(read_json(refs), refs.name)):
        if split is not None and ref.get("split") != split:
            continue
        what = f"{refs.name}, item {number}"
        note, image = notes.get(ref.get("ann_id")), images.get(ref.get("image_id"))
        if note is None or image is None:
            raise DataError(f"{what} refers to an annotation or image that is not in instances.json")
        yield from _samples(folder, ref, note, image, task, what)


def _samples(
    folder: Path, ref: dict[str, Any], note: dict[str, Any], image: dict[str, Any], task: Task, what: str
) -> Iterator[Sample]:
    width, height = int(field(image, "width", int, what)), int(field(image, "height", int, what))
    x, y, wide, high = (float(each) for each in field(note, "bbox", list, what))
    box = box_of((x, y, x + wide, y + high), (width, height), what)
    texts = [
        str(each.get("sent", each.get("raw", ""))).strip() for each in items_of(ref.get("sentences"), what)
    ]
    texts = [each for each in texts if each]
    common = {
        "media": (SampleMedia(path=_image(folder, image)),),
        "split": split_of(ref.get("split", "train")),
        "task": task,
    }
    name = str(ref.get("ref_id", ref.get("ann_id")))
    if task == "region_caption":
        if texts:
            yield sample_of(
                what,
                id=name,
                messages=(
                    user_message("Describe what is in this region.", regions=1),
                    assistant_message(texts[0]),
                ),
                regions=(SampleRegion(region=box),),
                targets=Targets(captions=tuple(texts), boxes=(box,)),
                **common,
            )
        return
    mask = (
        mask_of(note.get("segmentation"), height, width, what) if task == "referring_segmentation" else None
    )
    for number, text in enumerate(texts):
        if mask is None:
            messages = (
                user_message(f"Where is {text}? Answer with its box."),
                assistant_message(format_region(box)),
            )
            targets = Targets(boxes=(box,))
        else:
            made = call("image_segmentation", "segment", text)
            messages = (user_message(f"Segment {text}."), assistant_message("", made))
            targets = Targets(masks=(MaskTarget(masks=(mask,)),), boxes=(box,))
        yield sample_of(what, id=f"{name}-{number}", messages=messages, targets=targets, **common)


def _image(folder: Path, image: dict[str, Any]) -> str:
    name = str(image.get("file_name", ""))
    for prefix in ("images", "train2014", ""):
        if name and ".." not in name and (folder / prefix / name).is_file():
            return (Path(prefix) / name).as_posix()
    return image_by_id(folder, "images", image.get("id"))


def mask_of(segmentation: object, height: int, width: int, what: str) -> MaskRegion:
    """Return a mask of COCO: polygons in pixels, or run lengths.

    Raises:
        DataError: If it is neither.
    """
    try:
        if isinstance(segmentation, dict):
            size, counts = segmentation["size"], segmentation["counts"]
            if list(size) != [height, width]:
                raise DataError(f"{what}: a mask of {size} does not fit {height} x {width}")
            return mask_to_region(decode_mask(counts, height, width))
        drawn: NDArray[np.bool_] = np.zeros((height, width), dtype=np.bool_)
        for line in segmentation:  # pyright: ignore[reportGeneralTypeIssues]  # anything but a list raises below
            points = np.asarray(line, dtype=np.float64).reshape(-1, 2) / (width, height)
            inside = tuple((float(px), float(py)) for px, py in points.clip(0, 1))
            drawn |= rasterise(PolygonRegion(points=inside), height, width)
        return mask_to_region(drawn)
    except DataError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{what} has no mask that can be read: {explain(error)}") from error
