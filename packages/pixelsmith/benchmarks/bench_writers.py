# SPDX-License-Identifier: Apache-2.0
"""Times and weighs the writers of files: ours, and libvips by pyvips.

``python bench_writers.py --side 4096``: a photograph of scikit-image, enlarged, with a little grain, mapped
from a file as a job has it; each writer once per round, in turns, the median of the processor time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pixelsmith.io.writers import write_image
from pixelsmith.store.rows import RawImage
from skimage import data

WRITERS = "pixelsmith", "pyvips"


def make_image(path: Path, side: int) -> RawImage:
    """Return an image as a job leaves it: a mapped file."""
    pixels = np.asarray(Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.LANCZOS))
    grain = np.random.default_rng(0).integers(0, 4, pixels.shape, dtype=np.uint8)
    raw = RawImage.create(path, side, side)
    raw.write(0, np.where(pixels < 250, pixels + grain, pixels).astype(np.uint8))
    raw.flush()
    return RawImage(path)


def measure(path: Path, image: RawImage, writer: str) -> tuple[float, int]:
    """Return processor seconds and bytes of a file."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    written = write_image(path, image, writer=writer)
    after = resource.getrusage(resource.RUSAGE_SELF)
    files = [file for place in written for file in (place, *place.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files if file.suffix != ".html")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, size


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="files of each kind and writer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(Path(folder) / "image.npy", options.side)
        for suffix in ("png", "tif", "dzi"):
            found: dict[str, list[tuple[float, int]]] = {writer: [] for writer in WRITERS}
            for _ in range(options.rounds):
                for writer in WRITERS:
                    found[writer].append(measure(Path(folder) / f"{writer}.{suffix}", image, writer))
            seconds = [f"{statistics.median(each[0] for each in found[writer]):.1f}" for writer in WRITERS]
            sizes = [f"{found[writer][0][1] / 1e6:.1f}" for writer in WRITERS]
            print("|", " | ".join([suffix, *seconds, *sizes]), "|")


if __name__ == "__main__":
    main()
