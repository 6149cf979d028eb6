# SPDX-License-Identifier: Apache-2.0
"""``diffeat segment``: classes learned from a few masks, segmented in other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from common_kernels.runtime.cli import OnProgress, Output, emit
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Machine, Selection, load_extractor, note
from diffeat.cli.spatial import extract_each
from diffeat.options import ExtractionOptions, SegmentationOptions

if TYPE_CHECKING:
    from common_kernels.runtime.batch import Job, Process
    from PIL import Image
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor
    from diffeat.heads import SegmentationHead
    from diffeat.ranking.labels import MaskLabels

# longest side on which classes are predicted; label maps are then enlarged to their images
_LONGEST = 512
_LEARNING = Group("Learning", sort_key=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOutput(Output):
    """Folder of the label maps.

    Attributes:
        output: Folder of label maps and overlays.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("diffeat-segments")


@Parameter(name="*", group=_LEARNING)
@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Labelled images and masks for training.

    Attributes:
        head: Head of "diffeat train", instead of labelled images; it brings its options of extraction.
        window: Pixels per side of the parts in which a head segments an image; by default the whole image.
        stride: Pixels between windows; by default the window.
        labelled: Folder of labelled images.
        masks: Folder of their masks, a class number per pixel; 255 is ignored.
        classes: Class name, in the order of the numbers in the masks; may be repeated.
        num_train: Number of training images in the evaluation without inputs; half by default.
        runs: Number of shuffles in the evaluation without inputs.
    """

    head: Path | None = None
    window: int | None = None
    stride: int | None = None
    labelled: Path | None = None
    masks: Path | None = None
    classes: list[str] = field(default_factory=list[str])
    num_train: int | None = None
    runs: int = 5

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"--runs must be at least 1, got {self.runs}")
        if self.head is None and (self.window is not None or self.stride is not None):
            raise ValueError("--window and --stride are those of a --head")
        if self.window is not None and self.window < 1:
            raise ValueError(f"--window must be at least 1, got {self.window}")

    def read(self) -> MaskLabels:
        """Return the labelled images.

        Raises:
            ValueError: If they are not named, or masks and images do not match.
        """
        if self.labelled is None or self.masks is None:
            raise ValueError("--labelled and --masks must say what to learn from, or --head what was learned")
        from diffeat.ranking.labels import MaskLabels

        return MaskLabels.read(self.labelled, self.masks, classes=self.classes)


def segment(
    inputs: list[str] | None = None,
    /,
    *,
    labelled: Labelled = Labelled(),
    output: SegmentOutput = SegmentOutput(),
    selection: Selection = Selection(),
    learning: Annotated[SegmentationOptions, Parameter(name="*", group=_LEARNING)] = SegmentationOptions(),
    options: Extraction = Extraction(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
) -> int:
    """Segment images by classes learned from a few masks.

    A classifier of single pixels learns from --labelled and --masks. For each image it writes
    NAME-labels.png, class numbers with a palette, and NAME-overlay.png, the classes over the image and their
    names below it.

    Without inputs it reports the mIoU of the label-scarce protocol: shuffle, train on --num-train images,
    test on the others, and repeat.

    **Examples**

        diffeat segment photos/ --labelled few/ --masks few-masks/ --model path/to/sdxl -p Ours-XL
        diffeat segment photos/ --model path/to/sdxl --head scenes/head.safetensors --window 512
        diffeat segment --labelled horses/ --masks horse-masks/ --model path/to/sd15 -p Ours-v1.5 --probe mlp

    Args:
        inputs: Files, folders, or quoted globs; without inputs the labelled images are used for evaluation.
        model: Shipped name, folder or hub id of a pipeline.
        recursive: Whether to search folders below a folder.
    """
    from common_kernels.runtime.batch import run_jobs
    from common_kernels.runtime.fingerprint import digest_model

    from diffeat.shipped import find_pipeline

    jobs = _plan(inputs, output.output, recursive=recursive) if inputs else []
    if labelled.head is None:
        names = selection.chosen()
        task = _Learned(model, machine, names, options.plain(), learning, labelled.read())
        if not jobs:
            task.judge(labelled, json=output.json)
            return 0
    elif jobs:
        task = _Headed(model, machine, labelled, _load_head(labelled.head))
    else:
        raise ValueError("inputs must name the images that the head segments")
    report = run_jobs(
        jobs,
        _telling(task.start) if len(jobs) == 1 and not output.json else task.start,
        settings={"model": digest_model(find_pipeline(model)), "dtype": machine.dtype, **task.settings()},
        device=machine.device,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    return report.exit_code


def _load_head(path: Path) -> SegmentationHead:
    from diffeat.heads import load_head

    return cast("SegmentationHead", load_head(path, "upernet"))


def _plan(inputs: Sequence[str], output: Path, *, recursive: bool) -> list[Job]:
    """Return the images and the files that are written for each."""
    from common_kernels.runtime.batch import plan_jobs

    return plan_jobs(
        inputs,
        output,
        in_folder=lambda path: {
            "labels": path.with_name(f"{path.stem}-labels.png"),
            "overlay": path.with_name(f"{path.stem}-overlay.png"),
        },
        as_file=lambda path: {"labels": path},
        file_suffixes=(),
        recursive=recursive,
    )


def _telling(start: Callable[[str], Process]) -> Callable[[str], Process]:
    """Say what a single image shows and where its files are."""

    def begin(device: str) -> Process:
        process = start(device)

        def told(job: Job, on_progress: OnProgress) -> Mapping[str, object]:
            report = process(job, on_progress)
            shares = cast("Mapping[str, float]", report["shares"])
            seen = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            note(f"{', '.join(map(str, job.outputs.values()))}: {seen}")
            return report

        return told

    return begin


@dataclass(frozen=True, slots=True)
class _Learned:
    """Segmentation by a classifier of pixels that learns from labelled images first."""

    model: str
    machine: Machine
    names: Sequence[str]
    options: ExtractionOptions
    learning: SegmentationOptions
    known: MaskLabels

    def settings(self) -> dict[str, object]:
        """Return what results depend on besides model and dtype."""
        from common_kernels.runtime.fingerprint import digest_file

        return {
            "names": self.names,
            "options": self.options,
            "learning": self.learning,
            "labels": [self.known.digest(), *(digest_file(str(path)) for path in self.known.images)],
        }

    def start(self, device: str) -> Process:
        """Load the model, train the classifier, and return the function that segments a file."""
        from diffeat.segment import PixelSegmenter

        extractor = load_extractor(self.model, self.machine, device=device)
        segmenter = PixelSegmenter(len(self.known.classes), self.learning, seed=self.options.seed)
        segmenter.fit(self._features(extractor), self.known.masks)

        def predict(image: Image.Image) -> Tensor:
            features = extractor([image], self.names, self.options).concat()[0]
            factor = min(1.0, _LONGEST / max(image.size))
            size = max(1, round(image.height * factor)), max(1, round(image.width * factor))
            return segmenter.predict(features, size)

        return lambda job, on_progress: _segment(job, predict, self.known.classes)

    def judge(self, labelled: Labelled, *, json: bool) -> None:
        """Report the mIoU of the label-scarce protocol."""
        from diffeat.segment import label_scarce

        features = self._features(load_extractor(self.model, self.machine))
        count = labelled.num_train or len(features) // 2
        score = label_scarce(features, self.known, num_train=count, runs=labelled.runs, options=self.learning)
        note(
            f"mIoU {score.mean:.4f} ± {score.deviation:.4f} over {labelled.runs} shuffles, trained on "
            f"{count} of {len(features)} images; classes absent from the test images count 0"
        )
        if json:
            report = {"miou": score.mean, "deviation": score.deviation, "scores": list(score.scores)}
            emit({**report, "num_train": count})

    def _features(self, extractor: FeatureExtractor) -> Sequence[Tensor]:
        """Concatenated features ``(C, h, w)`` of the labelled images."""
        images = [Path(str(each)) for each in self.known.images]
        found = extract_each(extractor, images, self.names, self.options, self.machine)
        return [each.concat()[0] for each in found]


@dataclass(frozen=True, slots=True)
class _Headed:
    """Segmentation by a trained head."""

    model: str
    machine: Machine
    labelled: Labelled
    head: SegmentationHead

    def settings(self) -> dict[str, object]:
        """Return what results depend on besides model and dtype."""
        from common_kernels.runtime.fingerprint import digest_file

        windows = [self.labelled.window, self.labelled.stride]
        return {"head": digest_file(str(self.labelled.head)), "windows": windows}

    def start(self, device: str) -> Process:
        """Load the model, and return the function that segments a file."""
        from diffeat.segment import slide

        head = self.head
        extractor = load_extractor(self.model, self.machine, device=device)

        def predict_part(part: Image.Image) -> Tensor:
            features = extractor([part], head.config.names, head.config.options).to("cpu")
            return head.predict(features, (part.height, part.width))

        def predict(image: Image.Image) -> Tensor:
            window = self.labelled.window or max(image.size)
            return slide(image, predict_part, window=window, stride=self.labelled.stride).argmax(0)

        return lambda job, on_progress: _segment(job, predict, head.config.classes)


def _segment(
    job: Job, predict: Callable[[Image.Image], Tensor], classes: Sequence[str]
) -> Mapping[str, object]:
    """Write the label map and the overlay of one image; shares of the classes for the report."""
    from common_kernels.runtime.files import atomic_path
    from common_kernels.runtime.images import read_image

    from diffeat.pictures import add_class_legend, label_image, overlay

    source = read_image(job.source)
    image = source.to_rgb()
    labels = predict(image)
    label_map = label_image(labels, len(classes)).resize(image.size, 0)
    drawn = add_class_legend(overlay(image, label_map, opacity=0.55), labels, classes)
    for kind, each in (("labels", label_map), ("overlay", drawn)):
        with atomic_path(job.outputs[kind]) as file:
            each.save(file)
    counts = labels.flatten().bincount(minlength=len(classes)).double() / labels.numel()
    shares = {name: round(float(share), 4) for name, share in zip(classes, counts, strict=True)}
    return {"shares": shares, **({"note": source.note} if source.note else {})}
