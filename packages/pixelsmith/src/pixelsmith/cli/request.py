# SPDX-License-Identifier: Apache-2.0
"""What ``generate``, ``upscale`` and ``resume`` have in common: from the wishes of a user to the file."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer
from rich.table import Table

from pixelsmith.cli.options import parse_settings, parse_size, parse_slider
from pixelsmith.cli.output import (
    ERRORS,
    bytes_in_words,
    fail,
    one_line,
    say,
    seconds_in_words,
    stderr,
    stdout,
    user_errors,
)
from pixelsmith.cli.processes import join_processes
from pixelsmith.core.config import JobConfig

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel
    from pixelsmith.core.ranks import ProcessRanks
    from pixelsmith.job import Estimate, JobResult, JobSpec

COMMAND = "command.json"
DType = Literal["auto", "float32", "bfloat16", "float16"]
_PNG_PIXELS = 100_000_000  # beyond, a tiled file is what opens


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which model with which prompt; ``None`` stands for the default of the model."""

    model: str
    prompt: str
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    conditioning: str = "true"
    device: str = "auto"
    dtype: DType = "auto"

    def load(self) -> JobModel:
        """Load the model, without the remarks that libraries make about themselves."""
        from pixelsmith import adapters  # slow to import; wrong usage should not wait for it

        if not stderr.is_terminal:
            _hide_bars()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return adapters.load_model(
                self.model,
                prompt=self.prompt,
                negative_prompt=self.negative_prompt,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                conditioning=self.conditioning,
                device=self.device,
                dtype=self.dtype,
            )


def _hide_bars() -> None:
    """Keep the bars of the libraries out of logs and pipes."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopChoice:
    """Settings of the loop as they were given."""

    slider: str
    plan: str
    mode: str
    wrap: str
    seed: int
    batch_size: int
    settings: Sequence[str] | None
    canvas: str

    def config(self, model: JobModel) -> JobConfig:
        """Return the settings for a model.

        Raises:
            ValueError: If one is unknown or wrong.
        """
        values: dict[str, Any] = {
            "patch": model.patch,
            "patch_multiple": model.patch_multiple,
            **{name: getattr(self, name) for name in ("plan", "mode", "wrap", "seed", "batch_size")},
        }
        settings = self.settings or ()
        try:
            return JobConfig(**(values | parse_settings(settings)))
        except TypeError as error:
            given = " ".join(f"--set {setting}" for setting in settings)
            raise ValueError(f"{given}: a value is of the wrong kind") from error

    def spec(self, model: JobModel, sizes: Sequence[tuple[int, int]], **source: Any) -> JobSpec:
        """Return the job of some sizes from a source."""
        from pixelsmith.job import JobSpec

        config = self.config(model)
        sliders = parse_slider(self.slider, len(sizes))
        return JobSpec(sizes=tuple(sizes), config=config, sliders=sliders, canvas=self.canvas, **source)  # pyright: ignore[reportArgumentType]  # checked on construction


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChoice:
    """What happens with the files, and what is said."""

    out: Path | None = None
    job: Path | None = None
    keep: bool = False
    overwrite: bool = False
    dry_run: bool = False
    preview: bool = True
    json_output: bool = False
    debug: bool = False


_Choice = TypeVar("_Choice", ModelChoice, LoopChoice, RunChoice)


def pick(kind: type[_Choice], given: Mapping[str, Any]) -> _Choice:
    """Return those options of a command that belong together.

    Args:
        kind: Which; its fields are named as the options.
        given: All options by name.
    """
    return kind(**{field.name: given[field.name] for field in fields(kind)})


def via_sizes(via: Sequence[str] | None, fit: Callable[[str], tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sizes on the way, height and width."""
    return [fit(text) for text in via or ()]


def square_or_given(text: str) -> tuple[int, int]:
    """Return height and width of a size; one number is both."""
    width, height = parse_size(text)
    return width if height is None else height, width


def default_output(folder: Path, stem: str, size: tuple[int, int]) -> Path:
    """Return where a picture goes if nobody says."""
    suffix = ".png" if size[0] * size[1] <= _PNG_PIXELS else ".tif"
    return folder / f"{stem}-{size[1]}x{size[0]}{suffix}"


def check_wishes(sizes: Sequence[str | None], loop: LoopChoice, run: RunChoice) -> None:
    """Find what needs no model to be found wrong: loading one takes a while.

    Args:
        sizes: As they were given.
        loop: Settings of the loop.
        run: Where the output goes.

    Raises:
        ValueError: If one cannot be read.
        FileNotFoundError: If the folder of the output does not exist.
    """
    for text in sizes:
        if text is not None:
            parse_size(text)
    parse_settings(loop.settings or ())
    if run.out is not None:
        from pixelsmith.io.writers import check_output

        check_output(run.out, 1, 1)


