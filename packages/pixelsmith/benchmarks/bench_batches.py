# SPDX-License-Identifier: Apache-2.0
"""Times the loop around a small U-Net, patches one by one and in batches.

``python bench_batches.py --output results.json``: steps of a canvas of 64 x 64 cells with patches of 16 x 16,
by the shipped ``tiny-sdxl`` or, without it, by a U-Net of random weights. Runs alternate, medians count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from common_kernels.bench import describe_machine
from pixelsmith import JobConfig
from pixelsmith.adapters import load_model
from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel

SIDE = 64  # latents


def load(steps: int, device: str) -> JobModel:
    """Return the shipped model."""
    return load_model("tiny-sdxl", "a red circle", num_inference_steps=steps, device=device)


def time_batches(model: JobModel, sizes: Sequence[int], rounds: int) -> list[dict[str, float | int]]:
    """Run a stage with each batch size in turn.

    Returns:
        Per batch size: median seconds, speed over that of the first size, largest difference of the results.
    """
    config = JobConfig(patch=model.patch, patch_multiple=model.patch_multiple, slider=0.5)
    pixels = SIDE * model.vae_scale_factor
    clean = torch.randn(model.channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    denoiser = model.denoiser((pixels, pixels), (model.patch, model.patch))
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    results: dict[int, torch.Tensor] = {}
    for number in range(rounds + 1):
        for size in sizes:
            begin = time.perf_counter()
            results[size] = run_stage(denoiser, clean, replace(config, batch_size=size), scale=4.0).data
            if number:  # the first round warms up
                seconds[size].append(time.perf_counter() - begin)
    first = statistics.median(seconds[sizes[0]])
    return [
        {
            "batch_size": size,
            "seconds": round(statistics.median(seconds[size]), 3),
            "speed": round(first / statistics.median(seconds[size]), 3),
            "difference": float((results[size] - results[sizes[0]]).abs().max()),
        }
        for size in sizes
    ]


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.steps, options.device)
    rows = time_batches(model, (1, 2, 4, 8, 16), options.rounds)
    for row in rows:
        print(row)
    report = {
        "machine": asdict(describe_machine(model.device)),
        "model": model.name,
        "batches": rows,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
