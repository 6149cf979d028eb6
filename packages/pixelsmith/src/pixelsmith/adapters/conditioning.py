# SPDX-License-Identifier: Apache-2.0
"""Size and crop conditioning of patches, as SDXL was trained with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelsmith.config import Conditioning


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where patches lie, in pixels.

    Attributes:
        policy: Values that a patch is given: ``"true"``, the size of the whole image and the patch's own row
            and column; ``"official"``, the same with the column twice, as in the published code;
            ``"base"``, the native size and the place in the image shrunk to it; ``"none"``, those of a whole
            image of the size of the patch.
        size: Height and width of the whole image.
        base_size: Height and width that the model was trained at.
        patch_size: Height and width of a patch.
        vae_scale_factor: Pixels per latent and side.
    """

    policy: Conditioning = "true"
    size: tuple[int, int]
    base_size: tuple[int, int]
    patch_size: tuple[int, int]
    vae_scale_factor: int

    def time_ids(
        self, origins: Sequence[tuple[int, int]], device: torch.device | str | None = None
    ) -> Tensor:
        """Return original size, crop and target size of each patch, ``(B, 6)``, pixels.

        The dtype is float32: float16 would round sides above 2048 and overflow above 65,504.

        Args:
            origins: Row and column of each patch's first latent.
            device: Device of the result.
        """
        rows = [self._ids(row, column) for row, column in origins]
        return torch.tensor(rows, dtype=torch.float32, device=device)

    def _ids(self, row: int, column: int) -> tuple[float, ...]:
        top, left = row * self.vae_scale_factor, column * self.vae_scale_factor
        match self.policy:
            case "true":
                return (*self.size, top, left, *self.size)
            case "official":
                return (*self.size, left, left, *self.size)
            case "base":
                crop = (
                    round(top * self.base_size[0] / self.size[0]),
                    round(left * self.base_size[1] / self.size[1]),
                )
                return (*self.base_size, *crop, *self.base_size)
            case "none":
                return (*self.patch_size, 0, 0, *self.patch_size)
