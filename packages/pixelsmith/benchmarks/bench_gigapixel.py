# SPDX-License-Identifier: Apache-2.0
"""Runs a whole job at the size of the paper, 31616 x 31616 pixels, around a model that does nothing.

``python bench_gigapixel.py --folder work --output results.json``: from an image of 1024 x 1024 pixels to a
tiled BigTIFF, through every part that is ours: Lanczos, tiles, journal, patches, decoding, pyramid. The
denoiser keeps what it gets and the autoencoder takes means, so the right result is known, and the file is
held against it. ``--side`` and ``--steps`` make it smaller.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tifffile
import torch
from common_kernels.bench import describe_machine
from pixelsmith import JobConfig
from pixelsmith.io.lanczos import Resized
from pixelsmith.job import FolderStore, Job, JobProgress, JobSpec, estimate
from pixelsmith.store.rows import ArrayRows
from torch import Tensor, nn

BASE = 1024


class Means(nn.Module):
    """An autoencoder without a network: the first three channels of a cell are the mean of 8 x 8 pixels."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.config = {
            "block_out_channels": (1,) * 4, "latent_channels": 4, "scaling_factor": 1.0, "sample_size": 1024,
        }  # fmt: skip

    def encode(self, x: Tensor) -> SimpleNamespace:
        """Take means."""
        return SimpleNamespace(latents=nn.functional.pad(nn.functional.avg_pool2d(x, 8), (0, 0, 0, 0, 0, 1)))

    def decode(self, z: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """Repeat them."""
        return (nn.functional.interpolate(z[:, :3], scale_factor=8.0, mode="nearest"),)


class Keeping:
    """A denoiser whose every level is the clean image."""

    multistep, device = False, torch.device("cpu")

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def initial(self, noise: Tensor) -> Tensor:
        """Return the noise."""
        return noise

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return the clean latents."""
        return clean

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the patches themselves."""
        return x

    def advance(
        self, x: Tensor, prediction: Tensor, step: int, previous: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the patches themselves."""
        return x, None


class Nothing:
    """A model of the sizes of SDXL that does nothing."""

    name, channels, vae_scale_factor, patch, patch_multiple = "nothing", 4, 8, 128, 4
    device = torch.device("cpu")

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.vae = Means()

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> Keeping:
        """Return the denoiser."""
        return Keeping(self.num_steps)

    def base_image(self, size: tuple[int, int], seed: int) -> np.ndarray:
        """Return rings of colour."""
        rows, columns = (np.linspace(-1, 1, side) for side in size)
        radius = np.sqrt(rows[:, None] ** 2 + columns**2)
        rings = [127.5 + 120 * np.sin(radius * 40 + shift) for shift in (0, 2, 4)]
        return np.stack(rings, axis=-1).astype(np.uint8)

    def describe(self) -> dict[str, object]:
        """Return the name and the number of steps."""
        return {"model": self.name, "num_steps": self.num_steps}


class Watch:
    """Notes the time of each phase and, meanwhile, the most memory that belongs to no file (Linux)."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.phases: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._phase, self._since = "start", self.begin
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __call__(self, progress: JobProgress) -> None:
        """Note a change of phase."""
        if progress.phase != self._phase:
            self._turn(progress.phase)
            print(progress.phase, f"{time.perf_counter() - self.begin:.0f} s", flush=True)

    def _turn(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[self._phase] = self.phases.get(self._phase, 0) + now - self._since
        self._phase, self._since = phase, now

    def _sample(self) -> None:
        status = Path("/proc/self/status")
        while not self._stop.wait(0.2):
            held = int(re.findall(r"^RssAnon:\s+(\d+) kB", status.read_text("utf-8"), re.MULTILINE)[0]) << 10
            self.peaks[self._phase] = max(self.peaks.get(self._phase, 0), held)

    def end(self) -> None:
        """Stop sampling."""
        self._turn("end")
        self._stop.set()
        self._thread.join()


def check_file(path: Path, base: np.ndarray, side: int, samples: int) -> dict[str, object]:
    """Compare random tiles of the file with the enlarged image, and its pyramid with the sizes."""
    draw = np.random.default_rng(0)
    enlarged = Resized(ArrayRows(base), (side, side))
    largest = 0.0
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        levels = [level.shape[:2] for level in file.series[0].levels]
        across = -(-side // page.tilewidth)
        for _ in range(samples):
            row, column = draw.integers(0, side // page.tilelength), draw.integers(0, side // page.tilewidth)
            index = int(row * across + column)
            file.filehandle.seek(page.dataoffsets[index])
            tile, _, _ = page.decode(file.filehandle.read(page.databytecounts[index]), index)
            top, left = int(row) * page.tilelength, int(column) * page.tilewidth
            strip = enlarged.read(top, top + page.tilelength)[:, left : left + page.tilewidth].astype(float)
            height, width = strip.shape[0] // 8, strip.shape[1] // 8
            means = strip.reshape(height, 8, width, 8, 3).mean(axis=(1, 3)).repeat(8, 0).repeat(8, 1)
            largest = max(largest, float(np.abs(tile[0] - means).max()))
        return {
            "bigtiff": file.is_bigtiff,
            "levels": [list(shape) for shape in levels],
            "tiles_compared": samples,
            "largest_error": largest,
        }


def main() -> None:
    """Run the job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the job and the file; 10 GB")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--side", type=int, default=31616)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--plan", choices=("cover", "jitter", "grid"), default="cover")
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    model, size = Nothing(options.steps), (options.side, options.side)
    config = JobConfig(patch=128, patch_multiple=4, plan=options.plan, batch_size=options.batch_size)
    spec = JobSpec(sizes=(size,), source_size=(BASE, BASE), config=config, canvas="float16")
    options.folder.mkdir(parents=True, exist_ok=True)
    target = options.folder / "result.tif"
    found = estimate(model, spec, target)
    watch = Watch()
    result = Job(model, spec, FolderStore(options.folder / "job"), on_progress=watch).run(target)
    watch.end()
    report = {
        "machine": asdict(describe_machine(torch.device("cpu"))),
        "side": options.side,
        "steps": options.steps,
        "plan": options.plan,
        "calls": result.calls,
        "estimate": found.to_dict(),
        "seconds": {phase: round(value, 1) for phase, value in watch.phases.items()},
        "seconds_in_all": round(result.seconds, 1),
        "own_memory_bytes": watch.peaks,
        "file_bytes": target.stat().st_size,
        "file": check_file(target, model.base_image((BASE, BASE), 0), options.side, 24),
    }
    print(json.dumps(report, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    shutil.rmtree(options.folder / "job")


if __name__ == "__main__":
    main()
