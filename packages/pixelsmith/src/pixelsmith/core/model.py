# SPDX-License-Identifier: Apache-2.0
"""What a job asks of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from pixelsmith.core.protocol import Denoiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JobModel"]


class JobModel(Protocol):
    """A diffusion model with its prompt, as a job needs it."""

    @property
    def name(self) -> str:
        """What the job folder records: where the model came from."""
        ...

    @property
    def channels(self) -> int:
        """Numbers in a latent cell."""
        ...

    @property
    def pixels(self) -> int:
        """Pixels per latent cell and side."""
        ...

    @property
    def patch(self) -> int:
        """Cells per side of a patch: the size that the model was trained at."""
        ...

    @property
    def patch_multiple(self) -> int:
        """Number of cells that divides the sides of patches on canvases smaller than ``patch``."""
        ...

    @property
    def vae(self) -> Any:
        """Autoencoder for :class:`pixelsmith.io.vae.TiledVAE`: ``AutoencoderKL`` or one called alike."""
        ...

    @property
    def device(self) -> torch.device:
        """Where patches are computed."""
        ...

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> Denoiser:
        """Return the denoiser of one stage.

        Args:
            size: Height and width of the whole picture of this stage, pixels.
            patch: Height and width of its patches, cells.

        Raises:
            ValueError: If the scheduler or a size does not fit; before anything is computed.
        """
        ...

    def base_image(self, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
        """Generate a picture without patches, ``(H, W, 3)`` uint8, with the host's own text-to-image.

        Args:
            size: Height and width, pixels; a size that the model was trained at.
            seed: Of the noise.

        Raises:
            NotImplementedError: If the model cannot, as one that was given as a function.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Return what makes the job this job, as JSON values: model, prompt, steps, guidance, scheduler."""
        ...
