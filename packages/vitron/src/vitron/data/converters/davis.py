# SPDX-License-Identifier: Apache-2.0
"""DAVIS and other folders of frames and label maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitron.data.converters.common import SUFFIXES, assistant_message, call, sample_of, split_of, user_message
from vitron.data.schema import MaskTarget, Sample, SampleMedia, SampleRegion, Targets
from vitron.errors import DataError
from vitron.protocol.regions.convert import mask_to_region

RESOLUTION = "480p"


def read_davis(source: Path, *, split: str = "val", year: str = "2017") -> Iterator[Sample]:
    """Yield one sample for each object: its mask on the first frame that shows it is the region to follow.

    The folder holds ``JPEGImages/480p``, ``Annotations/480p`` (label maps: 0 is the background) and
    ``ImageSets/<year>/<split>.txt``; without that list, all sequences are read.

    Args:
        source: The folder.
        split: Name of the list.
        year: Year of the list.

    Raises:
        DataError: If frames and label maps do not fit together.
    """
    frames, labels = (source / kind / RESOLUTION for kind in ("JPEGImages", "Annotations"))
    if not frames.is_dir() or not labels.is_dir():
        raise DataError(f"{source} must hold JPEGImages/{RESOLUTION} and Annotations/{RESOLUTION}")
    listed = source / "ImageSets" / year / f"{split}.txt"
    names = (
        listed.read_text("utf-8").split()
        if listed.is_file()
        else sorted(each.name for each in frames.iterdir())
    )
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{listed} names {name!r}, which is not a folder")
        yield from _sequence(source, frames / name, labels / name, split)


def _sequence(source: Path, frames: Path, labels: Path, split: str) -> Iterator[Sample]:
    files = sorted(file for file in frames.glob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{frames} holds no frames")
    maps = [read_labels(labels / f"{file.stem}.png") for file in files]
    if len({each.shape for each in maps}) > 1:
        raise DataError(f"the label maps in {labels} have different sizes")
    media = (SampleMedia(type="video", path=tuple(file.relative_to(source).as_posix() for file in files)),)
    # 255 marks the boundary in some releases
    numbers = sorted({int(value) for each in maps for value in np.unique(each)} - {0, 255})
    for number in numbers:
        masks = [
            mask_to_region(np.asarray(each == number, dtype=np.bool_), frame=at)
            for at, each in enumerate(maps)
            if (each == number).any()
        ]
        yield sample_of(
            frames.name,
            id=f"{frames.name}-{number}",
            task="video_segmentation",
            messages=(
                user_message("Track this object.", regions=1),
                assistant_message("", call("video_segmentation", "track", "this object", region=masks[0])),
            ),
            media=media,
            regions=(SampleRegion(region=masks[0]),),
            targets=Targets(masks=(MaskTarget(masks=tuple(masks)),)),
            split=split_of(split),
        )


def read_labels(file: Path) -> NDArray[np.uint8]:
    """Return a label map ``(H, W)`` of a PNG with a palette, or of grey values.

    Raises:
        DataError: If it is missing or has other colours.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L", "1"):
                raise DataError(f"{file} must be a label map with a palette, got mode {image.mode}")
            return np.asarray(image if image.mode != "1" else image.convert("L"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file} is not an image that can be read") from error
