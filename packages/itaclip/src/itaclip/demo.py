# SPDX-License-Identifier: Apache-2.0
"""Demo: drawn scenes, colours as classes, ITACLIP beside plain CLIP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.images import write_image
from common_kernels.runtime.pictures import LegendEntry, Panel, add_legend, comparison, stack
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from itaclip.config import ITACLIPConfig
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.model import ITACLIP
from itaclip.pictures import Overlay
from itaclip.results import Segmentation
from itaclip.shipped import ASSETS

SCENES = ASSETS / "scenes"
# fitted to the size and words of the model, no part of the method
_MODEL_FIELDS = (
    "resize_short",
    "resize_long",
    "crop",
    "stride",
    "blur_kernel",
    "blur_sigma",
    "pamr_dilations",
    "templates",
)
_GROUND = (74, 77, 84)  # of label maps: neither black nor white, which are classes
_TILE = 256

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DemoScenes:
    """Scenes inside this package.

    Attributes:
        images: Images, RGB.
        truth: Class of every pixel, ``(H, W)`` int64 each, 0 for the background.
        classes: Names of the classes from 1 on.
        background: Names for the background.
        colours: Colour of each class, ``(classes + 1, 3)`` RGB, the background first.
    """

    images: tuple[Image.Image, ...]
    truth: tuple[Tensor, ...]
    classes: tuple[str, ...]
    background: tuple[str, ...]
    colours: NDArray[np.uint8]

    @classmethod
    def load(cls, folder: Path = SCENES) -> DemoScenes:
        """Read the images and their label maps."""
        facts = json.loads((folder / "classes.json").read_text("utf-8"))
        images: list[Image.Image] = []
        truth: list[Tensor] = []
        for file in sorted(folder.glob("scene-*-labels.png")):
            with Image.open(file) as labels:
                truth.append(torch.from_numpy(np.array(labels)).long())
            with Image.open(file.with_name(file.name.replace("-labels", ""))) as image:
                images.append(image.convert("RGB"))
        return cls(
            images=tuple(images),
            truth=tuple(truth),
            classes=tuple(facts["classes"]),
            background=tuple(facts["background"]),
            colours=np.array([_GROUND, *facts["colours"]], dtype=np.uint8),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """Figures of the demo: mIoU and accuracy in per cent, times in seconds."""

    model: str
    scenes: int
    classes: int
    miou_vanilla: float
    miou_itaclip: float
    miou: float
    accuracy_vanilla: float
    accuracy_itaclip: float
    accuracy: float
    seconds_vanilla: float
    seconds_itaclip: float
    seconds: float

    def to_dict(self) -> dict[str, str | int | float]:
        """Return plain values, rounded."""
        plain: dict[str, str | int | float] = asdict(self)
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True)
class _Column:
    """Results of one configuration on all scenes."""

    results: list[Segmentation]
    scores: Scores
    seconds: float


def demo_configs() -> dict[str, ITACLIPConfig]:
    """Return the compared configurations: plain CLIP, the paper's at the model's size, and a tuned one."""
    own = ITACLIPConfig.preset("tiny-shapes")
    size = {name: getattr(own, name) for name in _MODEL_FIELDS}
    return {
        "vanilla": ITACLIPConfig.preset("vanilla", **size),
        "itaclip": ITACLIPConfig.preset("itaclip", **size),
        "default": own,
    }


def run_demo(segmenter: ITACLIP, out: Path, *, name: str, progress: Progress | None = None) -> DemoFigures:
    """Segment the scenes by colour with three configurations, measure, and write overlays.

    Args:
        segmenter: The model; its own configuration and classes are not used.
        out: Folder for ``comparison.png`` and for an overlay and a page per scene, of the paper's
            configuration.
        name: Name of the model in the figures.
        progress: Called with images done and images in total.

    Returns:
        The figures, over all pixels of all scenes together.
    """
    scenes, configs = DemoScenes.load(), demo_configs()
    columns: dict[str, _Column] = {}
    for number, (key, config) in enumerate(configs.items()):
        engine = ITACLIP(segmenter.model, segmenter.tokenizer, config)
        engine.set_classes(scenes.classes, background=scenes.background)

        def advance(done: int, before: int = number * len(scenes.images)) -> None:
            if progress is not None:
                progress(before + done, len(configs) * len(scenes.images))

        columns[key] = _segment(engine, scenes, advance)
    _write(scenes, columns, out)
    found = {key: (c.scores.mean_iou, c.scores.pixel_accuracy, c.seconds) for key, c in columns.items()}
    return DemoFigures(
        model=name,
        scenes=len(scenes.images),
        classes=len(scenes.classes),
        miou_vanilla=found["vanilla"][0],
        miou_itaclip=found["itaclip"][0],
        miou=found["default"][0],
        accuracy_vanilla=found["vanilla"][1],
        accuracy_itaclip=found["itaclip"][1],
        accuracy=found["default"][1],
        seconds_vanilla=found["vanilla"][2],
        seconds_itaclip=found["itaclip"][2],
        seconds=found["default"][2],
    )


def _segment(engine: ITACLIP, scenes: DemoScenes, advance: Callable[[int], None]) -> _Column:
    start = time.perf_counter()
    results: list[Segmentation] = []
    for result in engine.stream(scenes.images, return_scores=True):
        results.append(result)
        advance(len(results))
    seconds = time.perf_counter() - start
    num_classes = len(scenes.colours)
    counts = [
        confusion(result.labels, true, num_classes)
        for result, true in zip(results, scenes.truth, strict=True)
    ]
    return _Column(results, Scores(torch.stack(counts).sum(0), engine.class_names), seconds)


def _write(scenes: DemoScenes, columns: dict[str, _Column], out: Path) -> None:
    for number, (image, result) in enumerate(
        zip(scenes.images, columns["itaclip"].results, strict=True), start=1
    ):
        overlay = Overlay(image, result, colours=scenes.colours)
        overlay.save(out / f"scene-{number}.png")
        overlay.save(out / f"scene-{number}.html")
    write_image(contact_sheet(scenes, columns), out / "comparison.png")


def contact_sheet(scenes: DemoScenes, columns: dict[str, _Column]) -> Image.Image:
    """Return a row per scene: the image, the truth, and each result, with the mIoU of all rows on top."""
    titles = {"vanilla": "plain CLIP", "itaclip": "ITACLIP", "default": "tuned on colours"}
    heads = [("image", ""), ("truth", "")]
    heads += [(titles[key], f"mIoU {column.scores.mean_iou:.1f}") for key, column in columns.items()]
    rows: list[list[Panel]] = []
    for number, image in enumerate(scenes.images):
        maps = [scenes.truth[number], *(column.results[number].labels for column in columns.values())]
        tiles = [image, *(Image.fromarray(scenes.colours[labels.numpy()]) for labels in maps)]
        texts = heads if number == 0 else [("", "")] * len(heads)
        rows.append([Panel(*text, tile) for text, tile in zip(texts, tiles, strict=True)])
    sheets = [comparison(row, width=_TILE) for row in rows]
    return add_legend(stack(sheets), _entries(scenes), font_size=16)


def _entries(scenes: DemoScenes) -> Sequence[LegendEntry]:
    names = ("background", *scenes.classes)
    return [
        LegendEntry(name, (int(red), int(green), int(blue)))
        for name, (red, green, blue) in zip(names, scenes.colours.tolist(), strict=True)
    ]
