# SPDX-License-Identifier: Apache-2.0
"""Kills runs of a stage at random lines of its code and resumes them; a program of its own, because it forks.

Arguments: the conftest of the tests, a folder, a seed, the number of kills. Prints one JSON object.
"""

import hashlib
import json
import os
import random
import runpy
import sys
from pathlib import Path

from children import Fuse, is_killed, kill
from pixelsmith.core.engine import run_stage
from pixelsmith.store import FolderStore

MODELS = ("Mixing", "TwoStep", "Coupled")
TRACED = (f"pixelsmith{os.sep}core{os.sep}", f"pixelsmith{os.sep}store{os.sep}")


def work(toys, folder, model, on_patch=None):
    denoiser = toys[model](3)
    batch_size = 4 if model == "Coupled" else 2
    mode = "official" if model == "Mixing" else "parallel"
    config = toys["job"](slider=2, mode=mode, batch_size=batch_size)
    canvas = run_stage(
        denoiser, toys["latents"](2, 24, 30), config, on_patch=on_patch,
        store=FolderStore(folder, checkpoint_every=4).stage(0),
    )  # fmt: skip
    return hashlib.sha256(canvas.data.numpy().tobytes()).hexdigest(), len(denoiser.batches)


def killed(toys, folder, model, line):
    """Return whether a child that runs until ``line`` was killed there."""
    return is_killed(lambda: work(toys, folder, model), Fuse(TRACED, line))


def killed_after(toys, folder, model, patch):
    """Kill a child after a number of patches; whether it came so far."""
    return is_killed(lambda: work(toys, folder, model, lambda p: p.calls == patch and kill()))


def main():
    toys, folder = runpy.run_path(sys.argv[1]), Path(sys.argv[2])
    draw, kills = random.Random(int(sys.argv[3])), int(sys.argv[4])
    report = {"kills": 0, "different": 0, "calls": [], "patches": {}}
    for model in MODELS:
        count = Fuse(TRACED)
        sys.settrace(count)
        expected, _ = work(toys, folder / f"whole-{model}", model)
        sys.settrace(None)
        patch = 1
        while killed_after(toys, folder / f"{model}-after-{patch}", model, patch):
            found, _ = work(toys, folder / f"{model}-after-{patch}", model)
            report["different"] += found != expected
            patch += 1
        report["patches"][model] = patch - 1
        for attempt in range(kills // len(MODELS)):
            place = folder / f"{model}-{attempt}"
            report["kills"] += killed(toys, place, model, draw.randint(1, count.lines))
            # and once more while resuming
            report["kills"] += killed(toys, place, model, draw.randint(1, count.lines // 2))
            found, calls = work(toys, place, model)
            report["different"] += found != expected
            report["calls"].append(calls)
    print(json.dumps(report))  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
