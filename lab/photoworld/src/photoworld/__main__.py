# SPDX-License-Identifier: Apache-2.0
"""``python -m photoworld``: fetch the pictures, look at composites, list the licences."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from common_kernels.runtime.cli import OutputPath, Report, create_app, emit, run_app, say
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number

from photoworld.fetching import fetch as fetch_pictures
from photoworld.manifest import COMMITTED, Manifest

app = create_app("photoworld", "Fetch photographic cut-outs and backgrounds, and look at composites of them.")


@app.command
def fetch(*, output: Path | None = None, report: Report = Report()) -> None:
    """Fetch all pictures from the Debian archive, about 420 MB to read and 90 MB to keep.

    **Examples**

        python -m photoworld fetch

    Args:
        output: Folder to fill; by default $PHOTOWORLD, else ~/.cache/photoworld.
    """
    folder = fetch_pictures(output)
    emit({"output": str(folder)}) if report.json else say(str(folder))


@app.command
def show(
    kind: Literal["scenes", "edits", "videos", "warps", "prompts"] = "scenes",
    /,
    *,
    output: OutputPath | None = None,
    count: PositiveInt = 24,
    columns: PositiveInt = 4,
    side: Annotated[int, Parameter(validator=Number(gte=32, lte=512))] = 128,
    split: Literal["train", "val", "test"] = "train",
    seed: NonNegativeInt = 0,
    report: Report = Report(),
) -> None:
    """Write a contact sheet to look at: composites with their ground truth and sentences.

    **Examples**

        python -m photoworld show edits --count 12 --split test

    Args:
        kind: Kind of samples.
        output: PNG to write; photoworld-KIND.png by default.
        count: Number of samples.
        columns: Number of columns.
        side: Side of an image in pixels.
        split: Split of the world.
        seed: Random seed of the world.
    """
    from shapeworld.sheet import STRIPS, sheet

    from photoworld.scene import draw_scene

    fetch_pictures()
    output = output or Path(f"photoworld-{kind}.png")
    strips = [STRIPS[kind](seed, index, split, side, draw_scene) for index in range(count)]
    sheet(strips, columns).save(output)
    emit({"output": str(output)}) if report.json else say(str(output))


@app.command
def licences(*, report: Report = Report()) -> None:
    """Print for each package how many pictures come from it, and under which licences."""
    stated: dict[str, str] = json.loads(COMMITTED.read_text("utf-8"))["packages"]
    pictures = Manifest.read().pictures
    for package, copyright_ in stated.items():
        own = Counter(picture.licence for picture in pictures if picture.package == package)
        if report.json:
            emit({"package": package, "copyright": copyright_, "licences": dict(own)})
        else:
            counts = ", ".join(f"{count} {licence}" for licence, count in own.items())
            say(f"{package}: {counts}. {copyright_}")


if __name__ == "__main__":
    raise SystemExit(run_app(app))
