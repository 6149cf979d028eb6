# SPDX-License-Identifier: Apache-2.0
"""``semanir restore``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from common_kernels.runtime.batch import Job
from common_kernels.runtime.cli import Device, OnProgress
from common_kernels.runtime.fingerprint import digest_model
from common_kernels.runtime.images import MAX_PIXELS, WRITABLE
from cyclopts import Group, Parameter

from semanir.cli.images import ImageOutput, Process, run_on_images
from semanir.options import RestoreOptions
from semanir.weights import find_folder

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
        """Return the files that are written when the restored image becomes ``path``."""
        outputs = {"image": path}
        return outputs | ({"compare": path.with_name(f"{path.stem}-compare.png")} if self.compare else {})

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the files that are written for an image at ``relative`` below an input folder."""
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
    machine: Machine = Machine(),
    model: str = "tiny-denoise",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Restore images; depth, transparency, colour profile and orientation are kept.

    A result is skipped if it was made from the same image by the same model with the same options, so a run
    that was stopped can be repeated to finish it. Under `torchrun` or `accelerate launch` each process
    takes a shard of the images, on its own device.

    **Examples**

        semanir restore noisy.png -o clean.png --compare

        semanir restore "scans/*.tif" -o clean/ --suffix=-clean

        semanir restore photos/ -o photos-clean/ -r --json > report.jsonl

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

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
        partial(_start, folder=folder, options=options, machine=machine, max_pixels=max_pixels),
        settings={"model": digest_model(folder), "options": options, "dtype": machine.dtype},
        recursive=recursive,
        device=machine.device,
        workers=_WORKERS,
    )


def _start(
    device: str, *, folder: Path, options: RestoreOptions, machine: Machine, max_pixels: int
) -> Process:
    """Load the model; return the function that restores one image."""
    from common_kernels.runtime.images import read_size

    from semanir.restorer import Restorer
    from semanir.restoring.budget import PixelBudget

    restorer = Restorer.from_pretrained(
        folder, device=device, dtype=machine.dtype, batch_size=machine.batch_size
    )
    restorer.check_options(options)

    budget = PixelBudget(_PIXELS)

    def restore_one(job: Job, on_progress: OnProgress) -> dict[str, object]:
        height, width = read_size(job.source, max_pixels=max_pixels)
        with budget.hold(height * width * restorer.model.config.upscale**2):
            found = restorer.restore_file(
                job.source,
                job.outputs["image"],
                options,
                compare=job.outputs.get("compare"),
                max_pixels=max_pixels,
                progress=on_progress,
            )
        return {
            "width": found.width,
            "height": found.height,
            "change": None if found.change is None else round(found.change, 3),
            "note": found.note,
        }

    return restore_one
