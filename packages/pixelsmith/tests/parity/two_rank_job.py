# SPDX-License-Identifier: Apache-2.0
"""Runs a job in two processes over gloo, stopped and resumed on the way; a program of its own: it forks.

Arguments: the conftest of the unit tests, and a folder. Prints one JSON object.
"""

import json
import os
import runpy
import sys
import zlib
from datetime import timedelta
from pathlib import Path

import numpy as np
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.core.ranks import ProcessRanks
from pixelsmith.job import FolderStore, Job, JobInterrupted, assist
from torch import distributed

STOPS = (("encode", 0), ("denoise", 0), ("decode", 0), ("denoise", 1), None)
SIZES = ((40, 44), (68, 76))


def rank_work(dummies, folder, index):
    """Do the job in five runs, of which four are stopped; report how each ended."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    ranks, ends, calls = ProcessRanks(), [], 0
    spec = dummies["spec"](sizes=SIZES, batch_size=2)
    for stop in STOPS:
        model = dummies["Dummy"]()
        try:
            if index:
                assist(model, spec, ranks)
            else:
                Job(
                    model, spec, FolderStore(folder / "job"), ranks=ranks,
                    on_progress=lambda p, stop=stop: (p.phase, p.stage) == stop and p.done > 2,
                ).run()  # fmt: skip
            ends.append("end")
        except (JobInterrupted, StageInterrupted) as stopped:
            ends.append(type(stopped).__name__)
        calls += sum(count for _, count in model.calls)
    (folder / f"report-{index}.json").write_text(json.dumps({"ends": ends, "calls": calls}))
    distributed.destroy_process_group()


def main():
    dummies, folder = runpy.run_path(sys.argv[1]), Path(sys.argv[2])
    children = []
    for index in (0, 1):
        child = os.fork()
        if child == 0:
            try:
                rank_work(dummies, folder, index)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    model = dummies["Dummy"]()
    expected, _ = dummies["finish"](folder / "single", model, sizes=SIZES)
    found = np.load(folder / "job" / "stage-01" / "image.npy")
    report = {
        "same": zlib.crc32(found.tobytes()) == zlib.crc32(expected.tobytes()),
        "calls": sum(count for _, count in model.calls),
        "ranks": [json.loads((folder / f"report-{index}.json").read_text()) for index in (0, 1)],
    }
    print(json.dumps(report))  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
