# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on disk: images, label maps, and the meaning of the numbers in them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime import images
from common_kernels.runtime.images import MAX_PIXELS, ImageError
from common_kernels.runtime.images.decoding import check_size, image_errors, open_pillow
from common_kernels.runtime.images.reading import open_source
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IGNORE = 255  # pixels of this label do not count
FOREIGN = 254  # in a table: a number that no label map of this kind holds
# of the 182 numbers in the pixel maps of COCO-Stuff, these were never drawn
UNUSED_STUFF = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
NUM_THINGS, NUM_STUFF = 80, 171

Table = NDArray[np.uint8]


class SampleError(ValueError):
    """An image or its label map cannot be used; the message names the file, the fault and the cure."""


def _table(classes: Mapping[int, int], ignored: Iterable[int] = (IGNORE,)) -> Table:
    table = np.full(256, FOREIGN, dtype=np.uint8)
    table[list(ignored)] = IGNORE
    table[list(classes)] = list(classes.values())
    return table


def train_ids(num_classes: int) -> Table:
    """Return the table of label maps that hold class ids; 255 is ignored."""
    return _table({value: value for value in range(num_classes)})


def without_zero(num_classes: int) -> Table:
    """Return the table of label maps whose 0 is no class: ids move down by one, 0 is ignored."""
    return _table({value + 1: value for value in range(num_classes)}, (0, IGNORE))


def stuff_from_raw() -> Table:
    """Return the table from the pixel maps of COCO-Stuff to its 171 class ids; 255 is ignored."""
    used = [value for value in range(NUM_STUFF + len(UNUSED_STUFF)) if value not in UNUSED_STUFF]
    return _table({value: index for index, value in enumerate(used)})


def objects_from_stuff_ids() -> Table:
    """Return the table from COCO-Stuff's class ids to COCO-Object's: things move up by one, the rest is 0.

    Unlabelled pixels become background too: COCO-Object ignores nothing.
    """
    things = {value: value + 1 for value in range(NUM_THINGS)}
    rest = (*range(NUM_THINGS, NUM_STUFF), IGNORE)
    return _table(things | dict.fromkeys(rest, 0), ())


def objects_from_raw() -> Table:
    """Return the table from the pixel maps of COCO-Stuff to the 81 class ids of COCO-Object."""
    stuff = stuff_from_raw()
    return np.where(stuff == FOREIGN, FOREIGN, objects_from_stuff_ids()[stuff]).astype(np.uint8)


def cityscapes_from_raw() -> Table:
    """Return the table from the 34 label ids of Cityscapes to its 19 classes; all others are ignored."""
    used = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    ignored = (*(value for value in range(34) if value not in used), IGNORE)
    return _table({value: index for index, value in enumerate(used)}, ignored)


