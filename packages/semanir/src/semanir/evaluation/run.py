# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a network and classical methods on a folder of images, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common_kernels.runtime.images import ImageError
from common_kernels.runtime.processes import Processes
from common_kernels.runtime.rows import RowStore, row_name
from torch import Tensor

from semanir.data.folders import ImagePair
from semanir.evaluation.methods import make_test_image, run_baseline
from semanir.evaluation.protocol import Protocol
from semanir.metrics import psnr, psnr_b, rgb_to_y, ssim

Restore = Callable[[Tensor], Tensor]
"""Restores ``(C, H, W)``, fp32, nominally in [0, 1]."""

EQUAL_DB = 100.0  # stands for the infinite PSNR of equal images, which has no mean


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        images: ``{image: {method: {"psnr": dB, "ssim": value}}}``; for jpeg also ``"psnr_b"``.
        failures: ``{image: error}``.
    """

    images: Mapping[str, Mapping[str, Mapping[str, float]]]
    failures: Mapping[str, str]

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the images, by method."""
        rows = list(self.images.values())
        methods = list(rows[0]) if rows else []
        return {
            method: {
                metric: sum(row[method][metric] for row in rows) / len(rows) for metric in rows[0][method]
            }
            for method in methods
        }


def compare(restored: Tensor, clean: Tensor, protocol: Protocol) -> dict[str, float]:
    """Return PSNR, SSIM and, for jpeg, PSNR-B of ``(C, H, W)`` images by the rules of a protocol.

    Raises:
        ValueError: If the sizes differ, or nothing is left after the border is cut off.
    """
    if restored.shape != clean.shape:
        raise ValueError(
            f"the result must be {tuple(clean.shape)} as the clean image, got {tuple(restored.shape)}"
        )
    pair = [(image.double().clamp(0, 1) * 255).round() / 255 for image in (restored, clean)]
    if protocol.compares_luma and len(clean) == 3:
        pair = [rgb_to_y(image) for image in pair]
    border = protocol.border
    if border:
        pair = [image[:, border:-border, border:-border] for image in pair]
    if 0 in pair[0].shape:
        raise ValueError(f"nothing is left of {tuple(clean.shape[-2:])} pixels without a border of {border}")
    value = psnr(pair[0], pair[1]).clamp(max=EQUAL_DB)
    found = {"psnr": value.item(), "ssim": ssim(pair[0], pair[1], mode=protocol.ssim).item()}
    if protocol.task == "jpeg":
        found["psnr_b"] = psnr_b(pair[0], pair[1]).clamp(max=EQUAL_DB).item()
    return found


def evaluate(
    pairs: Sequence[ImagePair],
    protocol: Protocol,
    *,
    network: Restore | None = None,
    folder: str | Path,
    settings: Mapping[str, object],
    overwrite: bool = False,
    processes: Processes | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure on every image; called by every process with the same arguments, and resumed where it stopped.

    Args:
        pairs: Test images.
        protocol: Task and rules.
        network: Restores an image; ``None`` measures the classical methods alone.
        folder: Folder in which the figures of each image are kept; one whose files have changed is measured
            again.
        settings: What the figures depend on besides the protocol, such as a digest of the model.
        overwrite: Whether to discard the figures of earlier runs.
        processes: The joined processes; this one alone if ``None``.
        on_image: Called with images done and images in all, of this process.

    Returns:
        The figures of all processes. An image that cannot be used is among the failures.
    """
    processes = processes or Processes()
    store = RowStore(folder, settings={**settings, "protocol": protocol}, rank=processes.rank)
    if overwrite and processes.is_main:
        store.clear()
    processes.wait()
    wanted = {_key(pair): pair for pair in pairs}
    # the first one decides for all what is done, as others may already append
    done = processes.gather(set(store.read(wanted)))[0]
    shard = processes.shard([key for key in wanted if key not in done])
    failures: dict[str, str] = {}
    for number, key in enumerate(shard, 1):
        name = str(wanted[key].clean)
        try:
            store.append(key, _measure(wanted[key], protocol, network))
        except (ImageError, ValueError) as error:
            failures[name] = str(error) if name in str(error) else f"{name}: {error}"
        if on_image is not None:
            on_image(number, len(shard))
    everywhere = processes.gather(failures)
    rows = store.read(wanted)
    return Evaluation(
        {str(pair.clean): rows[key] for key, pair in wanted.items() if key in rows},
        {name: error for each in everywhere for name, error in each.items()},
    )


def _key(pair: ImagePair) -> str:
    # images inside an archive are known by their names
    return row_name(
        str(pair.clean), *(each for each in (pair.clean, pair.degraded) if isinstance(each, Path))
    )


def _measure(pair: ImagePair, protocol: Protocol, network: Restore | None) -> dict[str, dict[str, float]]:
    degraded, clean = make_test_image(pair, protocol)
    row = {
        name: compare(run_baseline(name, degraded, protocol), clean, protocol) for name in protocol.baselines
    }
    if network is not None:
        with torch.inference_mode():
            row["network"] = compare(network(degraded), clean, protocol)
    return row
