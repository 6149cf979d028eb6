# SPDX-License-Identifier: Apache-2.0
"""``diffeat extract``: features of many images, to a store that can be resumed or to one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.cli import OnProgress, Report, emit, explain, progress, warn
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Machine, Selection, find_images, load_extractor, note, plural
from diffeat.store.options import StoredDtype, StoreOptions

if TYPE_CHECKING:
    from common_kernels.runtime.processes import Processes

    from diffeat.extractor import FeatureExtractor
    from diffeat.options import ExtractionOptions
    from diffeat.store.report import ItemResult

_FILE = ".safetensors"
_OTHER_FILES = {".npy", ".npz", ".pt", ".pth", ".bin", ".h5", ".zip", ".json", ".png", ".jpg", ".jpeg"}


@Parameter(name="*", group=Group("Output", sort_key=9))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutput(Report):
    """Where features are written.

    Attributes:
        output: Folder of a store (or an address such as s3://...), or a .safetensors file for a small run.
        overwrite: Discard earlier features of the same settings.
    """

    output: Annotated[str, Parameter(alias="-o")]
    overwrite: Annotated[bool, Parameter(negative="")] = False

    @property
    def is_file(self) -> bool:
        """Whether features are written to one file."""
        return self.output.endswith(_FILE)

    def check(self, images: Sequence[Path], inputs: Sequence[str], storage: StoreOptions) -> None:
        """Refuse a place of the output before anything is loaded.

        Raises:
            ValueError: If the output would fall among the images or on another file, or one file is to be
                pooled, projected or rounded.
        """
        if "://" in self.output:
            return
        place = Path(self.output)
        if place.resolve() in {Path(each).resolve() for each in inputs if Path(each).is_dir()}:
            raise ValueError(f"{place} holds the images: give another folder, such as {place / 'features'}")
        if place.resolve() in {path.resolve() for path in images}:
            raise ValueError(f"{place} is one of the images: give a folder or a {_FILE} file")
        if not self.is_file and (place.is_file() or place.suffix.lower() in _OTHER_FILES):
            raise ValueError(f"{place} must be the folder of a store or a {_FILE} file")
        if self.is_file and place.is_dir():
            raise ValueError(f"{place} is a folder: give a file of another name")
        if self.is_file and (storage.pool, storage.pca, storage.quantize) != (None, None, False):
            raise ValueError(f"{place} is one file: --pool, --pca and --quantize need the folder of a store")


@Parameter(name="*", group=Group("Storage", sort_key=8))
@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(StoreOptions):
    """The options of a store under the names of the command line.

    Attributes:
        dtype: Dtype of the features as they are read.
        pool: Average or maximum over the image, or number of cells per side of a grid of averages.
        pca: Number of principal components kept of the channels.
        quantize: Keep 8-bit integers, with a scale for each image and channel.
    """

    dtype: Annotated[StoredDtype, Parameter(name="--store-dtype")] = "float16"
    pool: Annotated[Literal["mean", "max"] | int | None, Parameter(metavar="mean|max|CELLS")] = None
    pca: int | None = None
    quantize: Annotated[bool, Parameter(negative="")] = False

    def plain(self) -> StoreOptions:
        """Return the options of the Python API."""
        return StoreOptions(**{each.name: getattr(self, each.name) for each in fields(self)})


def extract(
    inputs: list[str],
    /,
    *,
    output: StoreOutput,
    selection: Selection = Selection(),
    options: Extraction = Extraction(),
    storage: Stored = Stored(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
    recursive: Annotated[bool, Parameter(alias="-r", negative="")] = False,
) -> int:
    """Extract activations of a diffusion model as features of images.

    Images are encoded, noised to a timestep and passed through the denoiser once, which stops after the last
    requested activation. Choose activations by --names (names, globs), by --preset, or both.

    A store holds one sharded zarr array per activation. Finished features are not computed again, and a run
    that was killed resumes; under accelerate launch -m diffeat extract the processes share the images.
    Features of other settings go to a store of their own inside the folder. "diffeat search" finds images in
    it.

    **Examples**

        diffeat extract photos/ --model path/to/sdxl --preset Ours-XL -o features/
        diffeat extract photos/ -r --model path/to/sd15 -n "up-level1-*-cross-q" -t 50 -t 261 -o features/
        diffeat extract photos/ --model path/to/sdxl -p Ours-XL --pool mean --quantize -o small/
        accelerate launch --num_processes 4 -m diffeat extract photos/ -p Ours-XL -o features/
        diffeat extract cat.jpg -n up-cross-attn --heads mean --tokens 1 -o cat.safetensors

    Args:
        inputs: Files, folders, or quoted globs.
        model: Shipped name, folder or hub id of a pipeline.
        recursive: Whether to search folders below a folder.
    """
    names = selection.chosen()
    images = find_images(inputs, recursive=recursive)
    output.check(images, inputs, storage)
    from diffeat.names.request import resolve

    processes = _join(machine)
    if output.is_file and processes.world_size > 1:
        raise ValueError(f"{output.output} is one file: give the folder of a store to several processes")
    extractor = load_extractor(model, machine, device=processes.device(machine.device))
    resolve(extractor.model, names)  # a wrong name is an error before anything is written
    reporter = _Reporter(output)
    run = _fill_file if output.is_file else _fill_store
    with progress("batches") as bar:
        task = _Task(
            extractor,
            images,
            names,
            options.plain(),
            storage.plain(),
            machine.batch_size,
            processes,
            bar,
        )
        run(task, reporter)
    return int(any(processes.gather(reporter.failed)))


def _join(machine: Machine) -> Processes:
    """Join the other processes of a launch; a device that is not there is refused first."""
    from common_kernels.runtime.hub import resolve_device
    from common_kernels.runtime.processes import join_processes

    resolve_device(machine.device)
    return join_processes(machine.device)


@dataclass(frozen=True, slots=True)
class _Task:
    """Inputs and options of one extraction."""

    extractor: FeatureExtractor
    images: Sequence[Path]
    names: Sequence[str]
    options: ExtractionOptions
    storage: StoreOptions
    batch_size: int
    processes: Processes
    on_batch: OnProgress


class _Reporter:
    """Names failed images on stderr, and prints a JSON object for each image with --json."""

    def __init__(self, output: StoreOutput) -> None:
        self.output = output
        self.place = output.output
        self.failed = 0

    def __call__(self, result: ItemResult) -> None:
        error = None if result.error is None else explain(result.error)
        if result.error is not None and self.output.debug:
            raise result.error
        if error is not None:
            self.failed += 1
            warn(error if str(result.image) in error else f"{result.image}: {error}")
        if self.output.json:
            entry = {
                "input": str(result.image),
                "output": self.place,
                "status": result.status,
                "seconds": round(result.seconds, 3),
            }
            emit(entry if error is None else {**entry, "error": error})


def _fill_store(task: _Task, reporter: _Reporter) -> None:
    from diffeat.store.report import FillReport
    from diffeat.store.store import FeatureStore

    output = reporter.output
    store = FeatureStore.at(output.output, task.extractor, task.options, storage=task.storage)
    reporter.place = store.url
    own = store.add(
        task.extractor,
        task.images,
        task.names,
        task.options,
        storage=task.storage,
        batch_size=task.batch_size,
        overwrite=output.overwrite,
        on_batch=task.on_batch,
        on_item=reporter,
        processes=task.processes,
    )
    reports = task.processes.gather(own)
    if not task.processes.is_main:
        return
    report = FillReport.of_all(reports)
    if store.names:
        store.compact()
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    held = f"{plural(len(store.names), 'activation')} in {store.url}" if store.names else "nothing is written"
    failed = f", {report.failed} failed" if report.failed else ""
    note(
        f"{plural(report.computed, 'image')} computed, {report.cached} cached{failed}, in "
        f"{report.seconds:.1f} s ({shares} of the time); {held}"
    )


def _fill_file(task: _Task, reporter: _Reporter) -> None:
    """Extract all readable images at once, unless the file already holds the same features."""
    import torch
    from common_kernels.runtime.fingerprint import digest_settings

    from diffeat.hooks.collector import Storage
    from diffeat.images import load_images
    from diffeat.store.files import read_digest, save_features
    from diffeat.store.ledger import content_key
    from diffeat.store.report import ItemResult
    from diffeat.store.settings import Settings

    output = reporter.output
    began = time.perf_counter()
    settings = Settings.of(task.extractor, task.options, task.storage)
    found: dict[Path, str] = {}
    for path in task.images:
        try:
            next(load_images(path))  # decoded twice, so that all of them are never in memory
            found[path] = content_key(path)[0]
        except (ValueError, OSError) as error:
            reporter(ItemResult(image=path, status="failed", error=error))
    keys = list(found.values())
    digest = digest_settings([settings.digest, list(task.names), task.options.prompt, keys])
    is_there = not output.overwrite and read_digest(output.output) == digest
    if found and not is_there:
        features = task.extractor(
            list(found),
            task.names,
            task.options,
            batch_size=task.batch_size,
            storage=Storage(device="cpu", dtype=getattr(torch, task.storage.dtype)),
            on_batch=task.on_batch,
        )
        save_features(features, output.output, digest=digest)
        note(f"{plural(len(found), 'image')}, {plural(len(features), 'activation')} in {output.output}")
    seconds = (time.perf_counter() - began) / max(1, len(found))
    for path in found:
        reporter(ItemResult(image=path, status="skipped" if is_there else "done", seconds=seconds))
