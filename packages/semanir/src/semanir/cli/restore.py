# SPDX-License-Identifier: Apache-2.0
"""``semanir restore``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.batch import Job
from common_kernels.runtime.cli import Device, OnProgress
from common_kernels.runtime.fingerprint import digest_model
from common_kernels.runtime.images.limits import MAX_PIXELS, VIDEOS, WRITABLE
from common_kernels.runtime.video.limits import VIDEO_SUFFIXES
from cyclopts import Group, Parameter

from semanir.cli.images import ImageOutput, Process, run_on_images
from semanir.options import RestoreOptions, VideoOptions
from semanir.weights import find_folder

if TYPE_CHECKING:
    from semanir.restoring.files import FileReport
    from semanir.restoring.video import VideoReport

# images in progress: while one is in the network, another is decoded and a third is encoded
_WORKERS = 3
# of their results, so that memory is bounded too
_PIXELS = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Device):
    """Where the network runs, and on how much at once.

    Attributes:
        batch_size: Number of tiles computed together.
    """

    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(ImageOutput):
    """What is written, and where.

    Attributes:
        format: Format of the files in an output folder: png, jpg, webp, tif or bmp; by default that of the
            input.
        compare: Also write NAME-compare.png, the image before and after.
    """

    format: str | None = None
    compare: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        ImageOutput.__post_init__(self)
        if self.format is not None:
            self.ending(self.format)

    def as_file(self, path: Path) -> dict[str, Path]:
        """Return the files that are written when the restored image or video becomes ``path``.

        Raises:
            ValueError: If a comparison of videos is wanted.
        """
        if path.suffix.lower() in VIDEO_SUFFIXES:
            if self.compare:
                raise ValueError(f"--compare is for images, got {path}")
            return {"video": path}
        outputs = {"image": path}
        return outputs | ({"compare": path.with_name(f"{path.stem}-compare.png")} if self.compare else {})

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the files that are written for an image or video at ``relative`` below an input folder."""
        if relative.suffix.lower() in VIDEOS:
            return self.as_file(relative.with_name(f"{relative.stem}{self.suffix}.mp4"))
        own = relative.suffix if relative.suffix.lower() in WRITABLE else ".png"
        ending = own if self.format is None else self.ending(self.format)
        return self.as_file(relative.with_name(f"{relative.stem}{self.suffix}{ending}"))


def restore(
    inputs: list[str],
    /,
    *,
    output: Results,
    options: Annotated[
        RestoreOptions, Parameter(name="*", group=Group("Restoration", sort_key=1))
    ] = RestoreOptions(),
    video: Annotated[VideoOptions, Parameter(name="*", group=Group("Videos", sort_key=2))] = VideoOptions(),
    machine: Machine = Machine(),
    model: str = "tiny-denoise",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Restore images and videos; depth, transparency, colour profile, EXIF and orientation are kept.

    Large images are read and written in parts. A TIFF keeps its pages. A video becomes an .mp4 or .gif and
    keeps its frame rate and sound; it is named, or meant by an output that ends so: videos in folders are
    left out. Needs PyAV: pip install "semanir[video]".

    A result is skipped if it was made from the same file by the same model with the same options, so a run
    that was stopped can be repeated to finish it. Under `torchrun` or `accelerate launch` each process
    takes a shard of the files, on its own device.

    **Examples**

        semanir restore noisy.png -o clean.png --compare
        semanir restore "scans/*.tif" -o clean/ --suffix=-clean
        semanir restore photos/ -o photos-clean/ -r --json > report.jsonl
        semanir restore dark.mov -o clean.mp4 --temporal 0.7

    Exit code: 0 all done, 1 some files failed, 2 nothing could be done.

    Args:
        inputs: Files, folders, or quoted globs.
        model: Shipped name, folder, or hub id; see `semanir models`.
        recursive: Also search the folders below a folder.
        max_pixels: Largest image to read, in pixels.
    """
    folder = find_folder(model)
    return run_on_images(
        inputs,
        output,
        partial(_start, folder=folder, options=options, video=video, machine=machine, max_pixels=max_pixels),
        settings={
            "model": digest_model(folder),
            "options": options,
            "video": video,
            "dtype": machine.dtype,
        },
        recursive=recursive,
        device=machine.device,
        workers=_WORKERS,
        file_suffixes=WRITABLE | VIDEO_SUFFIXES,
    )


def _start(
    device: str,
    *,
    folder: Path,
    options: RestoreOptions,
    video: VideoOptions,
    machine: Machine,
    max_pixels: int,
) -> Process:
    """Load the model; return the function that restores one image or video."""
    from common_kernels.runtime.images import read_size

    from semanir.restorer import Restorer
    from semanir.restoring.budget import PixelBudget

    restorer = Restorer.from_pretrained(
        folder, device=device, dtype=machine.dtype, batch_size=machine.batch_size
    )
    restorer.check_options(options)
    budget = PixelBudget(_PIXELS)

    def restore_one(job: Job, on_progress: OnProgress) -> dict[str, object]:
        if "video" in job.outputs:
            target = job.outputs["video"]
            return report(
                restorer.restore_video(
                    job.source, target, options, video=video, max_pixels=max_pixels, progress=on_progress
                )
            )
        if job.source.suffix.lower() in VIDEOS:
            raise ValueError(f"{job.source} is a video: name an .mp4 or .gif file as its output")
        height, width = read_size(job.source, max_pixels=max_pixels)
        with budget.hold(height * width * restorer.model.config.upscale**2):
            return report(
                restorer.restore_file(
                    job.source,
                    job.outputs["image"],
                    options,
                    compare=job.outputs.get("compare"),
                    max_pixels=max_pixels,
                    progress=on_progress,
                )
            )

    def report(found: FileReport | VideoReport) -> dict[str, object]:
        values = asdict(found)
        return {
            name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()
        }

    return restore_one
