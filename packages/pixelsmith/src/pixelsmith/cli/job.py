# SPDX-License-Identifier: Apache-2.0
"""What ``generate``, ``upscale`` and ``resume`` have in common: from the options to the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common_kernels.runtime.cli import EXIT_FAILED_ITEMS, EXIT_INTERRUPTED, Machine, emit, explain, warn
from common_kernels.runtime.fingerprint import digest_model, digest_settings
from common_kernels.runtime.hub import DType
from common_kernels.runtime.processes import join_processes
from common_kernels.runtime.records import ResultRecord

from pixelsmith.cli.options import JobOutput, parse_sliders
from pixelsmith.config import (
    DenoisingConfig,
    JobConfig,
    LoadingConfig,
    SamplingConfig,
    SizeConfig,
    Slider,
    parse_lora,
)

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel
    from pixelsmith.core.ranks import ProcessRanks
    from pixelsmith.job import JobSpec

COMMAND = "command.json"
_PNG_PIXELS = 100_000_000  # larger images are written as tiled files, which viewers can open


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """A model with its prompt, from the options.

    Attributes:
        model: Shipped name, folder or hub id.
        prompt: Prompt.
        sampling: Settings of the model.
        loading: What is loaded besides the model, and how.
        device: Device.
        dtype: Compute dtype.
    """

    model: str
    prompt: str
    sampling: SamplingConfig
    loading: LoadingConfig
    device: str
    dtype: DType

    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        sampling: SamplingConfig,
        machine: Machine,
        loading: LoadingConfig = LoadingConfig(),
    ) -> ModelRequest:
        """Return the request of a command; files by their whole paths, for a resume from elsewhere."""
        loras = [parse_lora(text) for text in loading.lora or ()]
        whole = replace(
            loading,
            config=_whole(loading.config), controlnet=_whole(loading.controlnet),
            control_image=_whole(loading.control_image), upscaler=_whole(loading.upscaler),
            lora=tuple(f"{_whole(place)}:{weight}" for place, weight in loras) or None,
        )  # fmt: skip
        return cls(
            model=_whole(model) or model, prompt=prompt, sampling=sampling, loading=whole,
            device=machine.device, dtype=machine.dtype,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelRequest:
        """Return the request that ``asdict`` described."""
        loading: dict[str, Any] = {
            **values["loading"],
            "lora": tuple(values["loading"]["lora"] or ()) or None,
        }
        given: dict[str, Any] = {
            **values, "sampling": SamplingConfig(**values["sampling"]), "loading": LoadingConfig(**loading)
        }  # fmt: skip
        return cls(**given)

    def digest(self, model: JobModel, spec: JobSpec) -> str:
        """Return a digest of all that decides the bytes of the result.

        Args:
            model: The loaded model.
            spec: The job.
        """
        from pixelsmith.adapters.assets import locate_model

        files = [self.model, *(parse_lora(text)[0] for text in self.loading.lora or ())]
        files += [file for file in (self.loading.controlnet, self.loading.upscaler) if file]
        weights = [digest_model(locate_model(file)) for file in files]
        return digest_settings([weights, self.dtype, self.loading.variant, spec.identity(model)])

    def outline(self) -> JobModel | None:
        """Return the model without its weights, to plan with, if its configuration is at hand."""
        from pixelsmith import adapters

        found: Any = adapters.read_outline(self.model, self.loading, **asdict(self.sampling))
        return found

    def load(self) -> JobModel:
        """Load the model, without the log messages of libraries."""
        from pixelsmith import adapters  # slow to import, and not needed to report wrong usage

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return adapters.load_model(
                self.model, self.prompt, device=self.device, dtype=self.dtype, loading=self.loading,
                announce=warn, **asdict(self.sampling),
            )  # fmt: skip


def _whole(place: str | None) -> str | None:
    return str(Path(place).absolute()) if place and Path(place).exists() else place


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job, from the options.

    Attributes:
        model: The model.
        denoising: Settings of the denoising loop.
        machine: Batch size and random seed.
        output: Output and report options.
        input: Prompt or image file, for the report.
        stem: Path of the output without size and suffix, if none is given.
    """

    model: ModelRequest
    denoising: DenoisingConfig
    machine: Machine
    output: JobOutput
    input: str
    stem: Path

    def config(self, model: JobModel) -> JobConfig:
        """Return all settings of the loop for a loaded model."""
        return JobConfig(
            patch=model.patch, patch_multiple=model.patch_multiple, seed=self.machine.seed,
            batch_size=self.machine.batch_size, **asdict(self.denoising),
        )  # fmt: skip

    def target(self, size: tuple[int, int]) -> Path:
        """Return the file to write."""
        if self.output.output is not None:
            return self.output.output.absolute()
        suffix = ".png" if size[0] * size[1] <= _PNG_PIXELS else ".tif"
        return self.stem.with_name(f"{self.stem.name}-{size[1]}x{size[0]}{suffix}")

    def folder(self, target: Path) -> Path:
        """Return the folder of the job that writes a file."""
        return (self.output.job or target.with_name(f"{target.name}.job")).absolute()


