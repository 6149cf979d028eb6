# SPDX-License-Identifier: Apache-2.0
"""A small world of drawn pictures, for tests that must not fetch any."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photoworld.fetching import MANIFEST
from photoworld.scene import SPLITS

__all__ = ["fill"]

NAMES = ("apple", "bus", "cow", "dog")
COLOURS = {"red": (220, 30, 30), "blue": (30, 40, 220), "": (120, 90, 60)}


def fill(folder: Path, *, photo_side: int = 90) -> Path:
    """Write cut-outs and photographs of all splits, with their manifest.

    Args:
        folder: Folder to fill; the variable ``PHOTOWORLD`` has to name it.
        photo_side: Shorter side of the photographs in pixels.
    """
    rng = np.random.default_rng(0)
    facts: list[dict[str, str]] = []
    for number, split in enumerate(SPLITS):
        for name in NAMES:
            for colour, rgb in COLOURS.items():
                pixels = _disc(rgb, 40 + 8 * number, 60)
                facts.append(_add(folder, pixels, "cutout", split, f"{split}{name}", len(facts), colour))
        for _ in range(2):
            pixels = rng.integers(0, 256, (photo_side, photo_side + 30, 3), dtype=np.uint8)
            facts.append(_add(folder, pixels, "photo", split, f"{split}ground", len(facts)))
    (folder / MANIFEST).write_text(json.dumps({"pictures": facts}), "utf-8")
    return folder


def _add(
    folder: Path, pixels: NDArray[np.uint8], kind: str, split: str, name: str, number: int, colour: str = ""
) -> dict[str, str]:
    path = f"{split}/{kind}-{number}.png"
    file = folder / "drawn" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    about = {"package": "drawn", "path": path, "kind": kind, "name": name, "licence": "CC0-1.0"}
    return {**about, "sha256": digest, "colour": colour, "split": split}


def _disc(colour: tuple[int, int, int], height: int, width: int) -> NDArray[np.uint8]:
    """Draw an ellipse that fills its image, lighter to the right, with a hole."""
    y, x = (np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1
    radius = np.hypot(*np.meshgrid(x, y))
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    pixels[..., :3] = np.clip(np.array(colour) + 30 * x[None, :, None], 0, 255)
    pixels[..., 3] = np.where((radius <= 1) & (radius > 0.2), 255, 0)
    return pixels
