# SPDX-License-Identifier: Apache-2.0
"""Kills whole jobs at random lines of their code and resumes them; a program of its own, because it forks.

Arguments: the conftest of the unit tests, a folder, a seed, the number of kills. Prints one JSON object.
"""

import hashlib
import json
import os
import random
import runpy
import sys
from pathlib import Path

from children import Fuse, is_killed
from pixelsmith.io.vips import find_vips

TRACED = tuple(f"pixelsmith{os.sep}{name}{os.sep}" for name in ("core", "io", "job", "store"))
NAMES = ("a.png", "a.tif", "a.dzi")


def work(dummies, folder, name):
    """Run the rest of a job of two stages; return a digest of all output, and the calls it took."""
    model = dummies["Dummy"]()
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    sizes = ((40, 44), (68, 76))
    dummies["finish"](folder / "job", model, output=out / name, sizes=sizes, batch_size=2, mode="official")
    total = hashlib.sha256()
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(out)).encode() + file.read_bytes())
    return total.hexdigest(), sum(count for _, count in model.calls)


def in_child(call):
    """Return what a function returns in a child: libvips has threads, which would be missing after a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(call()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text)


def count_lines(dummies, folder, name):
    count = Fuse(TRACED)
    sys.settrace(count)
    work(dummies, folder, name)
    sys.settrace(None)
    return count.lines


def killed(dummies, folder, name, line):
    """Return whether a child that runs until ``line`` was killed there."""
    return is_killed(lambda: work(dummies, folder, name), Fuse(TRACED, line))


def main():
    dummies, folder = runpy.run_path(sys.argv[1]), Path(sys.argv[2])
    find_vips()  # loaded once, not in every child
    draw, kills = random.Random(int(sys.argv[3])), int(sys.argv[4])
    report = {"kills": 0, "different": 0, "calls": []}
    for number, name in enumerate(NAMES):
        expected, calls = in_child(lambda name=name: work(dummies, folder / f"whole-{name}", name))
        lines = in_child(lambda name=name: count_lines(dummies, folder / f"counted-{name}", name))
        report["whole"] = calls
        for attempt in range(number, kills // 2, len(NAMES)):
            place = folder / f"{attempt}-{name}"
            report["kills"] += killed(dummies, place, name, draw.randint(1, lines))
            # and once more while resuming
            report["kills"] += killed(dummies, place, name, draw.randint(1, lines // 2))
            found, calls = in_child(lambda place=place, name=name: work(dummies, place, name))
            report["different"] += found != expected
            report["calls"].append(calls)
    print(json.dumps(report))  # noqa: T201 - its caller reads it


if __name__ == "__main__":
    main()