def validate_options(slider: str, sizes: SizeConfig, output: JobOutput) -> list[Slider]:
    """Check the options that need no model, which is slow to load.

    Returns:
        The sliders: one for all stages, or one for each.

    Raises:
        ValueError: If a slider or the output does not fit.
        NotADirectoryError: If the folder of the output is a file.
    """
    sliders = parse_sliders(slider)
    stages = len(sizes.via) + 1 if sizes.via else sizes.stages
    if len(sliders) not in (1, stages):
        raise ValueError(f"--slider must name one value, or one for each of {stages} stages, got {slider!r}")
    if output.output is not None:
        from pixelsmith.io.writers import check_output

        check_output(output.output, 1, 1)
    return sliders


def join(device: str) -> tuple[ProcessRanks | None, str]:
    """Join the other processes of the run, before a model is loaded.

    Returns:
        The ranks, ``None`` for a single process; and the device of this process.

    Raises:
        ValueError: If there are several processes that cannot exchange values.
    """
    processes = join_processes(device)
    if processes.world_size == 1:
        return None, processes.device(device)
    if not processes.connected:
        raise ValueError(
            f"WORLD_SIZE is {processes.world_size}, but the processes cannot reach each other: "
            "start them with accelerate launch or torchrun"
        )
    from pixelsmith.core.ranks import ProcessRanks

    return ProcessRanks(), processes.device(device)


def run_job(request: JobRequest, plan: Callable[[JobModel], JobSpec], *, remarks: Sequence[str] = ()) -> int:
    """Run a job from the beginning, or from where its folder ends; skip it if its result exists.

    Args:
        request: Options of the command.
        plan: Function from the loaded model to the spec of the job.
        remarks: Sentences about the image, told once nothing can be refused any more.

    Returns:
        The exit code.
    """
    from pixelsmith.cli.report import report_estimate, report_skipped

    if request.output.output is not None:  # a first check, before the model is loaded
        refuse_existing(request.folder(request.output.output), request.output)
    outline = request.model.outline()
    if outline is not None:  # mistakes in sizes and settings, too
        check_outline(request, outline, plan(outline))
    ranks, device = join(request.model.device)
    model = replace(request.model, device=device).load()
    spec = replace(plan(model), canvas=request.output.canvas)
    for remark in remarks:
        warn(remark)
    target = request.target(spec.size)
    folder = request.folder(target)
    options = replace(request.output, output=target, job=folder)
    is_unfinished = (folder / "job.json").exists()
    if target.exists() and not (is_unfinished or options.overwrite or options.dry_run):
        record = ResultRecord([target])
        if record.is_done(request.model.digest(model, spec)):
            report_skipped(request.input, options)
            return 0
    if options.dry_run:
        report_estimate(model, spec, folder, target, json=options.json)
        return 0
    if ranks is None or ranks.index == 0:
        prepare_output(folder, options)
    notes = {
        "model": asdict(request.model), "spec": spec.to_dict(), "output": str(target), "keep": options.keep,
        "input": request.input,
    }  # fmt: skip
    return run_in_folder(model, spec, options, notes, ranks=ranks)


