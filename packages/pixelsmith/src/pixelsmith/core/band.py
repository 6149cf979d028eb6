# SPDX-License-Identifier: Apache-2.0
"""The band in which a patch is averaged into its neighbours."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

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
    wide = F.max_pool2d(torch.from_numpy(fresh)[None].float(), 2 * width + 1, stride=1, padding=width)
    return wide[0].bool().numpy() & ~fresh
