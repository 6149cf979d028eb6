# SPDX-License-Identifier: Apache-2.0
"""Noise level of a timestep, for any scheduler."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseLevel:
    """Noise level of the denoiser's input.

    Attributes:
        timestep: Requested timestep.
        effective: Timestep of the schedule, in its own units.
        signal: Factor of the clean latent in the denoiser's input.
        noise: Factor of the noise.
    """

    timestep: int
    effective: float
    signal: float
    noise: float


def noise_level(
    scheduler: object, timestep: int, *, num_tokens: int | None = None, is_clean: bool = False
) -> NoiseLevel:
    """Return the entry of a schedule for a timestep.

    The schedule is run with as many inference steps as it was trained with, and entered at index ``steps -
    timestep``. What it does to a latent there is linear, ``signal * latent + noise * noise``; both factors
    are measured with inputs of one and zero, which works for every scheduler, input scaling included.

    Args:
        scheduler: A diffusers scheduler; a copy is used, its state does not change.
        timestep: Timestep, 1 to the number of training steps, or 0 for a latent without noise at the first.
        num_tokens: Image tokens, for schedules that shift with them.
        is_clean: Whether the latent stays clean whatever the timestep.

    Raises:
        ValueError: If ``timestep`` lies outside the schedule.

    Source: authors' code; timestep 50 enters at 51 (PNDM), 50 or 49, as the scheduler spaces its steps.
    """
    config = cast("Any", scheduler).config
    steps = int(config.num_train_timesteps)
    if not 0 <= timestep <= steps:
        raise ValueError(
            f"timestep must lie between 0 and the {steps} training steps of the scheduler, got {timestep}"
        )
    copy = type(scheduler).from_config(config)  # type: ignore[attr-defined]  # every scheduler has it
    own: Any = copy
    first = max(timestep, 1)
    try:
        with warnings.catch_warnings():
            # schedulers of diffusers take arrays of tensors in a way that numpy 2 wants changed
            warnings.simplefilter("ignore", DeprecationWarning)
            own.set_timesteps(steps, **_shift(config, num_tokens))
        index = min(max(len(own.timesteps) - first, 0), steps - first)
        at = own.timesteps[index : index + 1]
    except ValueError:
        # distilled schedulers refuse full schedules; their training steps are the plain ones
        at = torch.tensor([first - 1])
    signal, noise = _factors(own, at)
    if timestep == 0 or is_clean:
        signal, noise = signal / (signal + noise if hasattr(own, "scale_noise") else signal), 0.0
    return NoiseLevel(timestep=timestep, effective=float(at[0]), signal=signal, noise=noise)


def _factors(scheduler: Any, at: Tensor) -> tuple[float, float]:
    """Factors of latent and noise in the denoiser's input."""
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    factors: list[float] = []
    for latent, noise in ((one, zero), (zero, one)):
        if hasattr(scheduler, "scale_noise"):
            value = scheduler.scale_noise(latent, at, noise)
        else:
            value = scheduler.add_noise(latent, noise, at)
            value = scheduler.scale_model_input(value, at[0])
        factors.append(float(value.flatten()[0]))
    return factors[0], factors[1]


def _shift(config: Any, num_tokens: int | None) -> dict[str, float]:
    """The shift of flow schedules that depends on the number of image tokens."""
    if not getattr(config, "use_dynamic_shifting", False):
        return {}
    base, top = config.base_image_seq_len, config.max_image_seq_len
    slope = (config.max_shift - config.base_shift) / (top - base)
    return {"mu": config.base_shift + slope * ((num_tokens or base) - base)}
