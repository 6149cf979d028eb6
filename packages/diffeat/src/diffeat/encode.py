# SPDX-License-Identifier: Apache-2.0
"""Encoding of images to latents, and the added noise."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from diffeat.images import generator_for

Posterior = Literal["mode", "sample"]


def encode_images(
    pipeline: Any, images: Tensor, hashes: Sequence[str], *, posterior: Posterior, seed: int
) -> Tensor:
    """Encode images with the pipeline's autoencoder.

    Args:
        pipeline: The pipeline; without an autoencoder the images are the latents.
        images: ``(B, 3, H, W)`` in [0, 1].
        hashes: Hash of each image; posterior samples depend on them and on ``seed`` alone.
        posterior: ``"mode"`` of the posterior, or a ``"sample"``, as in the authors' code.
        seed: Random seed of the samples.

    Returns:
        Scaled latents, ``(B, C, h, w)`` (with an axis of frames for video autoencoders), fp32.
    """
    pixels = images * 2 - 1
    vae = getattr(pipeline, "vae", None)
    if vae is None:
        return pixels
    config = vae.config
    with torch.no_grad(), _upcast(vae):
        weight = next(vae.parameters())
        is_video = any(isinstance(module, nn.Conv3d) for module in vae.modules()) and hasattr(config, "z_dim")
        batch = pixels.to(vae.device if weight.device.type == "meta" else weight.device, weight.dtype)
        encoded = vae.encode(batch[:, :, None] if is_video else batch)
        latents = _of_posterior(encoded, hashes, posterior, seed).float()
    return _scaled(vae, latents)


def _of_posterior(encoded: Any, hashes: Sequence[str], posterior: Posterior, seed: int) -> Tensor:
    distribution = getattr(encoded, "latent_dist", None)
    if distribution is None:
        return cast("Tensor", encoded.latent if hasattr(encoded, "latent") else encoded.latents)
    mode = cast("Tensor", distribution.mode())
    if posterior == "mode":
        return mode
    draws = [torch.randn(mode.shape[1:], generator=generator_for(seed, each, "posterior")) for each in hashes]
    return mode + cast("Tensor", distribution.std) * torch.stack(draws).to(mode)


def _scaled(vae: Any, latents: Tensor) -> Tensor:
    """Scale latents for the denoiser."""
    config = vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (1, -1, *(1,) * (latents.ndim - 2))
        offset, spread = (torch.tensor(values, device=latents.device).view(shape) for values in (mean, std))
        factor = getattr(config, "scaling_factor", None) or 1.0
        return (latents - offset) * factor / spread
    shift = getattr(config, "shift_factor", None) or 0.0
    return (latents - shift) * (getattr(config, "scaling_factor", None) or 1.0)


@contextmanager
def _upcast(vae: Any) -> Generator[None]:
    """Run an autoencoder that overflows in fp16 in fp32; casting back and forth changes no weight."""
    if not getattr(vae.config, "force_upcast", False) or vae.dtype != torch.float16:
        yield
        return
    vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        vae.to(dtype=torch.float16)


def draw_noise(shape: Sequence[int], hashes: Sequence[str], *, seed: int, draw: int) -> Tensor:
    """Return the noise of each image, fp32 on the CPU: the same on every device and in every batch.

    Args:
        shape: Shape of one image's latent.
        hashes: Hash of each image.
        seed: Random seed.
        draw: Number of the draw in an ensemble.
    """
    generators = (generator_for(seed, each, "noise", draw) for each in hashes)
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])
