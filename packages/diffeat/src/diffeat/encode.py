# SPDX-License-Identifier: Apache-2.0
"""From images and prompts to what a denoiser takes."""

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
        pipeline: The pipeline; without autoencoder images are their own latents.
        images: ``(B, 3, H, W)`` in [0, 1].
        hashes: Of each image; posterior samples depend on them and on ``seed`` alone.
        posterior: ``"mode"`` of the posterior, or a ``"sample"``, as in the authors' code.
        seed: Of the samples.

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
    """Bring latents to the denoiser's scale."""
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
    """Run an autoencoder that overflows in fp16 in fp32; casting there and back changes no weight."""
    if not getattr(vae.config, "force_upcast", False) or vae.dtype != torch.float16:
        yield
        return
    vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        vae.to(dtype=torch.float16)


def draw_noise(shape: Sequence[int], hashes: Sequence[str], *, seed: int, draw: int) -> Tensor:
    """Noise of each image, fp32 on the CPU: the same on every device and in every batch.

    Args:
        shape: Of one image's latent.
        hashes: Of each image.
        seed: The user's seed.
        draw: Number of the draw in an ensemble.
    """
    generators = (generator_for(seed, each, "noise", draw) for each in hashes)
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def encode_clip(
    tokenizer: Any, encoder: Any, prompts: Sequence[str], *, chunks: int, hidden: int | None
) -> tuple[Tensor, Tensor | None]:
    """Encode prompts of any length with a CLIP text encoder.

    Each prompt is cut into pieces that fit, every piece gets its own start and end, and the pieces' tokens
    are laid behind each other. A prompt of one piece is encoded exactly as the pipelines do.

    Args:
        tokenizer: The tokenizer of the encoder.
        encoder: A CLIP text model, with projection or without.
        prompts: One per image.
        chunks: Pieces, at least :func:`num_chunks`.
        hidden: Index of the hidden layer to take, or ``None`` for the normalised last one.

    Returns:
        Embeddings ``(B, chunks * positions, C)``, and the pooled projection of each prompt's first piece,
        which holds its beginning, ``(B, C)``; ``None`` if the encoder has no projection.

    Source: the authors' code cuts likewise but has no pooled vectors, so that SDXL fails on long prompts.
    """
    pieces = [_pieces(tokenizer, prompt, chunks) for prompt in prompts]
    ids = torch.tensor([piece for each in pieces for piece in each], device=encoder.device)  # (B * chunks, L)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = (ids != tokenizer.pad_token_id).long()
    with torch.no_grad():
        out = encoder(ids, attention_mask=mask, output_hidden_states=hidden is not None)
    tokens = out.last_hidden_state if hidden is None else out.hidden_states[hidden]
    embeds = tokens.unflatten(0, (len(prompts), chunks)).flatten(1, 2)  # (B, chunks * L, C)
    pooled = getattr(out, "text_embeds", None)
    return embeds, None if pooled is None else pooled[::chunks]


def num_chunks(tokenizer: Any, prompts: Sequence[str]) -> int:
    """Pieces that the longest prompt needs."""
    room = int(tokenizer.model_max_length) - 2
    return max(1, *(-(-len(_token_ids(tokenizer, prompt)) // room) for prompt in prompts))


def _token_ids(tokenizer: Any, prompt: str) -> list[int]:
    return list(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)


def _pieces(tokenizer: Any, prompt: str, chunks: int) -> list[list[int]]:
    room = int(tokenizer.model_max_length) - 2
    ids = _token_ids(tokenizer, prompt)
    found: list[list[int]] = []
    for index in range(chunks):
        inside = ids[index * room : (index + 1) * room]
        padding = [tokenizer.pad_token_id] * (room - len(inside))
        found.append([tokenizer.bos_token_id, *inside, tokenizer.eos_token_id, *padding])
    return found
