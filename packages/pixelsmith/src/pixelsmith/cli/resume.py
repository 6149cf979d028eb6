# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith resume``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from common_kernels.runtime.cli import Report, emit, warn
from common_kernels.runtime.records import ResultRecord
from cyclopts import Group, Parameter

from pixelsmith.cli.job import COMMAND, ModelRequest, join, run_in_folder
from pixelsmith.cli.options import JobOutput


@Parameter(name="*", group=Group("Machine", sort_key=8))
@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeMachine:
    """Device options of a resumed job; those of the first command by default.

    Attributes:
        device: Device: auto, cpu or cuda[:n]; that of the first command if not given.
        batch_size: Patches in one pass; as in the first command if not given.
    """

    device: str | None = None
    batch_size: int | None = None


@Parameter(name="*", group=Group("Output", sort_key=9))
@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeOutput(Report):
    """Output and report options of a resumed job.

    Attributes:
        output: Output file; that of the first command if not given.
        keep: Whether the job folder stays when the job is done.
        preview: Whether preview.png in the job folder is kept up to date.
    """

    output: Annotated[Path | None, Parameter(alias="-o")] = None
    keep: Annotated[bool, Parameter(negative="")] = False
    preview: bool = True


def resume(
    folder: Path, /, *, machine: ResumeMachine = ResumeMachine(), output: ResumeOutput = ResumeOutput()
) -> int:
    """Resume a job where it was stopped or killed.

    At most a batch of patches and two rows of tiles are computed again, and the result is identical, byte
    for byte, to that of an uninterrupted run. Another device may round differently. Exit code: 0 done,
    1 begun and not finished, 2 nothing was done, 130 interrupted. Of a job that is finished, whose folder is
    gone, the result is named.

    **Examples**

        pixelsmith resume harbour.tif.job
        pixelsmith resume city.dzi.job --batch-size 8 --device cuda:1

    Args:
        folder: Folder of the job.
    """
    result = None if (folder / COMMAND).is_file() else finished_result(folder)
    if result is not None and (output.output is None or output.output.absolute() == result):
        report_finished(folder, result, output)
        return 0
    notes = read_command(folder)
    from pixelsmith.job import JobSpec

    chosen = ModelRequest.from_dict(notes["model"])
    if machine.device is not None:
        chosen = replace(chosen, device=machine.device)
    spec = JobSpec.from_dict(notes["spec"])
    if machine.batch_size is not None:
        spec = replace(spec, config=replace(spec.config, batch_size=machine.batch_size))
    target = Path(notes["output"]) if output.output is None else output.output.absolute()
    ranks, device = join(chosen.device)
    model = replace(chosen, device=device).load()
    options = JobOutput(
        output=target, job=folder.absolute(), keep=output.keep or notes["keep"], preview=output.preview,
        json=output.json, debug=output.debug,
    )  # fmt: skip
    notes |= {"output": str(target), "spec": spec.to_dict()}
    return run_in_folder(model, spec, options, notes, ranks=ranks)


def finished_result(folder: Path) -> Path | None:
    """Return the result of a finished job by the name of its folder; ``None`` if none is known.

    Args:
        folder: Folder of the job, there or not.
    """
    if folder.suffix != ".job":
        return None
    result = folder.absolute().with_suffix("")  # the folder is named so unless --job names another
    try:
        stored: Any = json.loads(ResultRecord([result]).file.read_text("utf-8"))
        is_complete = stored["complete"] is True
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return result if is_complete and result.exists() else None


def report_finished(folder: Path, result: Path, report: Report) -> None:
    """Report a job that is finished and has no folder any more."""
    from pixelsmith.io.writers import output_files

    warn(f"the job is finished, its result is {result}")
    if report.json:
        outputs = {kind: str(file) for kind, file in output_files(result).items()}
        emit({"input": str(folder), "outputs": outputs, "status": "skipped", "seconds": 0.0})


def read_command(folder: Path) -> dict[str, Any]:
    """Return the options with which a command began a job.

    Raises:
        FileNotFoundError: If the folder is not there.
        ValueError: If the folder is not that of a job of a command, or the file is damaged.
    """
    file = folder / COMMAND
    if not folder.exists():
        raise FileNotFoundError(
            f"there is no folder {folder}; that of a finished job is removed, without --keep"
        )
    if not file.is_file():
        raise ValueError(f"{folder} is not the folder of a job that a command began")
    try:
        notes = json.loads(file.read_text("utf-8"))
        if set(notes) != {"model", "spec", "output", "keep", "input"}:
            raise ValueError("other entries than expected")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return notes