def check_outline(request: JobRequest, outline: Any, spec: JobSpec) -> None:
    """Check a job against the outline of its model.

    Raises:
        ValueError: If a size, the slider or the output does not fit.
    """
    from pixelsmith.core.steps import plan_steps
    from pixelsmith.io.writers import check_output
    from pixelsmith.job.spec import check_sizes, sized

    check_sizes(outline, spec)
    for number, size in enumerate(spec.sizes):
        config = spec.stage_config(number)
        patch = sized(outline, size, config)[1]
        plan_steps(config, outline.solver(patch[0] * patch[1]).num_steps, scale=spec.scale(number))
    check_output(request.target(spec.size), *spec.size)


def refuse_existing(folder: Path, options: JobOutput) -> None:
    """Refuse to replace a file that no such job wrote, unless ``--overwrite`` is given.

    Raises:
        FileExistsError: If such an output exists.
    """
    assert options.output is not None
    if not options.overwrite and not (folder / "job.json").exists():
        ResultRecord([options.output.absolute()]).is_done("")


def prepare_output(folder: Path, options: JobOutput) -> None:
    """Discard an earlier job if ``--overwrite`` is given, or refuse to replace a file.

    Raises:
        FileExistsError: If an output exists that may not be replaced.
        JobFolderError: If the earlier job is in use.
    """
    from pixelsmith.job import remove_job

    refuse_existing(folder, options)
    if options.overwrite and (folder / "job.json").exists():
        remove_job(folder)


def run_in_folder(
    model: JobModel,
    spec: JobSpec,
    options: JobOutput,
    notes: Mapping[str, Any],
    *,
    ranks: ProcessRanks | None,
) -> int:
    """Run a job to its end and report it; leave it resumable if it is stopped.

    Args:
        model: The model.
        spec: The job.
        options: Options with output and job folder.
        notes: Options that ``resume`` reads.
        ranks: Processes that share the patches.

    Returns:
        The exit code.
    """
    from pixelsmith.cli.report import report_progress, report_result
    from pixelsmith.core.protocol import StageInterrupted
    from pixelsmith.job import FolderStore, Job, assist, remove_job

    assert options.output is not None
    assert options.job is not None
    if ranks is not None and ranks.index:
        try:
            assist(model, spec, ranks)
        except StageInterrupted:
            return EXIT_INTERRUPTED
        return 0
    job = Job(
        model, spec, FolderStore(options.job), preview_every=10.0 if options.preview else None, ranks=ranks
    )
    found = job.check(options.output)
    record, digest = (
        ResultRecord([options.output]),
        ModelRequest.from_dict(notes["model"]).digest(model, spec),
    )
    record.begin(digest)
    cure = f"resume with: pixelsmith resume {options.job}"
    try:
        with report_progress([stage.calls for stage in found.stages]) as job.on_progress:
            result = job.run(options.output, notes=notes)
        record.complete(digest)
    except KeyboardInterrupt:
        warn(f"interrupted, nothing is lost; {cure}")
        return EXIT_INTERRUPTED
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        if options.debug:
            raise
        if options.json:
            emit(
                {
                    "input": notes["input"],
                    "status": "failed",
                    "error": explain(error),
                    "job": str(options.job),
                }
            )
        warn(f"{explain(error)}; {cure}")
        return EXIT_FAILED_ITEMS
    finally:
        record.discard_if_empty()
    if not options.keep:
        remove_job(options.job)
    report_result(result, notes["input"], options)
    return 0
