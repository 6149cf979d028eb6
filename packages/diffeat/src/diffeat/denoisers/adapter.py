# SPDX-License-Identifier: Apache-2.0
"""Calling conventions of one family of denoisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Conditions = Callable[[Any, Sequence[str], tuple[int, int], torch.device, torch.dtype], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Conventions of one family.

    Attributes:
        conditions: Function of pipeline, prompts, image size in pixels, device and dtype that makes the
            conditions.
        stream: Name of the argument of the latent.
        clock: Name of the argument of the timestep.
        pack: Function of denoiser, noisy and clean latent that lays the latent out for the denoiser.
        time: Function of denoiser and timestep of the schedule that gives the denoiser's own timestep.
        sign: Factor on the denoiser's output, -1 where it predicts the negative of what its scheduler takes.
        is_time_cast: Whether the timestep has the compute dtype, which the denoiser takes from it.
        patch: Latent cells per token and side; ``None`` reads it from the denoiser's config.
    """

    conditions: Conditions
    stream: str = "hidden_states"
    clock: str = "timestep"
    pack: Callable[[Any, Tensor, Tensor], Tensor | list[Tensor]] | None = None
    time: Callable[[Any, float], float] | None = None
    sign: float = 1.0
    is_time_cast: bool = False
    patch: int | None = None

    def cells(self, model: Any) -> int:
        """Latent cells per token and side: the sides of latents are multiples of it."""
        patch = self.patch or getattr(model.config, "patch_size", None) or 1
        return int(patch[-1] if isinstance(patch, list | tuple) else patch)
