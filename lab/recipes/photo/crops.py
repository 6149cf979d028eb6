# SPDX-License-Identifier: Apache-2.0
"""Windows of the large photographs, at their full resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from photoworld import library
from photoworld.manifest import Picture

UInt8 = NDArray[np.uint8]

LARGE = 1200  # pixels: shorter side of a large photograph
# the networks that are judged on them have seen no photograph, so that all splits are as good
SPLITS = ("train", "val", "test")
SMALL = ("opencv-doc",)  # packages with small photographs


def large_photos() -> list[Picture]:
    """Return the fetched photographs but those of a package of small ones."""
    pictures = [each for split in SPLITS for each in library().manifest.of("photo", split)]
    return [each for each in pictures if each.is_fetched and each.package not in SMALL]


def draw_windows(seed: int, count: int, side: int) -> dict[str, UInt8]:
    """Cut windows out of large photographs, at places that are drawn.

    Args:
        seed: Random seed of the photographs and places.
        count: Number of windows, of one photograph each.
        side: Side of a window in pixels, at most ``LARGE``.

    Returns:
        ``(side, side, 3)`` by the name of the file; smaller photographs are passed over.
    """
    rng = np.random.default_rng((seed, side))
    pictures = large_photos()
    found: dict[str, UInt8] = {}
    for i in rng.permutation(len(pictures)):
        photo = library().photo(pictures[i].key)
        if len(found) == count:
            break
        if min(photo.shape[:2]) < LARGE:
            continue
        top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
        found[pictures[i].key] = photo[top : top + side, left : left + side].copy()
    return found
