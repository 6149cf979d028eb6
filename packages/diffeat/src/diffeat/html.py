# SPDX-License-Identifier: Apache-2.0
"""One self-contained page: click a point of an image to see how similar every other point is.

The page needs no network. It carries a unit vector of at most 64 bytes for each cell, whose
products are the cosines; with more channels the vectors are projected on the directions that keep most of
them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources

import numpy as np
import torch
from common_kernels.runtime.pictures import data_uri, escape, fill_template, json_for_script
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffeat.pictures import draw_components

_LONGEST = 900  # long side of the shown images, in pixels
_MOST_NUMBERS = 64
_MOST_CELLS = 128  # a side


def similarity_page(
    images: Sequence[Image.Image],
    features: Sequence[Tensor],
    *,
    title: str = "similarities",
    captions: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        images: One or several images.
        features: ``(C, h, w)`` of each, over the whole image.
        title: Text above the images.
        captions: Text below each image.

    Raises:
        ValueError: If counts or channels do not fit.
    """
    if not images or len(images) != len(features):
        raise ValueError(f"each image must have features, got {len(features)} for {len(images)} images")
    small = [_limited(value) for value in features]
    vectors, kept = compress(small)
    components = draw_components(small)
    views = [
        {
            "image": data_uri(_shown(image), "image/jpeg"),
            "pca": data_uri(component),
            "size": [value.shape[2], value.shape[1]],
            "vectors": base64.b64encode(part.tobytes()).decode("ascii"),
            "caption": captions[number] if number < len(captions) else "",
        }
        for number, (image, component, value, part) in enumerate(
            zip(images, components, small, vectors, strict=True)
        )
    ]
    data = {"views": views, "numbers": vectors[0].shape[-1], "kept": round(kept, 4)}
    template = resources.files("diffeat").joinpath("page.html").read_text("utf-8")
    return fill_template(template, {"TITLE": escape(title), "DATA": json_for_script(data)})


def compress(features: Sequence[Tensor]) -> tuple[list[NDArray[np.int8]], float]:
    """Unit vectors of all cells as bytes, 127 meaning 1.

    Args:
        features: ``(C, h, w)`` of each image, with the same channels.

    Returns:
        ``(h * w, numbers)`` of each image, and the share of the vectors' energy that is kept.
    """
    units = [F.normalize(value.flatten(1).double(), dim=0).T for value in features]  # (h * w, C)
    every = torch.cat(units)
    kept = 1.0
    if every.shape[1] > _MOST_NUMBERS:
        # not centred, so that products stay cosines
        values, directions = torch.linalg.eigh(every.T @ every)
        kept = float(values[-_MOST_NUMBERS:].sum() / values.sum().clamp_min(1e-12))
        units = [F.normalize(unit @ directions[:, -_MOST_NUMBERS:], dim=1) for unit in units]
    return [(127 * unit).round().to(torch.int8).numpy() for unit in units], kept


def _limited(value: Tensor) -> Tensor:
    height, width = value.shape[-2:]
    factor = min(1.0, _MOST_CELLS / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return value if factor == 1 else F.adaptive_avg_pool2d(value[None].float(), size)[0]


def _shown(image: Image.Image) -> Image.Image:
    factor = min(1.0, _LONGEST / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return (
        image.convert("RGB") if factor == 1 else image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    )