@dataclass(frozen=True, slots=True)
class LabelForm:
    """One form of the label maps of a benchmark.

    Attributes:
        pattern: Path below the root, with ``{split}`` and ``{name}``.
        table: Class id for each of the 256 numbers in a file.
    """

    pattern: str
    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A benchmark and the places of its files.

    Attributes:
        name: Name on the command line; also that of its class list.
        title: Name in tables.
        num_classes: Number of classes, the background included.
        background: Whether class 0 is the background.
        split: Default split.
        homes: Folders below the given root that may hold the tree.
        images: Pattern of the images, with ``{split}`` and ``{name}``.
        forms: Forms of label maps, the preferred first; each image takes the first that is there.
        listing: Pattern of a file with one name per line; if ``None``, all images are taken.
        depth: Number of path parts in a name.
    """

    name: str
    title: str
    num_classes: int
    background: bool
    split: str = "val"
    homes: tuple[str, ...] = ("",)
    images: str
    forms: tuple[LabelForm, ...]
    listing: str | None = None
    depth: int = 1


def _voc(name: str, title: str, *, background: bool) -> Layout:
    table = train_ids(21) if background else without_zero(20)
    return Layout(
        name=name,
        title=title,
        num_classes=21 if background else 20,
        background=background,
        homes=("", "VOC2012", "VOCdevkit/VOC2012"),
        images="JPEGImages/{name}.jpg",
        forms=(LabelForm("SegmentationClass/{name}.png", table),),
        listing="ImageSets/Segmentation/{split}.txt",
    )


def _context(name: str, title: str, *, background: bool) -> Layout:
    table = train_ids(60) if background else without_zero(59)
    return Layout(
        name=name,
        title=title,
        num_classes=60 if background else 59,
        background=background,
        homes=("", "VOC2010", "VOCdevkit/VOC2010"),
        images="JPEGImages/{name}.jpg",
        forms=(LabelForm("SegmentationClassContext/{name}.png", table),),
        listing="ImageSets/SegmentationContext/{split}.txt",
    )


def _coco(name: str, title: str, num_classes: int, forms: tuple[LabelForm, ...]) -> Layout:
    return Layout(
        name=name,
        title=title,
        num_classes=num_classes,
        background=name == "coco-object",
        split="val2017",
        homes=("", "coco_stuff164k", "coco"),
        images="images/{split}/{name}.jpg",
        forms=forms,
    )


_RAW_COCO = "annotations/{split}/{name}.png"
_STUFF_IDS = "annotations/{split}/{name}_labelTrainIds.png"
_OBJECT_IDS = "annotations/{split}/{name}_instanceTrainIds.png"

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        _voc("voc21", "PASCAL VOC 2012, 20 classes and background", background=True),
        _context("context60", "PASCAL Context, 59 classes and background", background=True),
        _coco(
            "coco-object",
            "COCO-Object, 80 classes and background",
            NUM_THINGS + 1,
            (
                LabelForm(_OBJECT_IDS, train_ids(NUM_THINGS + 1)),
                LabelForm(_RAW_COCO, objects_from_raw()),
                LabelForm(_STUFF_IDS, objects_from_stuff_ids()),
            ),
        ),
        _coco(
            "coco-stuff",
            "COCO-Stuff 164k, 171 classes",
            NUM_STUFF,
            (LabelForm(_STUFF_IDS, train_ids(NUM_STUFF)), LabelForm(_RAW_COCO, stuff_from_raw())),
        ),
        Layout(
            name="cityscapes",
            title="Cityscapes, 19 classes",
            num_classes=19,
            background=False,
            homes=("", "cityscapes"),
            images="leftImg8bit/{split}/{name}_leftImg8bit.png",
            forms=(
                LabelForm("gtFine/{split}/{name}_gtFine_labelTrainIds.png", train_ids(19)),
                LabelForm("gtFine/{split}/{name}_gtFine_labelIds.png", cityscapes_from_raw()),
            ),
            depth=2,
        ),
        _voc("voc20", "PASCAL VOC 2012, 20 classes", background=False),
        _context("context59", "PASCAL Context, 59 classes", background=False),
        Layout(
            name="ade20k",
            title="ADE20K, 150 classes",
            num_classes=150,
            background=False,
            split="validation",
            homes=("", "ADEChallengeData2016", "ade/ADEChallengeData2016"),
            images="images/{split}/{name}.jpg",
            forms=(LabelForm("annotations/{split}/{name}.png", without_zero(150)),),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its label map.

    Attributes:
        name: Name in the split.
        image: Image file.
        label: Label map file, which may be missing.
        table: Class id for each of the 256 numbers in the label map.
        is_upright: Whether the label map was drawn on the image as it is shown, turned by its EXIF
            orientation, and not on the stored pixels.
    """

    name: str
    image: Path
    label: Path
    table: Table
    is_upright: bool = False

    def read(self, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Tensor]:
        """Read both files.

        The images of benchmarks are taken as stored: their label maps were drawn on the stored pixels,
        whatever the EXIF orientation says.

        Args:
            max_pixels: Refuse files that claim more, before decoding them.

        Returns:
            The RGB image, and its labels ``(H, W)``, uint8: class ids, or 255 for pixels that do not count.

        Raises:
            SampleError: If a file is missing, damaged or too large, the label map holds colours or numbers
                that are no classes, or the sizes differ.
        """
        decode = _decode_upright if self.is_upright else _decode
        image = decode(self.image, max_pixels)
        labels = read_labels(self.label, self.table, max_pixels=max_pixels)
        if tuple(labels.shape) != (image.height, image.width):
            height, width = labels.shape
            raise SampleError(f"{self.label} is {width} x {height}, its image {image.width} x {image.height}")
        return image, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The images of one split.

    Attributes:
        layout: The benchmark.
        root: Folder of its tree.
        split: Name of the split.
        samples: Images and label maps, in a stable order.
    """

    layout: Layout
    root: Path
    split: str
    samples: tuple[Sample, ...]

    def limited(self, number: int) -> Dataset:
        """Return at most this many samples, evenly spaced over the split.

        Raises:
            ValueError: If the number is not positive.
        """
        if number < 1:
            raise ValueError(f"limit must be at least 1, got {number}")
        total = len(self.samples)
        if number >= total:
            return self
        return replace(self, samples=tuple(self.samples[index * total // number] for index in range(number)))


def find_layout(name: str) -> Layout:
    """Return a benchmark by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in LAYOUTS:
        raise ValueError(f"no data set {name!r}: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def open_dataset(name: str, root: str | Path, *, split: str | None = None) -> Dataset:
    """Find the images and label maps of a benchmark.

    Args:
        name: One of ``voc21``, ``context60``, ``coco-object``, ``coco-stuff``, ``cityscapes``, ``voc20``,
            ``context59`` and ``ade20k``.
        root: Folder of the benchmark, or one of the usual parent folders.
        split: Another split than the one that benchmarks report.

    Raises:
        ValueError: If the name is unknown, the tree is not there, or no image or no label is found.
    """
    layout, root = find_layout(name), Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: --root must be the folder of {layout.title}")
    part = layout.split if split is None else split
    if not part or part in (".", "..") or Path(part).name != part:
        raise ValueError(f"split must be a plain name such as {layout.split!r}, got {part!r}")
    home = _find_home(layout, root, part)
    names = _listed(layout, home, part) if layout.listing else _globbed(layout, home, part)
    samples = tuple(_sample(layout, home, part, each) for each in names)
    if not samples:
        raise ValueError(f"no image {layout.images.format(split=part, name='*')} in {home}")
    if not any(sample.label.is_file() for sample in samples):
        raise ValueError(
            f"none of the {len(samples)} images of {layout.name} has a label map; "
            f"the first would be {samples[0].label}"
        )
    return Dataset(layout=layout, root=home, split=part, samples=samples)


def _find_home(layout: Layout, root: Path, split: str) -> Path:
    folders = [layout.images.split("{name}")[0].format(split=split)]
    folders += [] if layout.listing is None else [layout.listing.format(split=split)]
    for home in layout.homes:
        if all((root / home / needed).exists() for needed in folders):
            return root / home
    raise ValueError(f"{root} does not hold {layout.name}: there must be {' and '.join(folders)} below it")


def _listed(layout: Layout, home: Path, split: str) -> list[str]:
    path = home / (layout.listing or "").format(split=split)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: a list with one name per line is wanted") from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    for name in names:
        if Path(name).name != name or name == "..":
            raise ValueError(f"{path} holds {name!r}: a line must be the plain name of an image")
    return names


def _globbed(layout: Layout, home: Path, split: str) -> list[str]:
    before, after = layout.images.format(split=split, name="\0").split("\0")
    pattern = "/".join(["*"] * layout.depth) + after
    found = (path.relative_to(home / before).as_posix() for path in (home / before).glob(pattern))
    hidden = (".", "__")
    return sorted(name[: -len(after)] for name in found if not name.rpartition("/")[2].startswith(hidden))


def _sample(layout: Layout, home: Path, split: str, name: str) -> Sample:
    image = home / layout.images.format(split=split, name=name)
    places = [(home / form.pattern.format(split=split, name=name), form.table) for form in layout.forms]
    label, table = next((place for place in places if place[0].is_file()), places[0])
    return Sample(name, image, label, table)


def read_labels(path: Path, table: Table, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a label map.

    Args:
        path: File whose numbers are labels; a palette is ignored.
        table: Class id for each of the 256 numbers.
        max_pixels: Refuse a file that claims more, before decoding it.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        SampleError: If the file is missing, damaged or too large, or holds colours or other numbers.
    """
    with _sample_errors():
        numbers = images.read_labels(path, max_pixels=max_pixels).astype(np.int64)
    labels = table[numbers.clip(0, 255)]
    wrong = numbers[(labels == FOREIGN) | (numbers < 0) | (numbers > 255)]
    if wrong.size:
        raise SampleError(f"{path} holds the number {wrong[0]}, which is no class of this data set")
    return torch.from_numpy(labels)


def _decode(path: Path, max_pixels: int) -> Image.Image:
    """Decode a file as it is stored, without its orientation and colour profile."""
    with (
        _sample_errors(),
        open_source(path) as file,
        image_errors(file, str(path)),
        open_pillow(file) as image,
    ):
        check_size(str(path), *image.size, max_pixels)
        return Image.fromarray(np.array(image.convert("RGB")))


def _decode_upright(path: Path, max_pixels: int) -> Image.Image:
    """Decode a file as it is shown."""
    with _sample_errors():
        return images.read_image(path, max_pixels=max_pixels).to_rgb()


@contextmanager
def _sample_errors() -> Generator[None]:
    try:
        yield
    except (ImageError, OSError) as error:
        raise SampleError(str(error)) from error
