# SPDX-License-Identifier: Apache-2.0
"""``itaclip convert``: label maps for COCO-Object and COCO-Stuff."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from common_kernels.runtime.batch import Job, run_jobs
from common_kernels.runtime.cli import OnProgress, Report
from cyclopts import Group, Parameter


@Parameter(name="*", group=Group("Output", sort_key=9))
@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOutput(Report):
    """Where label maps are written, and how they are reported.

    Attributes:
        output: Another root to write to.
        overwrite: Discard earlier results.
    """

    output: Annotated[Path | None, Parameter(alias="-o")] = None
    overwrite: Annotated[bool, Parameter(negative="")] = False


def convert(
    target: Literal["coco-object", "coco-stuff"],
    /,
    *,
    root: Path,
    split: str = "val2017",
    output: ConvertOutput = ConvertOutput(),
) -> int:
    """Make the label maps of COCO-Object or COCO-Stuff from the pixel maps that COCO-Stuff publishes.

    `itaclip evaluate` also reads the pixel maps themselves; other programs want NAME_labelTrainIds.png
    (coco-stuff) and NAME_instanceTrainIds.png (coco-object).

    **Examples**

        itaclip convert coco-stuff --root coco
        itaclip convert coco-object --root coco --split train2017

    Exit code: 0 all done, 1 some maps failed, 2 nothing could be done.

    Args:
        target: Label maps to make.
        root: Folder with annotations/SPLIT/*.png, the pixel maps of COCO-Stuff.
        split: Split: val2017 or train2017.
    """
    from itaclip.evaluation.convert import plan_conversion

    planned = {each.source: each for each in plan_conversion(target, root, split=split, out=output.output)}

    def start(_: str) -> Callable[[Job, OnProgress], Mapping[str, object]]:
        def convert_one(job: Job, _: OnProgress) -> Mapping[str, object]:
            planned[job.source].run()
            return {}

        return convert_one

    report = run_jobs(
        [Job(source, {"labels": each.target}) for source, each in planned.items()],
        start,
        settings={"target": target},
        device="cpu",
        overwrite=output.overwrite,
        json=output.json,
        debug=output.debug,
    )
    return report.exit_code
