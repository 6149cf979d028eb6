# SPDX-License-Identifier: Apache-2.0
"""Counts, times and weighs the loop around a model that does nothing.

``python bench_loop.py --output results.json``: patches per step by size and plan; time of the loop per patch
at 4096 x 4096 pixels, in RAM and in a job folder, set against the 0.286 s that one call of SDXL takes on the
card of the paper; growth of the process's own memory from 2048^2 to 16384^2 pixels with mapped files.
``--full`` counts more steps and takes a whole run at 16384^2 instead of one step.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common_kernels.bench import describe_machine
from pixelsmith import Canvas, JobConfig
from pixelsmith.core.engine import run_stage
from pixelsmith.core.plan import make_plan
from pixelsmith.core.protocol import Progress
from pixelsmith.store import FolderStage, MemoryStage
from torch import Tensor

SDXL = JobConfig(patch=128, slider=0.4)
CALL_SECONDS = 0.286  # (50 + 404) calls in 130 s at 2048^2, RTX 3090, from the table of the paper
SIZES = (1024, 1536, 2048, 3072, 4096, 8192, 16384, 31616)


@dataclass(frozen=True, slots=True)
class Calls:
    """Patches per step.

    Attributes:
        pixels: Side of the image.
        cover: Mean of the random cover.
        cover_range: Fewest and most.
        jitter: Mean of the jittered grid.
        grid: Patches of the fixed grid.
    """

    pixels: int
    cover: float
    cover_range: tuple[int, int]
    jitter: float
    grid: int


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time of the loop.

    Attributes:
        store: Store of the canvases.
        device: Device of the patches.
        batch_size: Patches per call.
        guided: Whether the steps fuse and mask.
        wall_ms: Milliseconds per patch, median over steps; means little on a machine with other work.
        cpu_ms: Processor time per patch.
        share: ``cpu_ms`` as a share of itself and one call of the paper's model.
    """

    store: str
    device: str
    batch_size: int
    guided: bool
    wall_ms: float
    cpu_ms: float
    share: float


class Idle:
    """A model that takes no time: it predicts no noise, and every step keeps the value."""

    multistep = False

    def __init__(self, num_steps: int, device: str = "cpu") -> None:
        self.num_steps = num_steps
        self.device = torch.device(device)

    def initial(self, noise: Tensor) -> Tensor:
        """Return the noise."""
        return noise

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Mix by the share of steps done."""
        return torch.lerp(noise, clean, step / self.num_steps)

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the patches themselves."""
        return x

    def advance(
        self, x: Tensor, prediction: Tensor, step: int, previous: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the patches themselves."""
        return prediction, None


def count_calls(pixels: int, steps: int, seeds: int) -> Calls:
    """Draw plans of several steps and seeds."""
    side = pixels // 8
    counts = {
        plan: [
            len(make_plan(replace(SDXL, plan=plan, seed=seed), side, side, step))
            for seed in range(seeds)
            for step in range(steps)
        ]
        for plan in ("cover", "jitter", "grid")
    }
    cover = counts["cover"]
    means = {plan: round(statistics.mean(found), 2) for plan, found in counts.items()}
    return Calls(pixels, means["cover"], (min(cover), max(cover)), means["jitter"], counts["grid"][0])


def time_loop(store: str, guided: bool, batch_size: int, steps: int, device: str) -> Overhead:
    """Run some steps at 4096 x 4096 pixels."""
    config = replace(SDXL, slider=1.0 if guided else 0.0, batch_size=batch_size)
    clean = torch.randn(4, 512, 512, generator=torch.Generator().manual_seed(0)).to(device)
    wall, cpu = [], []
    marks = [(time.perf_counter(), time.process_time())]

    def on_step(progress: Progress, canvas: Canvas) -> None:
        if canvas.data.is_cuda:
            torch.cuda.synchronize()
        now, used = time.perf_counter(), time.process_time()
        wall.append((now - marks[-1][0]) / progress.total)
        cpu.append((used - marks[-1][1]) / progress.total)
        marks.append((now, used))

    denoiser = Idle(steps + 2, device)
    with tempfile.TemporaryDirectory() as folder:
        kept = FolderStage(Path(folder)) if store == "folder" else MemoryStage(device)
        run_stage(
            denoiser,
            clean,
            config,
            store=kept,
            on_step=on_step,
        )
    # the first step makes the noise, the last guided one has no mask
    middle, used = statistics.median(wall[1:-1]), statistics.median(cpu[1:-1])
    share = used / (used + CALL_SECONDS)
    return Overhead(
        store, device, batch_size, guided, round(1e3 * middle, 3), round(1e3 * used, 3), round(share, 5)
    )


def own_memory() -> int:
    """Return the resident bytes that belong to no file (Linux)."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[0]) << 10


def peak_memory(pixels: int, steps: int) -> int:
    """Return the most own memory of a run of one process with mapped files, in bytes."""
    side, peak = pixels // 8, [own_memory()]

    def watch(progress: Progress) -> None:
        if progress.done % 16 == 1:
            peak.append(own_memory())

    with tempfile.TemporaryDirectory() as folder:
        store = FolderStage(Path(folder), durable=False)
        (clean,) = store.canvases(("clean",), 4, side, side)
        run_stage(Idle(steps), clean, replace(SDXL, slider=1.0), store=store, on_patch=watch)
    return max(peak)


def peak_memory_apart(pixels: int, steps: int) -> int:
    """Return :func:`peak_memory` of a process of its own."""
    command = [sys.executable, __file__, "--weigh", str(pixels), "--steps", str(steps)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cpu", help="of the patches and of canvases in memory")
    parser.add_argument("--steps", type=int, default=4, help="steps per timing")
    parser.add_argument("--full", action="store_true", help="count and weigh over more steps")
    parser.add_argument("--weigh", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weigh is not None:
        print(peak_memory(options.weigh, options.steps))
        return
    calls = [
        count_calls(pixels, *((50, 10) if options.full and pixels < 5000 else (4, 1))) for pixels in SIZES
    ]
    for row in calls:
        print(row)
    overheads = [
        time_loop(store, guided, batch_size, options.steps, options.device)
        for store in ("memory", "folder")
        for guided in (True, False)
        for batch_size in (1, 8)
    ]
    for overhead in overheads:
        print(overhead)
    memory = {}
    if Path("/proc/self/status").exists():
        memory = {
            pixels: peak_memory_apart(pixels, 4 if options.full else 1) for pixels in (2048, 8192, 16384)
        }
        print(f"own memory grows by {(memory[16384] - memory[2048]) / 1e6:.0f} MB from 2048^2 to 16384^2")
    if options.output is not None:
        report = {
            "machine": asdict(describe_machine(torch.device(options.device))),
            "calls": [asdict(row) for row in calls],
            "overhead": [asdict(row) for row in overheads],
            "own_memory_bytes": memory,
        }
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
