# SPDX-License-Identifier: Apache-2.0
"""Previews of a canvas under way: shrunk latents, turned to colours by a linear map.

The map is fitted to each job, from the encoded image and its latents, so it suits any autoencoder. What
lies between a cell and its pixels is lost; a preview has a pixel per cell at the most.
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

_FITTED = 96  # cells on the longer side from which a map is fitted
_LONGEST = 768

Colours = NDArray[np.float64]


def shrink_canvas(canvas: Canvas, longest: int) -> Tensor:
    """Return the means of square blocks of cells, ``(C, h, w)`` fp32, no side longer than ``longest``.

    Args:
        canvas: Is read in bands.
        longest: In cells.
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
    cells = shrink_canvas(canvas, _FITTED)
    height, width = cells.shape[1:]
    small = Image.fromarray(np.ascontiguousarray(shrink(rows, 4 * _FITTED)))
    colours = np.asarray(small.resize((width, height), Image.Resampling.BOX), dtype=np.float64)
    # a little damping: flat images leave most of the map open
    features = _features(cells)
    normal = features.T @ features + 1e-3 * len(features) * np.diag([1.0] * len(cells) + [0.0])
    return np.linalg.solve(normal, features.T @ colours.reshape(-1, 3)).astype(np.float64)


def render_canvas(canvas: Canvas, colours: Colours, longest: int = _LONGEST) -> Pixels:
    """Return a preview, ``(h, w, 3)`` uint8."""
    cells = shrink_canvas(canvas, longest)
    painted = (_features(cells) @ colours).reshape(*cells.shape[1:], 3)
    return painted.round().clip(0, 255).astype(np.uint8)


def _features(cells: Tensor) -> Colours:
    flat = cells.flatten(1).double().numpy().T  # (cells, C)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


class PreviewWriter:
    """Keeps a preview of the latest state in a file.

    Args:
        path: The file, replaced in one piece.
        colours: From :func:`fit_colours`.
        every: Seconds between two of them at least.
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
