# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common_kernels.runtime.cli import Report, emit, say, show
from common_kernels.runtime.files import format_bytes

if TYPE_CHECKING:
    from pixelsmith.job import StageState


def inspect(folder: Path, /, *, report: Report = Report()) -> None:
    """Show what a job folder holds and how far the job is. Changes nothing, even while the job runs.

    **Examples**

        pixelsmith inspect harbour.tif.job
        pixelsmith inspect harbour.tif.job --json

    Args:
        folder: Folder of the job.
    """
    from rich.table import Table

    from pixelsmith.job.inspect import inspect_job

    state = inspect_job(folder)
    if report.json:
        emit(state.to_dict())
        return
    table = Table("stage", "size", "state", "encoded", "steps", "patches", "decoded")
    for number, stage in enumerate(state.stages, start=1):
        table.add_row(str(number), *_cells(stage))
    show(table)
    model = state.description.get("model")
    if isinstance(model, Mapping):
        for name in ("model", "prompt", "num_inference_steps", "guidance_scale"):
            if name in model:
                say(f"{name.replace('_', ' ')}: {model[name]}")
    say(f"disk space: {format_bytes(state.disk_bytes)}")
    if not state.is_complete:
        say(f"resume with: pixelsmith resume {folder}")


def _cells(stage: StageState) -> list[str]:
    return [
        f"{stage.size[1]} x {stage.size[0]}",
        stage.status,
        f"{stage.encoded:.0%}",
        f"{stage.step} of {stage.num_steps}" if stage.num_steps else "",
        f"{stage.calls:,}",
        f"{stage.decoded:.0%}",
    ]
