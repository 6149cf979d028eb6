# SPDX-License-Identifier: Apache-2.0
"""Label maps of COCO-Object and COCO-Stuff from the pixel maps that COCO-Stuff publishes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common_kernels.runtime.images import write_image

from itaclip.evaluation.datasets import (
    Table,
    objects_from_raw,
    objects_from_stuff_ids,
    read_labels,
    stuff_from_raw,
)

Target = Literal["coco-object", "coco-stuff"]

_OBJECT, _STUFF = "_instanceTrainIds", "_labelTrainIds"


@dataclass(frozen=True, slots=True)
class Conversion:
    """One label map to make.

    Attributes:
        source: Pixel map with the published numbers, or label map of COCO-Stuff.
        target: Label map to write.
        table: Class id for each of the 256 numbers.
    """

    source: Path
    target: Path
    table: Table

    def run(self) -> None:
        """Write the label map, in one piece.

        Raises:
            SampleError: If the source is damaged or holds numbers that no such map holds.
            ImageError: If the target cannot be written.
        """
        write_image(read_labels(self.source, self.table).numpy(), self.target)


def plan_conversion(
    target: str, root: str | Path, *, split: str = "val2017", out: str | Path | None = None
) -> list[Conversion]:
    """List the label maps to make.

    Args:
        target: ``"coco-stuff"`` makes ``*_labelTrainIds.png``, ``"coco-object"`` ``*_instanceTrainIds.png``.
        root: Folder with ``annotations/<split>/``, in which the pixel maps of COCO-Stuff were unpacked; for
            COCO-Object, the label maps of COCO-Stuff are also accepted.
        split: ``"val2017"`` or ``"train2017"``.
        out: Another root to write to; the same tree if ``None``.

    Raises:
        ValueError: If the target is unknown or there is nothing to convert.
    """
    if target not in ("coco-object", "coco-stuff"):
        raise ValueError(f"only coco-object and coco-stuff are converted, got {target!r}")
    if not split or split in (".", "..") or Path(split).name != split:
        raise ValueError(f"split must be a plain name such as 'val2017', got {split!r}")
    folder = Path(root) / "annotations" / split
    files = sorted(file for file in folder.glob("*.png") if not file.name.startswith("."))
    sources = [file for file in files if not file.stem.endswith((_OBJECT, _STUFF))]
    table = stuff_from_raw() if target == "coco-stuff" else objects_from_raw()
    if not sources and target == "coco-object":
        sources = [file for file in files if file.stem.endswith(_STUFF)]
        table = objects_from_stuff_ids()
    if not sources:
        raise ValueError(f"no pixel map *.png in {folder}: unpack the pixel maps of COCO-Stuff there")
    place = Path(out or root) / "annotations" / split
    ending = _STUFF if target == "coco-stuff" else _OBJECT
    return [
        Conversion(file, place / f"{file.stem.removesuffix(_STUFF)}{ending}.png", table) for file in sources
    ]
