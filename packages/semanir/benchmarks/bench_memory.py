# SPDX-License-Identifier: Apache-2.0
"""Peak memory of ``semanir restore`` on one large photograph, measured from outside the process.

    python bench_memory.py --megapixels 24 60 --formats jpg png

The photograph is one of scikit-image, repeated. ``--network none`` returns the tiles as they are, for what
images and canvases need beside the network; ``--network small`` has random weights and is ten times faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

_PROGRAM = "from semanir.cli import main; main()"
_SMALL = """
import sys, torch
from semanir import SemanIR, SemanIRConfig
torch.manual_seed(0)
changes = dict(embed_dims=(8, 8), num_heads=(1, 1), depths=(1, 1, 1, 1), window_size=4, k=4, conv_blocks=())
SemanIR(SemanIRConfig.preset("tiny", **changes)).save_pretrained(sys.argv[1])
"""

_NONE = """
import sys, torch
from semanir import Restorer, SemanIRConfig

class Nothing(torch.nn.Module):
    config = SemanIRConfig.preset("tiny")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, *, k=None):
        return x + self.weight

Restorer(Nothing()).restore_file(sys.argv[1], sys.argv[2])
"""


def photograph(megapixels: float) -> Image.Image:
    """Return a noisy photograph in the proportions 3 to 2."""
    from skimage import data

    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(height * 1.5)
    image = data.astronaut()
    tiled = np.tile(image, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    noisy = tiled + np.random.default_rng(0).integers(-20, 21, (height, width, 1), dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def measure(source: Path, target: Path, model: str, options: list[str]) -> dict[str, object]:
    """Restore a file in a process of its own; return its peak memory in GB and its time in seconds."""
    began = time.perf_counter()
    arguments = ["restore", str(source), "-o", str(target), "--model", model, "--device", "cpu", *options]
    program = [_PROGRAM, *arguments] if model != "none" else [_NONE, str(source), str(target)]
    process = subprocess.Popen([sys.executable, "-c", *program])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"semanir {' '.join(arguments)} failed")
    return {"peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2), "seconds": round(time.perf_counter() - began)}


def main() -> None:
    """Print one JSON object per size and format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[24.0])
    parser.add_argument("--formats", nargs="+", default=["png"])
    parser.add_argument("--network", default="tiny-denoise")
    parser.add_argument("options", nargs="*", help="of semanir restore, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), given.network
        if model == "small":
            model = str(folder / "model")
            subprocess.run([sys.executable, "-c", _SMALL, model], check=True)
        for megapixels in given.megapixels:
            source = folder / "photograph.jpg"
            photograph(megapixels).save(source, quality=95)
            for kind in given.formats:
                found = measure(source, folder / f"result.{kind}", model, given.options)
                line = {"megapixels": megapixels, "format": kind, "network": given.network} | found
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
                (folder / f"result.{kind}").unlink()


if __name__ == "__main__":
    main()
