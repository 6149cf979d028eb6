# SPDX-License-Identifier: Apache-2.0
"""``semanir restore``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from common_kernels.runtime.batch import Job, plan_jobs, run_jobs
from common_kernels.runtime.cli import Device, OnProgress, Output
from common_kernels.runtime.fingerprint import digest_model
from common_kernels.runtime.images import MAX_PIXELS, WRITABLE
from cyclopts import Group, Parameter

from semanir.options import RestoreOptions
from semanir.weights import find_folder


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
class Results(Output):
    """What is written, and where.

    Attributes:
        suffix: Addition to the file names in an output folder.
        format: Format of the files in an output folder: png, jpg, webp, tif or bmp; by default that of the
            input.
        compare: Also write NAME-compare.png, the image before and after.
    """

    suffix: str = ""
    format: str | None = None
    compare: Annotated[bool, Parameter(negative="")] = False

    def __post_init__(self) -> None:
        if Path(self.suffix).name != self.suffix:
            raise ValueError(f"--suffix must not name a folder, got {self.suffix!r}")
        if self.format is not None and self._ending not in WRITABLE:
            names = ", ".join(sorted(each.lstrip(".") for each in WRITABLE))
            raise ValueError(f"--format must be one of {names}, got {self.format!r}")

    @property
    def _ending(self) -> str:
        return f".{(self.format or '').lower().lstrip('.')}"

    def as_file(self, path: Path) -> dict[str, Path]:
        """Return the files that are written when the restored image becomes ``path``."""
        outputs = {"image": path}
        return outputs | ({"compare": path.with_name(f"{path.stem}-compare.png")} if self.compare else {})

    def in_folder(self, relative: Path) -> dict[str, Path]:
        """Return the files that are written for an image at ``relative`` below an input folder."""
        own = relative.suffix if relative.suffix.lower() in WRITABLE else ".png"
        ending = own if self.format is None else self._ending
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
    jobs = plan_jobs(
        inputs,
        output.output,
        recursive=recursive,
        in_folder=output.in_folder,
        as_file=output.as_file,
        file_suffixes=WRITABLE,
    )
    folder = find_folder(model)
    report = run_jobs(
        jobs,
        partial(_start, folder=folder, options=options, machine=machine, max_pixels=max_pixels),
        settings={"model": digest_model(folder), "options": options, "dtype": machine.dtype},
        device=machine.device,
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    return report.exit_code


def _start(
    device: str, *, folder: Path, options: RestoreOptions, machine: Machine, max_pixels: int
) -> Callable[[Job, OnProgress], Mapping[str, object]]:
    """Load the model; return the function that restores one image."""
    from semanir.restorer import Restorer

    restorer = Restorer.from_pretrained(
        folder, device=device, dtype=machine.dtype, batch_size=machine.batch_size
    )
    restorer.check_options(options)

    def restore_one(job: Job, on_progress: OnProgress) -> dict[str, object]:
        image = restorer.restore_file(
            job.source,
            job.outputs["image"],
            options,
            compare=job.outputs.get("compare"),
            max_pixels=max_pixels,
            progress=on_progress,
        )
        return {"width": image.width, "height": image.height, "note": image.note}

    return restore_one
