# SPDX-License-Identifier: Apache-2.0
"""Labels of images: a class for every pixel, or the same points on all images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from common_kernels.runtime.images import READABLE, ImageError, read_labels, read_size
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffeat.images import ImageLike

IGNORED = 255


class LabelError(ValueError):
    """Labels that do not fit their images."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskLabels:
    """Images with a class for every pixel.

    Attributes:
        images: Paths, Pillow images, arrays or tensors.
        masks: Class numbers ``(H, W)`` of each, as large as its image; 255 is ignored.
        classes: Class names; numbers as names if empty.
        sources: File names, or empty.

    Raises:
        LabelError: If counts, sizes or class numbers do not fit.
    """

    images: Sequence[ImageLike]
    masks: Sequence[NDArray[np.uint8]]
    classes: tuple[str, ...] = ()
    sources: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.images) != len(self.masks) or not self.images:
            raise LabelError(
                f"there must be a mask for each image, got {len(self.masks)} for {len(self.images)} images"
            )
        highest = -1
        for index, (image, mask) in enumerate(zip(self.images, self.masks, strict=True)):
            name = self.sources[index] if self.sources else f"image {index}"
            size = _size(image)
            if mask.shape != size:
                shown = "x".join(map(str, mask.shape))
                raise LabelError(
                    f"the mask of {name} must be as large as its image, got {shown} for {size[0]}x{size[1]}"
                )
            kept = mask[mask != IGNORED]
            highest = max(highest, int(kept.max()) if kept.size else -1)
        if not self.classes:
            object.__setattr__(self, "classes", tuple(str(number) for number in range(highest + 1)))
        if highest >= len(self.classes):
            raise LabelError(
                f"masks must hold classes below {len(self.classes)} ({', '.join(self.classes[:4])}, ...) or "
                f"{IGNORED}, got {highest}"
            )
        if len(self.classes) < 2:
            raise LabelError(f"masks must hold at least 2 classes, got {len(self.classes)}")

    @classmethod
    def read(cls, images: str | Path, masks: str | Path, *, classes: Sequence[str] = ()) -> MaskLabels:
        """Read two folders with files of the same names up to the ending.

        Args:
            images: Folder of images.
            masks: Folder of masks: images with one channel (or a palette) of class numbers.
            classes: Class names.

        Raises:
            LabelError: If an image has no mask, or a mask holds no class numbers.
        """
        paths, found = _image_files(images), {path.stem: path for path in _image_files(masks)}
        _check_all([path.stem for path in paths], found, f"masks in {masks}")
        read = [_read_mask(found[path.stem]) for path in paths]
        return cls(paths, read, tuple(classes), tuple(path.name for path in paths))

    def digest(self) -> str:
        """SHA-256 of the masks and class names."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for mask in self.masks:
            digest.update(f"{mask.shape}".encode() + np.ascontiguousarray(mask).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class KeypointLabels:
    """Images of the same category with named points.

    Attributes:
        images: Paths, Pillow images, arrays or tensors.
        points: Points ``(x, y)`` in pixels by name, for each image; invisible points are omitted.
        sources: File names, or empty.

    Raises:
        LabelError: If counts do not fit, a point lies outside its image, or no two images share one.
    """

    images: Sequence[ImageLike]
    points: Sequence[Mapping[str, tuple[float, float]]]
    sources: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.images) != len(self.points) or not self.images:
            raise LabelError(
                f"there must be points for each image, got {len(self.points)} for {len(self.images)} images"
            )
        for index, points in enumerate(self.points):
            height, width = self.size(index)
            for point, (x, y) in points.items():
                if not (0 <= x <= width and 0 <= y <= height):
                    name = self.sources[index] if self.sources else f"image {index}"
                    raise LabelError(
                        f"points must lie inside their image, got {point} at ({x:g}, {y:g}) in {name} of "
                        f"{width}x{height} pixels"
                    )
        seen = [set(points) for points in self.points]
        if not any(one & two for i, one in enumerate(seen) for two in seen[:i]):
            raise LabelError("at least two images must share a point, got none that do")

    @classmethod
    def read(cls, images: str | Path, points: str | Path) -> KeypointLabels:
        """Read a folder of images and a JSON file with ``{"image": {"point": [x, y]}}``.

        Args:
            images: Folder of images.
            points: The file; images are named with or without their suffix.

        Raises:
            LabelError: If the file is something else, or an image is not in it.
        """
        return cls.of(_image_files(images), points)

    @classmethod
    def of(cls, images: Sequence[Path], points: str | Path) -> KeypointLabels:
        """Read the points of some images from such a file.

        Args:
            images: Image files.
            points: The file.

        Raises:
            LabelError: If the file is something else, or an image is not in it.
        """
        content = _read_points(Path(points))
        by_stem = {Path(name).stem: value for name, value in content.items()}
        _check_all([path.stem for path in images], by_stem, f"points in {points}")
        found = [by_stem[path.stem] for path in images]
        return cls(images, found, tuple(path.name for path in images))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return _size(self.images[index])

    def digest(self) -> str:
        """SHA-256 of the points."""
        text = json.dumps([{name: list(p) for name, p in sorted(each.items())} for each in self.points])
        return hashlib.sha256(text.encode()).hexdigest()


def _size(image: ImageLike) -> tuple[int, int]:
    """Height and width in pixels, upright; of files, only the head is read."""
    if isinstance(image, str | Path):
        return read_size(image)
    if isinstance(image, Image.Image):
        return image.height, image.width
    shape = tuple(image.shape)
    return (shape[-2], shape[-1]) if isinstance(image, Tensor) else (shape[0], shape[1])


def _image_files(folder: str | Path) -> list[Path]:
    place = Path(folder)
    if not place.is_dir():
        raise LabelError(f"{folder} is not a folder of images")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in READABLE)
    if not found:
        raise LabelError(f"{folder} holds no images")
    return found


def _check_all(wanted: Iterable[str], have: Mapping[str, Any], what: str) -> None:
    names = list(wanted)
    missing = [name for name in names if name not in have]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise LabelError(f"{what} must have one for each image, got none for {len(missing)} ({shown})")


def _read_mask(path: Path) -> NDArray[np.uint8]:
    try:
        numbers = read_labels(path)
    except ImageError as error:
        raise LabelError(str(error)) from error
    if numbers.size and numbers.max() > IGNORED:
        raise LabelError(f"{path} must hold class numbers up to {IGNORED}, got {numbers.max()}")
    return numbers.astype(np.uint8)


def _read_points(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    rule = f'{path.name} must read like {{"image": {{"point": [x, y]}}}}'
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise LabelError(f"{rule}, got no JSON") from error
    try:
        return {
            str(name): {str(point): (float(place[0]), float(place[1])) for point, place in points.items()}
            for name, points in cast("dict[str, Any]", content).items()
        }
    except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise LabelError(f"{rule}, got another structure") from error
