# SPDX-License-Identifier: Apache-2.0
"""``semanir evaluate``: figures on a test set, beside classical methods and published ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Device, Output, emit, progress, show, warn
from common_kernels.runtime.files import write_json
from common_kernels.runtime.fingerprint import digest_model, digest_settings
from common_kernels.runtime.hub import resolve_device
from common_kernels.runtime.processes import Processes, join_processes
from cyclopts import Group, Parameter

from semanir.evaluation.protocol import Protocol
from semanir.options import RestoreOptions
from semanir.weights import find_folder

if TYPE_CHECKING:
    from semanir.data.folders import ImagePair
    from semanir.evaluation.run import Evaluation, Restore


@Parameter(name="*", group=Group("Test set", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """Test images.

    Attributes:
        data: Folder of the clean images, or a pattern of folders.
        degraded: Folder of the degraded images, for deblur and weather, and where they are not to be made.
        degraded_suffix: Regular expression of what the names of degraded files end with, such as x4.
        clean_suffix: The same of the clean files.
        name: Name of the test set, such as Set5, for published figures; by default that of the folder.
    """

    data: str
    degraded: str | None = None
    degraded_suffix: str = ""
    clean_suffix: str = ""
    name: str | None = None

    def find(self, protocol: Protocol) -> list[ImagePair]:
        """Return the images.

        Raises:
            ValueError: If there are none, or the task needs degraded ones.
        """
        from semanir.data.folders import PairedFolders, find_images, find_pairs

        if self.degraded is None:
            if not protocol.makes_input:
                raise ValueError(f"--degraded must name the degraded images of {protocol.task}")
            return find_images([self.data], least=protocol.factor)
        source = PairedFolders(
            degraded=self.degraded,
            clean=self.data,
            degraded_suffix=self.degraded_suffix,
            clean_suffix=self.clean_suffix,
        )
        return find_pairs([source], scale=protocol.factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOutput(Output):
    """Where the figures are kept, and how they are reported.

    Attributes:
        output: Folder of the figures of each image and of the result.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("semanir-eval")


def evaluate(
    *,
    protocol: Annotated[Protocol, Parameter(name="*", group=Group("Protocol", sort_key=2))] = Protocol(),
    data: TestSet,
    output: EvaluationOutput = EvaluationOutput(),
    device: Device = Device(),
    model: str = "tiny-denoise",
    k: int | None = None,
) -> int:
    """Measure PSNR and SSIM on a test set, beside classical methods and what was published.

    Each image is degraded by the rule of its task, restored, clipped, rounded to 8 bits and compared; the
    figures are means over the images. `--model none` measures the classical methods alone, by which a test
    set is checked against published figures without any network. A run that was stopped is resumed by the
    same command. Under `accelerate launch` or `torchrun` the processes share the images.

    **Examples**

        semanir evaluate --task denoise --sigma 25 --data CBSD68/
        semanir evaluate --task jpeg --quality 10 --data LIVE1/ --model none --json
        semanir evaluate --task sr --scale 4 --data Set5/ --model runs/x4/model --ssim grl
        semanir evaluate --task deblur --data "GoPro/test/*/sharp" --degraded "GoPro/test/*/blur"

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

    Args:
        model: Shipped name, folder, or hub id; none for the classical methods alone.
        k: Keys per token; by default the number of the network.
    """
    if device.device not in ("auto", "cpu"):
        resolve_device(device.device)
    from semanir.evaluation.run import evaluate as measure

    options = RestoreOptions(k=k)
    pairs = data.find(protocol)
    folder = None if model == "none" else find_folder(model)
    processes = join_processes(device.device)
    network = None if folder is None else _load(folder, options, protocol, device, processes)
    settings: dict[str, object] = {
        "model": None if folder is None else digest_model(folder),
        "k": k,
        "dtype": device.dtype,
        "degraded": data.degraded,
    }
    place = output.output / f"{protocol.task}-{digest_settings([settings, protocol, data.data])[:12]}"
    with progress("images") as advance:
        found = measure(
            pairs,
            protocol,
            network=network,
            folder=place,
            settings=settings,
            overwrite=output.overwrite,
            processes=processes,
            on_image=advance if processes.is_main else None,
        )
    if processes.is_main:
        for error in found.failures.values():
            warn(error)
        _report(found, protocol, data, model, place, json=output.json)
    processes.wait()
    return int(bool(found.failures))


def _load(
    folder: Path, options: RestoreOptions, protocol: Protocol, device: Device, processes: Processes
) -> Restore:
    """Return the function that restores a tensor.

    Raises:
        ValueError: If the network is one of another scale.
    """
    from semanir.restorer import Restorer

    restorer = Restorer.from_pretrained(folder, device=processes.device(device.device), dtype=device.dtype)
    upscale = restorer.model.config.upscale
    if upscale != protocol.factor:
        raise ValueError(
            f"{folder} enlarges {upscale} times, but --task {protocol.task} {protocol.setting} "
            f"needs {protocol.factor}"
        )
    return lambda degraded: restorer.restore(degraded, options)


def _report(
    found: Evaluation, protocol: Protocol, data: TestSet, model: str, place: Path, *, json: bool
) -> None:
    """Print the means beside published figures, and keep them with those of the images."""
    from rich.table import Table

    from semanir.evaluation.published import published

    name = data.name or Path(data.data).name
    others = published(protocol.task, protocol.setting, name)
    result: dict[str, object] = {
        "task": protocol.task,
        "setting": protocol.setting,
        "set": name,
        "model": model,
        "ssim_mode": protocol.ssim,
        "num_images": len(found.images),
        "means": found.means,
        "failed": dict(found.failures),
        "published": [
            {"method": e.method, "psnr": e.psnr, "ssim": e.ssim, "source": e.source} for e in others
        ],
    }
    write_json(place / "result.json", {**result, "images": found.images})
    if json:
        emit(result)
        return
    title = f"{name}: {protocol.task} {protocol.setting}, {len(found.images)} images"
    has_blocks = protocol.task == "jpeg"
    table = Table(
        "", "PSNR (dB)", f"SSIM ({protocol.ssim})", *["PSNR-B (dB)"] * has_blocks, "source", title=title
    )
    for method, row in found.means.items():
        blocks = [f"{row['psnr_b']:.2f}"] if has_blocks else []
        label = model if method == "network" else method
        table.add_row(label, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", *blocks, "measured here")
    for each in others:
        similarity = "-" if each.ssim is None else f"{each.ssim:.4f} (grl)"
        table.add_row(each.method, f"{each.psnr:.2f}", similarity, *["-"] * has_blocks, each.source)
    show(table)
