# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML page of a segmentation: switch classes, read probabilities under the pointer.

The page makes no network request. Label and probability of every pixel travel in the channels of a PNG
(red and green: class number, low byte first; blue: probability in steps of 1/51), which the page draws on a
canvas and reads back. Where the scores of all classes are known, three smaller PNGs hold the best classes.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch
from common_kernels.runtime.pictures import data_uri, escape, fill_template, json_for_script
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from itaclip.results import Segmentation

_LONGEST = 1280  # long side, in pixels, of what the page shows
_RANKS, _RANK_SIDE = 3, 160


def page(
    image: Image.Image,
    segmentation: Segmentation,
    colours: NDArray[np.uint8],
    *,
    opacity: float = 0.55,
    title: str = "segmentation",
) -> str:
    """Return the page.

    Args:
        image: The segmented image, RGB.
        segmentation: Segmentation of the same size.
        colours: Colour of each class, ``(classes, 3)`` RGB.
        opacity: Opacity of the colours, in [0, 1].
        title: Heading above the image; any text.
    """
    width, height = image.size
    factor = min(1.0, _LONGEST / max(width, height))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    shown = segmentation.resized(size)
    photo = image if factor == 1 else image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    shares = segmentation.shares()
    scores = {mask["label"]: mask["score"] for mask in segmentation.masks(background=True)}
    data = {
        "size": [size[1], size[0]],
        "original": [width, height],
        "names": list(segmentation.names),
        "background": segmentation.background,
        "colours": colours.tolist(),
        "opacity": opacity,
        "shares": {name: round(share, 5) for name, share in shares.items()},
        "scores": {name: round(score, 4) for name, score in scores.items()},
        "map": data_uri(pack(shown.labels, shown.probabilities)),
        "ranks": [data_uri(rank) for rank in pack_ranks(shown)],
    }
    template = resources.files("itaclip").joinpath("page.html").read_text("utf-8")
    values = {
        "TITLE": escape(title),
        "PHOTO": data_uri(photo, "image/jpeg"),
        "DATA": json_for_script(data),
    }
    return fill_template(template, values)


def pack(labels: Tensor, probabilities: Tensor) -> Image.Image:
    """Return labels and probabilities as the channels of an RGB image.

    Args:
        labels: ``(H, W)``, integers in [0, 65535].
        probabilities: ``(H, W)``, in [0, 1].
    """
    numbers = labels.numpy()
    steps = 5 * (probabilities.clamp(0, 1) * 51).round().numpy()  # coarse, for smaller files
    channels = np.stack([numbers & 255, numbers >> 8, steps], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


def pack_ranks(segmentation: Segmentation) -> list[Image.Image]:
    """Return the best classes at reduced size, best first; none where the scores are unknown."""
    if segmentation.scores is None:
        return []
    height, width = segmentation.size
    factor = min(1.0, _RANK_SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    scores = F.interpolate(segmentation.scores[None], size, mode="area")[0]
    best = torch.topk(scores, min(_RANKS, len(scores)), dim=0)
    return [pack(labels, values) for labels, values in zip(best.indices, best.values, strict=True)]
