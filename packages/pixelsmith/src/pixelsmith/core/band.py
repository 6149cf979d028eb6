# SPDX-License-Identifier: Apache-2.0
"""The band in which a patch is averaged into its neighbours."""

from __future__ import annotations

import numpy as np

__all__ = ["blend_band"]


def blend_band(fresh: np.ndarray, width: int = 10) -> np.ndarray:
    """Return the positions that are not fresh and lie within Chebyshev distance ``width`` of one that is.

    Args:
        fresh: Positions that the patch owns, ``(P, Q)`` bool.
        width: Width of the band in latents.

    Returns:
        ``(P, Q)`` bool. Only positions of the patch count: the mirrored border of the published box mean
        reaches none that is not within the distance already.

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (overlapping patches); width 10 from its code.
    """
    if width == 0:
        return np.zeros_like(fresh)
    near = _near(_near(fresh, width, axis=0), width, axis=1)
    return near & ~fresh


def _near(marked: np.ndarray, width: int, *, axis: int) -> np.ndarray:
    """Return where a marked position lies within ``width`` along an axis."""
    marked = np.moveaxis(marked, axis, 0)
    side = marked.shape[0]
    sums = np.zeros((side + 1, marked.shape[1]), dtype=np.int32)
    np.cumsum(marked, axis=0, out=sums[1:])
    at = np.arange(side)
    near = sums[np.minimum(at + width + 1, side)] > sums[np.maximum(at - width, 0)]
    return np.moveaxis(near, 0, axis)
