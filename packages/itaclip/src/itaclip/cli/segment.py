# SPDX-License-Identifier: Apache-2.0
"""``itaclip segment``: images in, overlays, label maps and pages out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.batch import Job, Process, plan_jobs, run_jobs
from common_kernels.runtime.cli import Device, OnProgress, Output, say
from common_kernels.runtime.files import atomic_write
from common_kernels.runtime.images.limits import MAX_PIXELS
from cyclopts import Group, Parameter

from itaclip.cli.options import AnyImageModel, ClassOptions, MethodOptions, Setup, comma_list

if TYPE_CHECKING:
    from itaclip.model import ITACLIP
    from itaclip.results import Segmentation

Kind = Literal["overlay", "labels", "html", "scores"]

# endings of the files in an output folder
_ENDINGS: dict[Kind, str] = {
    "overlay": "-overlay.png",
    "labels": "-labels.png",
    "html": ".html",
    "scores": "-scores.npz",
}
# kinds that one output file can be, by its suffix; the first unless --write names another
_KINDS: dict[str, tuple[Kind, ...]] = {
    ".png": ("overlay", "labels"),
    ".jpg": ("overlay",),
    ".jpeg": ("overlay",),
    ".webp": ("overlay",),
    ".html": ("html",),
    ".npz": ("scores",),
}
_SCORE_NUMBERS = 2**27


@Parameter(name="*", group=Group("Results", sort_key=4))
@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """Files that are written for an image.

    Attributes:
        write: Kinds of results: overlay,labels,html,scores; by default the first three, or for one output
            file what its suffix says.
        opacity: Opacity of the colours, in [0, 1].
        max_side: Long side at which larger images are segmented, in pixels; 0 for no limit. Label maps have
            the size of the image.
        max_pixels: Upper limit of width times height of an image.
        recursive: Images in the folders below a folder, too.
    """

    write: Annotated[tuple[Kind, ...] | None, Parameter(converter=comma_list)] = None
    opacity: float = 0.55
    max_side: int = 2048
    max_pixels: int = MAX_PIXELS
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"--opacity must lie in [0, 1], got {self.opacity}")
        if self.max_side < 0 or self.max_pixels < 1:
            raise ValueError("--max-side must be at least 0 and --max-pixels at least 1")

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the files in an output folder, by kind."""
        kinds = self.write or ("overlay", "labels", "html")
        return {kind: relative.with_name(relative.stem + _ENDINGS[kind]) for kind in kinds}

    def as_file(self, path: Path) -> dict[str, Path]:
        """Return the kind of one output file."""
        kinds = _KINDS[path.suffix.lower()]
        if self.write and len(self.write) > 1:
            raise ValueError(f"{path} is one file, but --write names {len(self.write)}: give a folder")
        wanted = self.write[0] if self.write else kinds[0]
        if wanted not in kinds:
            suffix = Path(f"x{_ENDINGS[wanted]}").suffix
            raise ValueError(f"--write {wanted} is a {suffix} file, got {path.name}")
        return {wanted: path}


