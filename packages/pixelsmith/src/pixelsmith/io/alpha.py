# SPDX-License-Identifier: Apache-2.0
"""Transparency of a photo, laid over its enlargement."""

from __future__ import annotations

import numpy as np

from pixelsmith.io.lanczos import Resized
from pixelsmith.store.rows import Pixels, Rows


class Transparent:
    """An image with transparency.

    The model sees transparent parts on white. Here the white is taken out of the colours again, so that the
    result on white is what the model made, and no edge is bright on another background.

    Args:
        rows: The image on white.
        alpha: Opacity, of any size: three equal channels, 255 is opaque.
        wrap: Whether top and bottom, and left and right, join.
    """

    def __init__(self, rows: Rows, alpha: Rows, *, wrap: tuple[bool, bool] = (False, False)) -> None:
        self.rows = rows
        self.alpha = Resized(alpha, (rows.height, rows.width), wrap=wrap)
        self.height, self.width = rows.height, rows.width

    def read(self, top: int, bottom: int) -> Pixels:
        """Return rows ``[top, bottom)``, ``(bottom - top, width, 4)``, straight alpha."""
        alpha = self.alpha.read(top, bottom)[..., :1]
        on_white = self.rows.read(top, bottom).astype(np.float32)
        share = np.maximum(alpha, 1).astype(np.float32) / 255
        colours = (255 - (255 - on_white) / share).round().clip(0, 255).astype(np.uint8)
        return np.concatenate([np.where(alpha > 0, colours, 255).astype(np.uint8), alpha], axis=2)
