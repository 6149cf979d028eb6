# SPDX-License-Identifier: Apache-2.0
"""Runs a stage in two processes over gloo, from scratch and resumed; a program of its own, because it forks.

Arguments: the conftest of the tests, and a folder. Prints one JSON object.
"""

import hashlib
import json
import runpy
import sys
from pathlib import Path

from children import reports_of_two
from pixelsmith.core.engine import run_stage
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.core.ranks import ProcessRanks
from pixelsmith.store import FolderStore

CASES = [("Mixing", "parallel", 2), ("TwoStep", "parallel", 3), ("Mixing", "official", 1)]


def digest(canvas):
    return hashlib.sha256(canvas.data.numpy().tobytes()).hexdigest()


def work(toys, model, mode, batch_size, **more):
    denoiser = toys[model](4)
    config = toys["job"](slider=3, mode=mode, batch_size=batch_size)
    return digest(run_stage(denoiser, toys["latents"](2, 33, 30), config, **more)), len(denoiser.batches)


def rank_work(toys, folder, index):
    """Do every case in one of two processes; from the second run on, process 0 has a journal to resume."""
    ranks, report = ProcessRanks(), []
    for number, case in enumerate(CASES):
        found, calls = work(toys, *case, ranks=ranks)
        job = FolderStore(folder / f"job-{number}-{index}")
        keep = {"store": job.stage(0)} if index == 0 else {}
        stopped = False
        try:
            # only process 1 asks to stop
            work(toys, *case, ranks=ranks, on_patch=lambda p: index == 1 and p.calls == 14, **keep)
        except StageInterrupted:
            stopped = True
        keep = {"store": job.stage(0)} if index == 0 else {}
        resumed, calls_left = work(toys, *case, ranks=ranks, **keep)
        report.append(
            {"found": found, "calls": calls, "stopped": stopped, "resumed": resumed, "left": calls_left}
        )
    return report


def main():
    toys, folder = runpy.run_path(sys.argv[1]), Path(sys.argv[2])
    ranks = reports_of_two(lambda index: rank_work(toys, folder, index), folder)
    single = [work(toys, model, mode, 1) for model, mode, _ in CASES]
    print(json.dumps({"single": single, "ranks": ranks}))  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
