# SPDX-License-Identifier: Apache-2.0
"""Drawings of segmentations: overlays with a legend, label maps with a palette, HTML pages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from common_kernels.runtime.files import write_bytes, write_text
from common_kernels.runtime.images import ImageError, ImageSource, as_rgb, write_image
from common_kernels.runtime.pictures import BACKGROUND, TEXT, LegendEntry, add_legend, load_font
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import distance_transform_cdt

from itaclip.html import page
from itaclip.results import Segmentation

MAX_BYTE_CLASSES = 255  # the last value of a byte stays free for "ignore", as data sets have it
_SHORTEST, _LONGEST = 480, 2048  # long side of an overlay with a legend
_QUALITY = 92  # of overlays as JPEG and WebP
_POLE_SIDE = 160  # side of the reduced maps in which places for names are searched


def palette(num_colours: int, *, first: int = 0) -> NDArray[np.uint8]:
    """Return colours of the PASCAL VOC colour map, ``(num_colours, 3)`` RGB.

    The bits of a class number go in turn to red, green and blue, from the strongest bit of the colour down:
    0 is black, 1 dark red, 2 dark green, 3 olive.

    Args:
        num_colours: Number of colours.
        first: Class number of the first.
    """
    ids = np.arange(first, first + num_colours)
    colours = np.zeros((num_colours, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def class_colours(segmentation: Segmentation) -> NDArray[np.uint8]:
    """Return a colour for each class, ``(classes, 3)`` RGB; black is the background's alone."""
    return palette(len(segmentation.names), first=0 if segmentation.background else 1)


def label_image(segmentation: Segmentation) -> Image.Image:
    """Return the class numbers as pixels: 8 bits with a palette, 16 bits from 256 classes on."""
    labels = segmentation.labels.numpy()
    if len(segmentation.names) > MAX_BYTE_CLASSES:
        return Image.fromarray(labels.astype(np.uint16))
    height, width = labels.shape
    image = Image.frombytes("P", (width, height), labels.astype(np.uint8).tobytes())
    image.putpalette(palette(256, first=0 if segmentation.background else 1).tobytes())
    return image


def encode_labels(segmentation: Segmentation) -> bytes:
    """Return :func:`label_image` as a PNG that names its classes in the text entry ``classes``, as JSON."""
    info = PngInfo()
    info.add_itxt("classes", json.dumps(segmentation.names, ensure_ascii=False))
    buffer = io.BytesIO()
    label_image(segmentation).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


