# SPDX-License-Identifier: Apache-2.0
"""``diffeat segment``: classes learned from a few masks, segmented in other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import OnProgress, Output, emit
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Machine, Selection, extract_spatial, load_extractor, note
from diffeat.options import ExtractionOptions, SegmentationOptions

if TYPE_CHECKING:
    from common_kernels.runtime.batch import Job
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor
    from diffeat.ranking.labels import MaskLabels
    from diffeat.segment import PixelSegmenter

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
        labelled: Folder of labelled images.
        masks: Folder of their masks, a class number per pixel; 255 is ignored.
        classes: Class name, in the order of the numbers in the masks; may be repeated.
        num_train: Number of training images in the evaluation without inputs; half by default.
        runs: Number of shuffles in the evaluation without inputs.
    """

    labelled: Path
    masks: Path
    classes: list[str] = field(default_factory=list[str])
    num_train: int | None = None
    runs: int = 5

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"--runs must be at least 1, got {self.runs}")


def segment(
    inputs: list[str] | None = None,
    /,
    *,
    labelled: Labelled,
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
        diffeat segment --labelled horses/ --masks horse-masks/ --model path/to/sd15 -p Ours-v1.5 --probe mlp

    Args:
        inputs: Files, folders, or quoted globs; without inputs the labelled images are used for evaluation.
        model: Shipped name, folder or hub id of a pipeline.
        recursive: Whether to search folders below a folder.
    """
    names = selection.chosen()
    from common_kernels.runtime.batch import plan_jobs, run_jobs
    from common_kernels.runtime.fingerprint import digest_file, digest_model

    from diffeat.ranking.labels import MaskLabels
    from diffeat.shipped import find_pipeline

    jobs = (
        plan_jobs(
            inputs,
            output.output,
            in_folder=lambda path: {
                "labels": path.with_name(f"{path.stem}-labels.png"),
                "overlay": path.with_name(f"{path.stem}-overlay.png"),
            },
            as_file=lambda path: {"labels": path},
            file_suffixes=(),
            recursive=recursive,
        )
        if inputs
        else []
    )
    known = MaskLabels.read(labelled.labelled, labelled.masks, classes=labelled.classes)
    task = _Task(model, names, options.plain(), learning, known, machine)
    if not jobs:
        _judge(task, labelled, json=output.json)
        return 0
    settings = {
        "model": digest_model(find_pipeline(model)),
        "dtype": machine.dtype,
        "names": names,
        "options": task.options,
        "learning": learning,
        "labels": [known.digest(), *(digest_file(str(path)) for path in known.images)],
    }
    report = run_jobs(
        jobs,
        task.start,
        settings=settings,
        device=machine.device,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    return report.exit_code


@dataclass(frozen=True, slots=True)
class _Task:
    """Training data, model and options."""

    model: str
    names: Sequence[str]
    options: ExtractionOptions
    learning: SegmentationOptions
    known: MaskLabels
    machine: Machine

    def start(self, device: str) -> Callable[[Job, OnProgress], Mapping[str, object]]:
        """Load the model, train the classifier, and return the function that segments a file."""
        from diffeat.segment import PixelSegmenter

        extractor = load_extractor(self.model, self.machine, device=device)
        segmenter = PixelSegmenter(len(self.known.classes), self.learning, seed=self.options.seed)
        segmenter.fit(self.features(extractor), self.known.masks)
        return lambda job, on_progress: self.segment(extractor, segmenter, job)

    def features(self, extractor: FeatureExtractor) -> Sequence[Tensor]:
        """Concatenated features ``(C, h, w)`` of the labelled images."""
        images = [Path(str(each)) for each in self.known.images]
        return list(extract_spatial(extractor, images, self.names, self.options, self.machine).concat())

    def segment(
        self, extractor: FeatureExtractor, segmenter: PixelSegmenter, job: Job
    ) -> Mapping[str, object]:
        """Write the label map and the overlay of one image."""
        from common_kernels.runtime.files import atomic_path
        from common_kernels.runtime.images import read_image

        from diffeat.pictures import add_class_legend, label_image, overlay

        source, classes = read_image(job.source), self.known.classes
        image = source.to_rgb()
        features = extractor([image], self.names, self.options).concat()[0]
        factor = min(1.0, _LONGEST / max(image.size))
        size = max(1, round(image.height * factor)), max(1, round(image.width * factor))
        labels = segmenter.predict(features, size)
        label_map = label_image(labels, len(classes)).resize(image.size, 0)
        drawn = add_class_legend(overlay(image, label_map, opacity=0.55), labels, classes)
        for kind, each in (("labels", label_map), ("overlay", drawn)):
            with atomic_path(job.outputs[kind]) as file:
                each.save(file)
        counts = labels.flatten().bincount(minlength=len(classes)).double() / labels.numel()
        shares = {name: round(float(share), 4) for name, share in zip(classes, counts, strict=True)}
        return {"shares": shares, **({"note": source.note} if source.note else {})}


def _judge(task: _Task, labelled: Labelled, *, json: bool) -> None:
    from diffeat.segment import label_scarce

    features = task.features(load_extractor(task.model, task.machine))
    num_train = labelled.num_train or len(features) // 2
    score = label_scarce(features, task.known, num_train=num_train, runs=labelled.runs, options=task.learning)
    note(
        f"mIoU {score.mean:.4f} ± {score.deviation:.4f} over {labelled.runs} shuffles, trained on "
        f"{num_train} of {len(features)} images; classes absent from the test images count 0"
    )
    if json:
        emit(
            {
                "miou": score.mean,
                "deviation": score.deviation,
                "scores": list(score.scores),
                "num_train": num_train,
            }
        )
