# SPDX-License-Identifier: Apache-2.0
"""A world of drawn pictures in the place of the fetched ones."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

NAMES = ("apple", "bus", "cow", "dog")
COLOURS = {"red": (220, 30, 30), "blue": (30, 40, 220), "": (120, 90, 60)}
SPLITS = ("train", "val", "test")


def _disc(colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    """Ellipse that fills its image, lighter to the right, with a hole."""
    y, x = (np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1
    radius = np.hypot(*np.meshgrid(x, y))
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    pixels[..., :3] = np.clip(np.array(colour) + 30 * x[None, :, None], 0, 255)
    pixels[..., 3] = np.where((radius <= 1) & (radius > 0.2), 255, 0)
    return pixels


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photoworld")
    pictures: list[dict[str, str]] = []

    def add(kind: str, split: str, name: str, pixels: np.ndarray, colour: str = "") -> None:
        path = f"{split}/{kind}-{len(pictures)}.png"
        file = folder / "drawn" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        facts = {"package": "drawn", "path": path, "kind": kind, "name": name, "licence": "CC0-1.0"}
        pictures.append({**facts, "sha256": digest, "colour": colour, "split": split})

    rng = np.random.default_rng(0)
    for number, split in enumerate(SPLITS):
        for name in NAMES:
            for colour, rgb in COLOURS.items():
                add("cutout", split, f"{split}{name}", _disc(rgb, 40 + 8 * number, 60), colour)
        for _ in range(2):
            add("photo", split, f"{split}ground", rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    (folder / "manifest.json").write_text(json.dumps({"pictures": pictures}), "utf-8")
    return folder


@pytest.fixture
def drawn_world(drawn_folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PHOTOWORLD", str(drawn_folder))
    return drawn_folder