class Overlay:
    """Overlay of a segmentation on its image.

    Args:
        image: The segmented image, as :func:`common_kernels.runtime.images.as_rgb` takes it: a file, a Pillow
            image, an array or a tensor.
        segmentation: Segmentation of the same height and width.
        opacity: Opacity of the colours, in [0, 1].
        colours: Colour of each class, ``(classes, 3)`` RGB in [0, 255]; those of :func:`palette` by default.

    Raises:
        ValueError: If the sizes differ, ``opacity`` or a colour leaves its range, or ``colours`` has not one
            row per class.
        TypeError: If ``image`` is none of these.

    Example:
        >>> overlay = Overlay(image, model.predict(image))  # doctest: +SKIP
        >>> overlay.save("overlay.png")  # doctest: +SKIP
        >>> overlay.save("overlay.html")  # doctest: +SKIP
    """

    def __init__(
        self,
        image: ImageSource,
        segmentation: Segmentation,
        *,
        opacity: float = 0.55,
        colours: ArrayLike | None = None,
    ) -> None:
        self.image = as_rgb(image, name="image")
        size, wanted = (self.image.height, self.image.width), segmentation.size
        if size != wanted:
            raise ValueError(
                f"image and segmentation must have one size, got {size[0]} x {size[1]} and "
                f"{wanted[0]} x {wanted[1]}"
            )
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must lie in [0, 1], got {opacity}")
        self.segmentation = segmentation
        self.opacity = opacity
        self.colours = class_colours(segmentation) if colours is None else _checked(colours, segmentation)

    def render(self) -> Image.Image:
        """Return the image in the colours of its classes, with their outlines, at its own size."""
        return paint(self.image, self.segmentation, self.colours, opacity=self.opacity, line=1)

    def render_with_legend(self, *, names: bool = True) -> Image.Image:
        """Return the overlay above a legend of the classes that occur, largest first.

        Small images are enlarged and large ones reduced, to a long side of 480 to 2048 pixels.

        Args:
            names: Whether names are also written on regions with room for them.
        """
        shown, segmentation = self._at_reading_size()
        line = max(1, round(max(shown.size) / 640))
        drawn = paint(shown, segmentation, self.colours, opacity=self.opacity, line=line)
        size = max(13, round(max(shown.size) / 55))
        if names:
            write_names(drawn, segmentation, size)
        return add_legend(drawn, self._entries(), font_size=size)

    def save(self, path: str | Path) -> None:
        """Write the overlay with its legend, or, if ``path`` ends in ``.html``, an interactive page.

        Raises:
            ImageError: If the suffix is unknown or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() in {".html", ".htm"}:
            text = page(self.image, self.segmentation, self.colours, opacity=self.opacity, title=path.stem)
            write_text(path, text)
        else:
            write_image(self.render_with_legend(), path, quality=_QUALITY)

    def save_labels(self, path: str | Path) -> None:
        """Write the class numbers as a PNG.

        Raises:
            ImageError: If the suffix is another or the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ImageError(f"label maps are .png files, got {path.name}")
        write_bytes(path, encode_labels(self.segmentation))

    def _entries(self) -> list[LegendEntry]:
        numbers = {name: number for number, name in enumerate(self.segmentation.names)}
        entries: list[LegendEntry] = []
        for name, share in self.segmentation.shares().items():
            number = numbers[name]
            tinted = number > 0 or not self.segmentation.background
            red, green, blue = (int(value) for value in self.colours[number])
            entries.append(LegendEntry(name, (red, green, blue) if tinted else None, percent(share)))
        return entries

    def _at_reading_size(self) -> tuple[Image.Image, Segmentation]:
        width, height = self.image.size
        longest = max(width, height)
        # whole factors keep the pixels of small images square
        factor = float(-(-_SHORTEST // longest)) if longest < _SHORTEST else min(1.0, _LONGEST / longest)
        if factor == 1:
            return self.image, self.segmentation
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        how = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
        return self.image.resize(size, how), self.segmentation.resized((size[1], size[0]))


def _checked(colours: ArrayLike, segmentation: Segmentation) -> NDArray[np.uint8]:
    rows = np.asarray(colours)
    wanted = (len(segmentation.names), 3)
    if rows.shape != wanted or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"colours must be {wanted} integers, a row per class, got {rows.shape} {rows.dtype}")
    if rows.min() < 0 or rows.max() > 255:
        raise ValueError(f"colours must lie in [0, 255], got {rows.min()}..{rows.max()}")
    return rows.astype(np.uint8)


def percent(share: float) -> str:
    """Format a share in per cent; small shares above zero as ``<1%``."""
    return f"{share:.0%}" if share >= 0.0095 else "<1%"


def paint(
    image: Image.Image, segmentation: Segmentation, colours: NDArray[np.uint8], *, opacity: float, line: int
) -> Image.Image:
    """Tint each class but the background and outline it in a lighter shade.

    Args:
        image: RGB, of the segmentation's size.
        segmentation: Labels, names and background.
        colours: ``(classes, 3)`` RGB.
        opacity: Opacity of the tint, in [0, 1].
        line: Width of the outline in pixels.
    """
    labels = segmentation.labels.numpy()
    pixels = np.asarray(image, dtype=np.float32)
    weight = np.full(labels.shape, opacity, dtype=np.float32)
    edge = outlines(labels, line)
    weight[edge] = max(opacity, 0.9)
    if segmentation.background:
        weight[labels == 0] = 0
    tint = colours.astype(np.float32)[labels]  # (H, W, 3)
    tint[edge] += 0.4 * (255 - tint[edge])  # dark colours would drown in dark images
    mixed = pixels + weight[..., None] * (tint - pixels)
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def outlines(labels: NDArray[np.int64], line: int) -> NDArray[np.bool_]:
    """Return the pixels with another class at most ``line`` pixels above, below, left or right."""
    found = np.zeros(labels.shape, dtype=np.bool_)
    for step in range(1, line + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        found[:, step:] |= across
        found[:, :-step] |= across
        found[step:] |= down
        found[:-step] |= down
    return found


def write_names(image: Image.Image, segmentation: Segmentation, size: int) -> None:
    """Write the name of each class, light with a dark rim, where its region is thickest."""
    labels = segmentation.labels.numpy()
    step = max(1, -(-max(labels.shape) // _POLE_SIDE))
    small = labels[step // 2 :: step, step // 2 :: step] if step > 1 else labels
    draw = ImageDraw.Draw(image)
    font = load_font(size, *segmentation.names)
    for number in np.unique(small).tolist():
        if number == 0 and segmentation.background:
            continue
        row, column, radius = thickest_place(small == number)
        name = segmentation.names[number]
        if 2 * radius * step < 1.2 * size or draw.textlength(name, font) > 0.6 * image.width:
            continue
        reach = draw.textlength(name, font) / 2 + size / 2  # keeps the whole name on the image
        middle = min(max((column + 0.5) * step, reach), image.width - reach)
        place = (middle, min(max((row + 0.5) * step, size), image.height - size))
        rim = max(2, size // 7)
        draw.text(place, name, TEXT, font, anchor="mm", stroke_width=rim, stroke_fill=BACKGROUND)


def thickest_place(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return row and column of the pixel of a mask that is farthest from its border, and that distance."""
    # beyond the image is outside, too: names keep off its rim
    distances = np.asarray(distance_transform_cdt(np.pad(mask, 1), "taxicab"))[1:-1, 1:-1]
    radius = int(distances.max())
    rows, columns = np.nonzero(distances == radius)
    middle = len(rows) // 2
    return int(rows[middle]), int(columns[middle]), radius - 1