def carry_out(
    choice: ModelChoice,
    check: Callable[[], None],
    make_spec: Callable[[JobModel], JobSpec],
    name_output: Callable[[JobSpec], Path],
    run: RunChoice,
) -> None:
    """Do a job from the beginning, or where its folder says that it ended.

    Args:
        choice: The model.
        check: Finds wrong wishes before the model is loaded.
        make_spec: Turns the wishes into a job, given the model.
        name_output: Names the file if the user does not.
        run: The rest.
    """
    with user_errors(run.debug):
        check()
        ranks, device = join_processes(choice.device)
        if Path(choice.model).exists():  # a resume may come from elsewhere
            choice = replace(choice, model=str(Path(choice.model).absolute()))
        model = replace(choice, device=device).load()
        spec = make_spec(model)
        output = (run.out or name_output(spec)).absolute()
        folder = (run.job or output.with_name(f"{output.name}.job")).absolute()
        if run.dry_run:
            _tell_estimate(model, spec, folder, output, run)
            return
        if ranks is None or ranks.index == 0:
            _make_way(folder, output, run)
    notes = {
        "model": asdict(choice),
        "spec": spec.to_dict(),
        "output": str(output),
        "keep": run.keep,
    }
    do_job(model, spec, folder, output, run, ranks=ranks, notes=notes)


def do_job(
    model: JobModel,
    spec: JobSpec,
    folder: Path,
    output: Path,
    run: RunChoice,
    *,
    ranks: ProcessRanks | None,
    notes: Mapping[str, object],
) -> None:
    """Run a job to its end, tell about it, and tidy up; leave it resumable if it is stopped."""
    from pixelsmith.cli.report import reporting
    from pixelsmith.core.protocol import StageInterrupted
    from pixelsmith.job import Job, assist, remove_job

    if ranks is not None and ranks.index:
        with user_errors(run.debug):
            try:
                assist(model, spec, ranks)
            except (StageInterrupted, KeyboardInterrupt):
                sys.exit(130)
        return
    job = Job(model, spec, folder, preview_every=10.0 if run.preview else None, ranks=ranks)
    with user_errors(run.debug):
        found = job.check(output)
    again = f"go on with: pixelsmith resume {folder}"
    try:
        with reporting([stage.calls for stage in found.stages]) as job.on_progress:
            result = job.run(output, notes=notes)
    except KeyboardInterrupt:
        typer.echo(f"pixelsmith: stopped, nothing is lost; {again}", err=True)
        sys.exit(130)
    except (*ERRORS, MemoryError, RuntimeError) as error:
        if run.debug:
            raise
        fail(f"{_cause(error)}; {again}", code=1)
    if not run.keep:
        remove_job(folder)
    _tell_result(result, folder if run.keep else None, run)


def _cause(error: BaseException) -> str:
    text = one_line(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "the memory is full; use a smaller --batch-size, or another --device or --dtype"
    return text


def _make_way(folder: Path, output: Path, run: RunChoice) -> None:
    """Let a job begin where something is already, if the user wants that."""
    from pixelsmith.job import remove_job

    is_job = (folder / "job.json").exists()
    if run.overwrite and is_job:
        remove_job(folder)
    elif not run.overwrite and output.exists() and not is_job:
        raise ValueError(f"{output} is there already; give --overwrite, or another name with --out")


def _tell_estimate(model: JobModel, spec: JobSpec, folder: Path, output: Path, run: RunChoice) -> None:
    from pixelsmith.io.writers import check_output
    from pixelsmith.job import estimate
    from pixelsmith.job.estimates import check_disk

    check_output(output, *spec.size)
    found = estimate(model, spec, output, measure=True)
    if run.json_output:
        typer.echo(json.dumps(found.to_dict() | {"output": str(output), "job": str(folder)}))
    else:
        _show_estimate(found, output)
    check_disk(found, folder, output)  # after what it takes is told


def _show_estimate(found: Estimate, output: Path) -> None:
    table = Table("stage", "size", "enlarged", "guided steps", "patches", "tiles")
    for number, stage in enumerate(found.stages, start=1):
        table.add_row(
            str(number),
            f"{stage.size[1]} x {stage.size[0]}",
            f"{stage.scale:.2f}",
            f"{stage.guided_steps} of {stage.num_steps}",
            f"{stage.calls:,}",
            f"{stage.tiles:,}",
        )
    stdout.print(table)
    for line in estimate_lines(found, output):
        say(line)


def estimate_lines(found: Estimate, output: Path) -> list[str]:
    """Return what a job takes, in words."""
    time = "not measured" if found.seconds is None else f"about {seconds_in_words(found.seconds)} here"
    return [
        f"calls   {found.calls:,} patches, two evaluations each with guidance",
        f"memory  {bytes_in_words(found.memory_bytes)} beside the model",
        f"disk    {bytes_in_words(found.folder_bytes)} meanwhile, "
        f"{bytes_in_words(found.output_bytes)} at most for {output.name}",
        f"time    {time}",
    ]


def _tell_result(result: JobResult, folder: Path | None, run: RunChoice) -> None:
    height, width = result.size
    if run.json_output:
        said = {
            "output": str(result.outputs[0]),
            "outputs": [str(path) for path in result.outputs],
            "width": width,
            "height": height,
            "denoiser_calls": result.calls,
            "seconds": round(result.seconds, 2),
            "job": None if folder is None else str(folder),
        }
        typer.echo(json.dumps(said))
        return
    say(f"{result.outputs[0]}: {width} x {height}, {result.calls:,} patches, "
        f"{seconds_in_words(result.seconds)}")  # fmt: skip
    for other in result.outputs[1:]:
        if other.suffix == ".html":
            say(f"open {other} in a browser to look around")
