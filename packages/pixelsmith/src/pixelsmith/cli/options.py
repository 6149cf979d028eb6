# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pixelsmith.core.config import JobConfig, Slider

_MACHINE, _METHOD, _FILES = "Machine", "Method", "Files"

Model = Annotated[
    str, typer.Option("--model", "-m", help="Shipped name, folder in the form of diffusers, or hub id.")
]
Negative = Annotated[str | None, typer.Option("--negative-prompt", help="What should not be there.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the model; its own number if not given.")]
Guidance = Annotated[float | None, typer.Option(help="Weight of the prompt; the model's own if not given.")]
Via = Annotated[
    list[str] | None,
    typer.Option(metavar="SIZE", help="A size to go through on the way; may be repeated. Each is a stage."),
]
SliderOption = Annotated[
    str,
    typer.Option(
        "--slider",
        help="Guided steps: a number (20), a share (0.4), auto, one per stage (20,30), or a .json file with "
        "rows of shares, stretched over the picture. More keeps more of the picture.",
        rich_help_panel=_METHOD,
    ),
]
Plan = Annotated[
    Literal["cover", "jitter", "grid"],
    typer.Option(
        help="Patches: drawn as published, a moving grid (fewer), a fixed grid.", rich_help_panel=_METHOD
    ),
]
Mode = Annotated[
    Literal["parallel", "official"],
    typer.Option(help="official repeats the published code, its quirks included.", rich_help_panel=_METHOD),
]
Wrap = Annotated[
    Literal["none", "horizontal", "vertical", "both"],
    typer.Option(
        help="Sides that join: horizontal for panoramas, both for textures.", rich_help_panel=_METHOD
    ),
]
Conditioning = Annotated[
    Literal["true", "official", "base", "none"],
    typer.Option(help="What SDXL is told about the place of a patch.", rich_help_panel=_METHOD),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting of the loop, as start=noise or band=6; may be repeated.",
        rich_help_panel=_METHOD,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes on the same device.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="File to write: .png, .tif (tiled BigTIFF), .dzi (with a page that zooms), .jpg or .webp.",
        rich_help_panel=_FILES,
    ),
]
JobDir = Annotated[
    Path | None,
    typer.Option(
        "--job", help="Folder for what is under way; beside the output if not given.", rich_help_panel=_FILES
    ),
]
Keep = Annotated[
    bool, typer.Option("--keep", help="Keep the job folder when all is done.", rich_help_panel=_FILES)
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the output, and begin the job anew.", rich_help_panel=_FILES),
]
CanvasOption = Annotated[
    Literal["float32", "float16"],
    typer.Option("--canvas", help="How latents are kept between steps.", rich_help_panel=_FILES),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse pictures that claim more, unread.", rich_help_panel=_FILES)
]
Preview = Annotated[
    bool, typer.Option("--preview/--no-preview", help="Keep preview.png in the job folder up to date.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Tell calls, memory, disk and time, and stop.")
]  # fmt: skip
BatchSize = Annotated[
    int,
    typer.Option(
        min=1, help="Patches in one pass. Changes the result by rounding at most.", rich_help_panel=_MACHINE
    ),
]  # fmt: skip
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:n].", rich_help_panel=_MACHINE)]
DTypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Arithmetic of the model.", rich_help_panel=_MACHINE),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_MACHINE)
]

_SIZE = re.compile(r"(\d+)(?:[x\u00d7](\d+))?", re.IGNORECASE)
# have options of their own, or follow from the model
_OWN = ("patch", "patch_multiple", "seed", "slider", "plan", "mode", "wrap", "batch_size")


def parse_size(text: str) -> tuple[int, int | None]:
    """Read ``WIDTHxHEIGHT``, or one number.

    Returns:
        Width and height in pixels; the height is ``None`` where one number stands.

    Raises:
        ValueError: If it is neither, or a side is 0.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or int(found[1]) < 1 or (found[2] is not None and int(found[2]) < 1):
        raise ValueError(f"a size is WIDTHxHEIGHT or one number of pixels, as 4096x2048, got {text!r}")
    return int(found[1]), None if found[2] is None else int(found[2])


def parse_slider(text: str, stages: int) -> tuple[Slider, ...]:
    """Read what ``--slider`` says.

    Args:
        text: See the option.
        stages: Number of them.

    Returns:
        One slider per stage.

    Raises:
        ValueError: If it cannot be read, or there are as many as neither one nor the stages.
    """
    if text.endswith(".json"):
        try:
            rows = json.loads(Path(text).read_text("utf-8"))
            return (tuple(tuple(row) for row in rows),) * stages
        except (ValueError, TypeError) as error:
            raise ValueError(f"{text} must hold rows of numbers, as [[0.2, 0.6], [0.2, 0.6]]") from error
    parts = [part.strip() for part in text.split(",")]
    found: list[Slider] = [_slider(part) for part in parts]
    if len(found) not in (1, stages):
        raise ValueError(f"--slider must name one value, or one for each of {stages} stages, got {text!r}")
    return tuple(found * stages if len(found) == 1 else found)


def _slider(text: str) -> Slider:
    if text == "auto":
        return "auto"
    try:
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise ValueError(
            f"--slider takes steps (20), a share (0.4), auto or a .json file, got {text!r}"
        ) from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` settings of the loop; values are JSON, or plain words.

    Raises:
        ValueError: If a key is unknown or has an option of its own.
    """
    names = [field.name for field in fields(JobConfig) if field.name not in _OWN]
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or key not in names:
            raise ValueError(f"--set takes KEY=VALUE with KEY of {', '.join(names)}, got {setting!r}")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def file_stem(prompt: str) -> str:
    """Return a name for the picture of a prompt, without anything that a file system minds."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    return "-".join(words)[:60].rstrip("-") or "picture"
