# SPDX-License-Identifier: Apache-2.0
"""A real pair of photographs: the motorcycle stereo pair inside scikit-image, with its measured disparity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.images import load_images
from diffeat.match import hits, nearest, pixel_patches
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import cdist
from skimage.data import stereo_motorcycle
from skimage.feature import SIFT
from torch import Tensor

from recipes.features.bench import TIMESTEP
from recipes.features.sets import PIXELS

HEIGHT, WIDTH = 256, 384  # pixels that both photographs are brought to
THRESHOLDS = (0.1, 0.05, 0.02)


def read_pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Return both photographs at the size above, and the disparity in pixels of that size, NaN if unknown."""
    left, right, disparity = stereo_motorcycle()
    small = [
        np.asarray(Image.fromarray(each).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
        for each in (left, right)
    ]
    known = np.where(np.isfinite(disparity), disparity, np.nan)
    rows = ((np.arange(HEIGHT) + 0.5) * known.shape[0] / HEIGHT).astype(np.int64)
    columns = ((np.arange(WIDTH) + 0.5) * known.shape[1] / WIDTH).astype(np.int64)
    return small[0], small[1], known[np.ix_(rows, columns)] * WIDTH / known.shape[1]


def sift(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places ``(N, 2)``, x then y in pixels, and descriptors ``(N, 128)``."""
    finder: Any = SIFT()
    finder.detect_and_extract(np.asarray(Image.fromarray(image).convert("L")) / 255)
    # it counts from the centre of the first pixel, everything else here from its edge
    return finder.keypoints[:, ::-1] + 0.5, finder.descriptors.astype(np.float64)


def judge_stereo(extractor: FeatureExtractor, sets: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Find the points that SIFT finds in the left photograph in the right one, by several features.

    All methods are asked for the same points: those of the left photograph whose disparity is known and whose
    partner lies inside the right one. SIFT picks among the points it found on the right; the others among all
    cells.

    Args:
        extractor: The model.
        sets: Activations by title; ``pixels`` stands for raw patches.

    Returns:
        Number of points, share found at each threshold (in larger sides), and median error in pixels.
    """
    left, right, disparity = read_pair()
    matched = match_pair(extractor, sets, left, right, lambda places: partners(places, disparity))
    wanted, found = matched.wanted, matched.found
    return {
        "points": len(wanted),
        "size": [HEIGHT, WIDTH],
        "pck": {title: _shares(each, wanted) for title, each in found.items()},
        "median_error": {title: float((each - wanted).norm(dim=1).median()) for title, each in found.items()},
    }


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Points of one image, found in another by several methods.

    Attributes:
        wanted: Where they are, ``(N, 2)``, x then y in pixels.
        found: Where each method finds them, likewise.
    """

    wanted: Tensor
    found: dict[str, Tensor]


def match_pair(
    extractor: FeatureExtractor,
    sets: Mapping[str, Sequence[str]],
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    partner: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Matched:
    """Find the points that SIFT finds in one image in another one, by several features.

    Args:
        extractor: The model.
        sets: Activations by title; ``pixels`` stands for raw patches.
        left: ``(H, W, 3)`` uint8.
        right: Likewise, of the same size.
        partner: Takes points ``(N, 2)`` of the left image to the right one, NaN where unknown; a partner
            outside does not count.
    """
    places, descriptors = sift(left)
    truth, size = partner(places), torch.tensor([left.shape[1], left.shape[0]], dtype=torch.float64)
    usable = np.isfinite(truth).all(axis=1) & (truth >= 0).all(axis=1) & (truth < size.numpy()).all(axis=1)
    start, wanted = torch.from_numpy(places[usable]), torch.from_numpy(truth[usable])
    others, other_descriptors = sift(right)
    closest = cdist(descriptors[usable], other_descriptors).argmin(axis=1)
    found = {"SIFT": torch.from_numpy(others[closest]), "no motion": start}
    for title, names in sets.items():
        one, other = _features(extractor, (left, right), names)
        found[title] = nearest(one, other, (start / size).float())[0].double() * size
    return Matched(wanted, found)


def partners(places: NDArray[np.float64], disparity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where points of the left photograph lie in the right one, NaN if unknown; both ``(N, 2)``."""
    columns, rows = np.floor(places).astype(np.int64).T
    found = places.copy()
    found[:, 0] -= disparity[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)]
    return found


def _shares(found: Tensor, wanted: Tensor) -> dict[str, float]:
    return {
        f"{threshold:g}": float(hits(found, wanted, threshold * WIDTH).double().mean())
        for threshold in THRESHOLDS
    }


def _features(
    extractor: FeatureExtractor, images: Sequence[NDArray[np.uint8]], names: Sequence[str]
) -> Tensor:
    if list(names) == [PIXELS]:
        return pixel_patches(list(load_images(images)))
    options = ExtractionOptions(timesteps=(TIMESTEP,), size=images[0].shape[:2])
    return extractor(list(images), list(names), options).concat()
