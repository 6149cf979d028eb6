# SPDX-License-Identifier: Apache-2.0
"""One self-contained page per segmentation: switch classes on and off, read probabilities under the pointer.

The page asks nothing of any network. Label and probability of every pixel travel in the channels of a PNG
(red and green: class number, low byte first; blue: probability in steps of 1/51), which the page draws on a
canvas and reads back. Where the scores of all classes are known, three smaller PNGs hold the best classes.
"""

from __future__ import annotations

import base64
import html
import io
import json
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from itaclip.pictures import resize_segmentation
from itaclip.results import Segmentation

if TYPE_CHECKING:
    from itaclip.pictures import Overlay

_LONGEST = 1280  # long side, in pixels, of what the page shows
_RANKS, _RANK_SIDE = 3, 160


def page(overlay: Overlay, *, title: str = "segmentation") -> str:
    """Return the page.

    Args:
        overlay: Image, segmentation, colours and opacity.
        title: Shown above the picture; any text.
    """
    width, height = overlay.image.size
    factor = min(1.0, _LONGEST / max(width, height))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    segmentation = resize_segmentation(overlay.segmentation, size)
    photo = (
        overlay.image if factor == 1 else overlay.image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    )
    shares = overlay.segmentation.shares()
    scores = {mask["label"]: mask["score"] for mask in overlay.segmentation.masks(background=True)}
    data = {
        "size": [size[1], size[0]],
        "original": [width, height],
        "names": list(segmentation.names),
        "background": segmentation.background,
        "colours": overlay.colours.tolist(),
        "opacity": overlay.opacity,
        "shares": {name: round(share, 5) for name, share in shares.items()},
        "scores": {name: round(score, 4) for name, score in scores.items()},
        "map": _data_uri(pack(segmentation.labels, segmentation.probabilities), "png"),
        "ranks": [_data_uri(rank, "png") for rank in pack_ranks(segmentation)],
    }
    template = resources.files("itaclip").joinpath("page.html").read_text("utf-8")
    # "<" would end the script element, whatever stands in a class name
    script = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    filled = {"TITLE": html.escape(title), "PHOTO": _data_uri(photo, "jpeg"), "DATA": script}
    parts = template.split("@@")  # names of what comes in at the odd places
    return "".join(filled[part] if place % 2 else part for place, part in enumerate(parts))


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


def unpack(image: Image.Image) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Undo :func:`pack`, short of the rounding."""
    channels = np.asarray(image).astype(np.int64)
    return channels[..., 0] + 256 * channels[..., 1], (channels[..., 2] / 255).astype(np.float32)


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


def _data_uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind.upper(), **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
