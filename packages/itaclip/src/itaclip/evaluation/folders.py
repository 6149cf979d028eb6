# SPDX-License-Identifier: Apache-2.0
"""Data sets of one's own: a folder of images and a folder of label maps."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.batch import find_sources

from itaclip.evaluation.datasets import IGNORE, Dataset, LabelForm, Layout, Sample, train_ids, without_zero

# the second is what "itaclip segment" writes
_LABELS = ("{name}.png", "{name}-labels.png")


def open_folder(
    images: str | Path,
    labels: str | Path,
    num_classes: int,
    *,
    background: bool = False,
    ignore_zero: bool = False,
) -> Dataset:
    """Find images and their label maps in two folders.

    The label map of ``a/photo.jpg`` is ``a/photo.png`` or ``a/photo-labels.png``: 8-bit numbers, the places
    of the classes in their list, from 0; 255 does not count. It is drawn on the image as it is shown.

    Args:
        images: Folder of images of any format, with folders below it.
        labels: Folder of label maps; may be the same if these end in ``-labels.png``.
        num_classes: Number of classes, the background included.
        background: Whether class 0 is the background.
        ignore_zero: Whether 0 does not count and the classes begin at 1.

    Raises:
        ValueError: If a folder is not there, two images have one name, no label map is found, or there are
            more classes than numbers.
    """
    images, labels = Path(images), Path(labels)
    for option, folder in (("images", images), ("labels", labels)):
        if not folder.is_dir():
            raise ValueError(f"--{option} must be a folder, got {folder}")
    if num_classes + ignore_zero > IGNORE - 1:
        raise ValueError(f"label maps of 8 bits hold at most {IGNORE - 1} classes, got {num_classes}")
    table = without_zero(num_classes) if ignore_zero else train_ids(num_classes)
    samples: dict[str, Sample] = {}
    for source in find_sources([images], recursive=True):
        if images == labels and source.path.stem.endswith("-labels"):
            continue
        name = source.relative.with_suffix("").as_posix()
        if name in samples:
            raise ValueError(f"{samples[name].image} and {source.path} would share a label map: rename one")
        places = [labels / pattern.format(name=name) for pattern in _LABELS]
        place = next((place for place in places if place.is_file() and place != source.path), places[0])
        samples[name] = Sample(name, source.path, place, table, is_upright=True)
    if not any(sample.label.is_file() for sample in samples.values()):
        first = next(iter(samples.values()))
        raise ValueError(
            f"none of the {len(samples)} images in {images} has a label map in {labels}; "
            f"the first would be {first.label}"
        )
    layout = Layout(
        name="own",
        title=images.name or "own images",
        num_classes=num_classes,
        background=background,
        split="all",
        images="{name}",
        forms=tuple(LabelForm(pattern, table) for pattern in _LABELS),
    )
    return Dataset(layout=layout, root=images, split="all", samples=tuple(samples.values()))
