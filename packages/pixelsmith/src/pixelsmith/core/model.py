# SPDX-License-Identifier: Apache-2.0
"""Interface of a model in a job."""

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
        """Name in the record of a job: the source of the model."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        ...

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent and side."""
        ...

    @property
    def patch(self) -> int:
        """Side of a patch in latents: the size that the model was trained at."""
        ...

    @property
    def patch_multiple(self) -> int:
        """Divisor of the sides of patches on canvases smaller than ``patch``, in latents."""
        ...

    @property
    def vae(self) -> Any:
        """Autoencoder for :class:`pixelsmith.io.vae.TiledVAE`: ``AutoencoderKL`` or alike."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the patches."""
        ...

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> Denoiser:
        """Return the denoiser of one stage.

        Args:
            size: Height and width of the whole image of this stage, pixels.
            patch: Height and width of its patches, latents.

        Raises:
            ValueError: If the scheduler or a size does not fit; before anything is computed.
        """
        ...

    def base_image(self, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
        """Generate an image without patches, ``(H, W, 3)`` uint8, with the host's own text-to-image.

        Args:
            size: Height and width, pixels; a size that the model was trained at.
            seed: Random seed.

        Raises:
            NotImplementedError: If the model cannot generate one.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Return everything that decides the result, as JSON values: model, prompt, steps, scheduler."""
        ...