def segment(
    inputs: list[str],
    /,
    *,
    output: Output,
    classes: ClassOptions,
    model: AnyImageModel = AnyImageModel(),
    method: MethodOptions = None,
    results: ResultOptions = ResultOptions(),
    device: Device = Device(),
) -> int:
    """Segment images by the classes you name.

    For photo.jpg an output folder gets photo-overlay.png (colours, legend), photo-labels.png (class numbers
    with a palette; 16 bits from 256 classes on) and photo.html (a page: switch classes, read probabilities).
    What was made from the same image with the same options is skipped, so a stopped run can be resumed. Under
    `accelerate launch` or `torchrun` the processes share the images, each with its own device.

    The shipped model tiny-shapes knows drawn shapes only. For photographs name a CLIP model of open_clip.

    **Examples**

        itaclip segment shapes.png -c "red thing, blue thing" --background-names "leaves, tiles" -o out.png
        itaclip segment photo.jpg -c "cat, dog, sky" -o photo.html --model ViT-B-16 --pretrained openai
        itaclip segment photos/ -r -c "person|man|woman, bicycle" --background -o out/ --model ./my-clip
        itaclip segment "shots/*.png" -c voc21 --dataset voc21 --texts auto -o out/ --model ./my-clip --json
        itaclip segment photo.jpg -c classes.txt -o labels.png --write labels --stride 56 --model ./my-clip

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

    Args:
        inputs: Files, folders, or quoted globs.
    """
    setup = classes.setup(model, method, device.dtype)
    jobs = plan_jobs(
        inputs,
        output.output,
        recursive=results.recursive,
        in_folder=results.in_folder,
        as_file=results.as_file,
        file_suffixes=_KINDS,
    )
    setup.warn_of_one()
    start = _starter(setup, results, says_shares=len(jobs) == 1 and not output.json)
    report = run_jobs(
        jobs,
        start,
        settings={**setup.settings(), "results": [results.opacity, results.max_side]},
        device=device.device,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    if report.done and not output.json:
        setup.hint()
    return report.exit_code


def _starter(setup: Setup, results: ResultOptions, *, says_shares: bool) -> Callable[[str], Process]:
    """Return what loads the model on a device and gives the function that segments a file."""

    def start(place: str) -> Process:
        segmenter = setup.load(place)

        def segment_one(job: Job, on_progress: OnProgress) -> Mapping[str, object]:
            found, report = segment_file(segmenter, job, results, on_progress)
            if says_shares:
                seen = [f"{name} {share:.0%}" for name, share in found.shares().items() if share >= 0.005]
                say(f"{', '.join(map(str, job.outputs.values()))}: {', '.join(seen)}")
            return report

        return segment_one

    return start


def segment_file(
    segmenter: ITACLIP, job: Job, options: ResultOptions, progress: OnProgress | None = None
) -> tuple[Segmentation, dict[str, object]]:
    """Segment an image file, write its results, and return segmentation and report.

    Args:
        segmenter: Segmenter with its classes set.
        job: Image file and the files to write, by kind.
        options: Opacity and limits.
        progress: Called with windows done and windows in total.

    Raises:
        ImageError: If the image cannot be read or a file not written.
    """
    from common_kernels.runtime.images import read_image

    from itaclip.inputs import shrink
    from itaclip.pictures import Overlay

    file = read_image(job.source, max_pixels=options.max_pixels)
    shown = shrink(file.to_rgb(), options.max_side)
    # pages show the best three classes where that costs no more than half a gigabyte
    light = len(segmenter.class_names) * shown.width * shown.height <= _SCORE_NUMBERS
    wanted = "scores" in job.outputs or ("html" in job.outputs and light)
    (found,) = segmenter.stream([shown], return_scores=wanted, progress=progress)
    overlay = Overlay(shown, found, opacity=options.opacity)
    for kind, path in job.outputs.items():
        if kind == "labels":
            Overlay(file.to_rgb(), found.resized((file.height, file.width))).save_labels(path)
        elif kind == "scores":
            _save_scores(found, path)
        else:
            overlay.save(path)
    scores = {mask["label"]: round(mask["score"], 4) for mask in found.masks(background=True)}
    return found, {
        "width": file.width,
        "height": file.height,
        "classes": [
            {"name": name, "share": round(share, 5), "probability": scores[name]}
            for name, share in found.shares().items()
        ],
        **({"note": file.note} if file.note else {}),
    }


def _save_scores(segmentation: Segmentation, path: Path) -> None:
    """Write an ``.npz`` of ``scores (classes, H, W)`` in fp16, ``labels`` and ``names``."""
    import numpy as np

    if segmentation.scores is None:
        raise ValueError("the segmentation was made without scores")
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            scores=segmentation.scores.numpy().astype(np.float16),
            labels=segmentation.labels.numpy().astype(np.uint16),
            names=np.array(segmentation.names),
        )
