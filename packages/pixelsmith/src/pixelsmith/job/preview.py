# SPDX-License-Identifier: Apache-2.0
"""Previews of an unfinished canvas: reduced latents, mapped to colours by a linear map.

The map is fitted to each job, from the encoded image and its latents, so it suits any autoencoder. The
detail that the decoder adds is lost; a preview has at most one pixel per latent.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.files import atomic_path
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pixelsmith.io.pyramid import shrink
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import Pixels, Rows

__all__ = ["PreviewWriter", "fit_colours", "render_canvas", "shrink_canvas"]

_FITTED = 96  # latents on the longer side from which a map is fitted
_LONGEST = 768

Colours = NDArray[np.float64]


def shrink_canvas(canvas: Canvas, longest: int) -> Tensor:
    """Return the means of square blocks of latents, ``(C, h, w)`` fp32, no side longer than ``longest``.

    Args:
        canvas: Latents, read in bands.
        longest: Limit of the longer side of the result.
    """
    block = -(-max(canvas.size) // longest)
    if block == 1:
        return canvas.read(0, 0, *canvas.size).cpu()
    bands: list[Tensor] = []
    step = max(1, 256 // block) * block
    for top in range(0, canvas.height, step):
        band = canvas.read(top, 0, min(step, canvas.height - top), canvas.width)
        bands.append(torch.nn.functional.avg_pool2d(band, block, ceil_mode=True).cpu())
    return torch.cat(bands, dim=1)


def fit_colours(canvas: Canvas, rows: Rows) -> Colours:
    """Fit a linear map from latents to colours by least squares.

    Args:
        canvas: Latents of the image.
        rows: The image, of any size.

    Returns:
        ``(C + 1, 3)``, for colours in [0, 255]; the last row is added to all.
    """
    latents = shrink_canvas(canvas, _FITTED)
    height, width = latents.shape[1:]
    small = Image.fromarray(np.ascontiguousarray(shrink(rows, 4 * _FITTED)))
    colours = np.asarray(small.resize((width, height), Image.Resampling.BOX), dtype=np.float64)
    # slight damping: flat images leave most of the map undetermined
    features = _features(latents)
    normal = features.T @ features + 1e-3 * len(features) * np.diag([1.0] * len(latents) + [0.0])
    return np.linalg.solve(normal, features.T @ colours.reshape(-1, 3)).astype(np.float64)


def render_canvas(canvas: Canvas, colours: Colours, longest: int = _LONGEST) -> Pixels:
    """Return a preview, ``(h, w, 3)`` uint8."""
    latents = shrink_canvas(canvas, longest)
    preview = (_features(latents) @ colours).reshape(*latents.shape[1:], 3)
    return preview.round().clip(0, 255).astype(np.uint8)


def _features(latents: Tensor) -> Colours:
    flat = latents.flatten(1).double().numpy().T  # (latents, C)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


class PreviewWriter:
    """Keeps a preview of the latest state in a file.

    Args:
        path: File of the preview, replaced atomically.
        colours: Linear map of :func:`fit_colours`.
        every: Least number of seconds between previews.
    """

    def __init__(self, path: Path, colours: Colours, every: float) -> None:
        self.path = path
        self.colours = colours
        self.every = every
        self._last = -np.inf

    def show(self, canvas: Canvas) -> None:
        """Write a preview if the last one is old enough."""
        now = time.monotonic()
        if now - self._last < self.every:
            return
        with atomic_path(self.path, sync=False) as temporary:
            Image.fromarray(render_canvas(canvas, self.colours)).save(temporary)
        self._last = now
