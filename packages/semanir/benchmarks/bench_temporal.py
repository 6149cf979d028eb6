# SPDX-License-Identifier: Apache-2.0
"""Error of frames that agree with those before them, against frames alone, on panned photographs.

python bench_temporal.py --weight 0.5
"""

from __future__ import annotations

import argparse
import sys
from math import floor
from typing import Any

import torch
from semanir.restoring.temporal import TemporalBlend
from skimage import data
from torch import Tensor
from torch.nn import functional as F

SIGMA, FRAMES, SIZE, PLACE = 4 / 255, 6, (110, 160), (40, 40)


def pan(photograph: Any, speed: float) -> tuple[list[Tensor], list[Tensor]]:
    """Return clean frames ``(3, H, W)`` and the same with smooth noise, as a network may leave it.

    Args:
        photograph: ``(H, W, 3)``, uint8.
        speed: Pixels a frame.
    """
    image = torch.from_numpy(photograph.copy()).permute(2, 0, 1).float() / 255
    generator = torch.Generator().manual_seed(1)
    (height, width), (top, left) = SIZE, PLACE
    clean: list[Tensor] = []
    for number in range(FRAMES):
        start = left + floor(speed * number)
        share = speed * number - floor(speed * number)
        now, then = (image[:, top : top + height, start + i : start + i + width] for i in (0, 1))
        clean.append(now.lerp(then, share))
    noise = [SIGMA * torch.randn(clean[0].shape, generator=generator) for _ in clean]
    smooth = [2.2 * F.avg_pool2d(each[None], 3, 1, 1)[0] for each in noise]
    return clean, [frame + each for frame, each in zip(clean, smooth, strict=True)]


def error(frames: list[Tensor], clean: list[Tensor]) -> float:
    """Return the root of the mean squared error in levels of 8 bits."""
    return 255 * float((torch.stack(frames) - torch.stack(clean)).square().mean().sqrt())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weight", type=float, default=0.5)
    weight = parser.parse_args().weight
    for name in ("chelsea", "astronaut"):
        for speed in (0, 1.5, 3):
            clean, noisy = pan(getattr(data, name)(), speed)
            blend = TemporalBlend(weight)
            together = [blend(frame) for frame in noisy]
            alone, agreeing = error(noisy, clean), error(together, clean)
            sys.stdout.write(f"{name}, {speed:g} pixels a frame: {alone:.2f} -> {agreeing:.2f}\n")


if __name__ == "__main__":
    main()
