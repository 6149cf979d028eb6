# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, in addition to those of the runtime and the configurations."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from common_kernels.runtime.cli import Machine, Report
from cyclopts import Group, Parameter

from pixelsmith.config import (
    DenoisingConfig,
    LoadingConfig,
    SamplingConfig,
    SizeConfig,
    Slider,
    check_slider,
)

__all__ = [
    "Denoising",
    "JobOutput",
    "Loading",
    "Patches",
    "Sampling",
    "Size",
    "SliderText",
    "file_stem",
    "parse_sliders",
]

_DENOISING = Group("Denoising", sort_key=3)
Size = Annotated[SizeConfig, Parameter(name="*", group=Group("Size", sort_key=2))]
Denoising = Annotated[DenoisingConfig, Parameter(name="*", group=_DENOISING)]
SliderText = Annotated[str, Parameter(group=_DENOISING)]
Loading = Annotated[LoadingConfig, Parameter(name="*", group=Group("Model", sort_key=5))]
Sampling = Annotated[SamplingConfig, Parameter(name="*", group=Group("Sampling", sort_key=4))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches(Machine):
    """Device options of a command, and its batch size.

    Attributes:
        batch_size: Patches in one pass through the model; changes the result by rounding at most.
    """


@Parameter(name="*", group=Group("Output", sort_key=9))
@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutput(Report):
    """Output and report options of a job.

    Attributes:
        output: Output file: .png, .tif (tiled BigTIFF), .dzi (with a page that zooms), .jpg or .webp; named
            after the prompt or the image if not given. The first three by pyvips where it is installed.
        overwrite: Discard earlier results.
        job: Folder of the job; beside the output if not given.
        keep: Whether the job folder stays when the job is done.
        canvas: Dtype of the latents between steps.
        preview: Whether preview.png in the job folder is kept up to date.
        dry_run: Report calls, memory, disk space and time, and exit.
    """

    output: Annotated[Path | None, Parameter(alias="-o")] = None
    overwrite: Annotated[bool, Parameter(negative="")] = False
    job: Path | None = None
    keep: Annotated[bool, Parameter(negative="")] = False
    canvas: Literal["float32", "float16"] = "float32"
    preview: bool = True
    dry_run: Annotated[bool, Parameter(negative="")] = False


def parse_sliders(text: str) -> list[Slider]:
    """Parse ``--slider``.

    Args:
        text: Number of steps (20), a fraction (0.9), "auto", one of these per stage (20,30), or a .json
            file with rows of fractions.

    Raises:
        ValueError: If it cannot be read, or a value is out of range.
    """
    found: list[Slider]
    if text.endswith(".json"):
        try:
            found = [tuple(tuple(row) for row in json.loads(Path(text).read_text("utf-8")))]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{text} must hold rows of numbers, as [[0.2, 0.6], [0.2, 0.6]]") from error
    else:
        found = [_parse_slider(part.strip()) for part in text.split(",")]
    for slider in found:
        check_slider(slider)
    return found


def _parse_slider(text: str) -> Slider:
    if text == "auto":
        return "auto"
    try:
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise ValueError(
            f"--slider takes steps (20), a fraction (0.9), auto or a .json file, got {text!r}"
        ) from error


def file_stem(prompt: str) -> str:
    """Return a file name for the image of a prompt, of letters, digits and hyphens only."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    return "-".join(words)[:60].rstrip("-") or "image"
