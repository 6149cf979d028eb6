# SPDX-License-Identifier: Apache-2.0
"""Deterministic inversion: the noise that the model itself sees in an image, instead of a random one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffeat.schedule import NoiseLevel


def prediction_type(scheduler: object) -> str:
    """Return what a scheduler takes the denoiser's output for.

    It is ``"epsilon"``, ``"v_prediction"``, ``"sample"`` or ``"flow"``.

    Raises:
        ValueError: If the scheduler knows another kind.
    """
    config: Any = getattr(scheduler, "config", None)
    kind = getattr(config, "prediction_type", None)
    if kind == "flow_prediction" or (kind is None and hasattr(scheduler, "scale_noise")):
        return "flow"
    if kind not in {"epsilon", "v_prediction", "sample"}:
        raise ValueError(
            f"inversion needs a known kind of prediction, {type(scheduler).__name__} has {kind!r}"
        )
    return kind


def split(noisy: Tensor, output: Tensor, level: NoiseLevel, kind: str) -> tuple[Tensor, Tensor]:
    """Split a noisy latent into the clean latent and the noise that the denoiser sees in it.

    With ``noisy = signal * clean + noise * eps`` the output is ``eps`` itself, ``clean``, the velocity
    ``signal * eps - noise * clean`` (where the squares of both factors sum to 1), or the flow ``eps - clean``
    (where the factors sum to 1).

    Args:
        noisy: Input of the denoiser.
        output: Its output, of the same shape.
        level: Factors of signal and noise.
        kind: One of :func:`prediction_type`.

    Returns:
        Clean latent and noise.
    """
    a, b = level.signal, level.noise
    if kind == "flow":
        return noisy - b * output, noisy + a * output
    if kind == "v_prediction":
        return a * noisy - b * output, b * noisy + a * output
    if kind == "sample":
        return output, (noisy - a * output) / max(b, 1e-6) if b > 0 else torch.zeros_like(noisy)
    return (noisy - b * output) / a, output


def invert(
    latents: Tensor,
    levels: Sequence[NoiseLevel],
    predict: Callable[[Tensor, NoiseLevel], Tensor],
    kind: str,
) -> Tensor:
    """Run the deterministic sampler backwards, from a clean latent to the last level.

    Args:
        latents: Clean latents, fp32.
        levels: Rising noise levels; the first is the clean one.
        predict: The denoiser: function of noisy latent and level to its output.
        kind: One of :func:`prediction_type`.

    Returns:
        Noisy latents of the last level, fp32.

    Source: arXiv 2010.02502 (the sampler as an equation that can be run both ways), in Euler steps.
    """
    noisy = levels[0].signal * latents
    for level, following in pairwise(levels):
        clean, noise = split(noisy, predict(noisy, level).float(), level, kind)
        noisy = following.signal * clean + following.noise * noise
    return noisy


def rising(timestep: int, steps: int) -> tuple[int, ...]:
    """Timesteps of an inversion, from 0 to ``timestep`` in at most ``steps`` even steps.

    Examples:
        >>> rising(50, 4)
        (0, 12, 25, 38, 50)
    """
    count = min(steps, timestep)
    return tuple(round(timestep * index / count) for index in range(count + 1)) if count else (0,)
