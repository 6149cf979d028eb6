# SPDX-License-Identifier: Apache-2.0
"""Runs a job in two processes over gloo, stopped and resumed on the way; a program of its own: it forks.

Arguments: the conftest of the unit tests, and a folder. Prints one JSON object.
"""

import json
import runpy
import sys
import zlib
from pathlib import Path

import numpy as np
from children import reports_of_two
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.core.ranks import ProcessRanks
from pixelsmith.job import FolderStore, Job, JobInterrupted, assist

STOPS = (("encode", 0), ("denoise", 0), ("decode", 0), ("denoise", 1), None)
SIZES = ((40, 44), (68, 76))


def rank_work(dummies, folder, index):
    """Do the job in five runs, of which four are stopped; report how each ended."""
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
    return {"ends": ends, "calls": calls}


def main():
    dummies, folder = runpy.run_path(sys.argv[1]), Path(sys.argv[2])
    ranks = reports_of_two(lambda index: rank_work(dummies, folder, index), folder)
    model = dummies["Dummy"]()
    expected, _ = dummies["finish"](folder / "single", model, sizes=SIZES)
    found = np.load(folder / "job" / "stage-01" / "image.npy")
    report = {
        "same": zlib.crc32(found.tobytes()) == zlib.crc32(expected.tobytes()),
        "calls": sum(count for _, count in model.calls),
        "ranks": ranks,
    }
    print(json.dumps(report))  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
