# SPDX-License-Identifier: Apache-2.0
"""Any function as a denoiser, and as the model of a job."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelsmith.adapters.base import SolverDenoiser
from pixelsmith.adapters.schedulers import ClosedForm, closed_form

# patches (B, C, h, w), timestep, origins in latents; returns the output of the network with guidance
Predict = Callable[[Tensor, Tensor, Sequence[tuple[int, int]]], Tensor]
# height and width in pixels, seed; returns (H, W, 3) uint8
Generate = Callable[[tuple[int, int], int], NDArray[np.uint8]]


class CallableDenoiser(SolverDenoiser):
    """A function that predicts, with the schedule of any supported scheduler.

    Args:
        predict: Function of patches ``(B, C, h, w)`` fp32 as the network sees them, the timestep, and row and
            column of each patch's first latent; returns the output, of the same shape.
        solver: Closed form of the scheduler, see :func:`pixelsmith.adapters.schedulers.closed_form`.
        device: Device of the patches.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> from pixelsmith.adapters.schedulers import closed_form
        >>> solver = closed_form(DDIMScheduler(clip_sample=False), 10)
        >>> CallableDenoiser(lambda x, timestep, origins: 0 * x, solver).num_steps
        10
    """

    def __init__(self, predict: Predict, solver: ClosedForm, *, device: torch.device | str = "cpu") -> None:
        super().__init__(solver, device)
        self._predict = predict

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Call the function.

        Raises:
            ValueError: If it returns another shape.
        """
        seen = self.solver.scale_input(x, step)
        output = self._predict(seen, self.timestep(step), origins)
        if output.shape != x.shape:
            raise ValueError(f"predict must return {tuple(x.shape)}, got {tuple(output.shape)}")
        return output.float()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableModel:
    """A function as the model of a job, with an autoencoder and a scheduler of diffusers.

    Attributes:
        predict: Function that predicts, see :class:`CallableDenoiser`.
        vae: ``AutoencoderKL`` or one with the same methods.
        scheduler: Scheduler with a closed form.
        num_inference_steps: Number of inference steps.
        patch: Side of a patch in latents.
        patch_multiple: Divisor of the sides of patches on small canvases, in latents.
        generate: Function of size and seed that generates a base image; ``None`` for jobs that enlarge one.
        name: Name of the model in the record of a job.
        about: Everything else that decides the result, as JSON values: prompt, guidance, weights.
        device: Device of the patches.

    Raises:
        ValueError: If a part is missing, a number is out of range, ``about`` is not JSON, or the
            scheduler has no closed form.
    """

    predict: Predict
    vae: Any
    scheduler: object
    num_inference_steps: int
    patch: int
    patch_multiple: int = 1
    generate: Generate | None = None
    name: str = "function"
    about: Mapping[str, object] = field(default_factory=dict[str, object])
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if self.vae is None:
            raise ValueError("vae must be an autoencoder, got None; every job reads and writes images")
        if self.num_inference_steps < 1 or self.patch < 1:
            raise ValueError(
                "num_inference_steps and patch must be at least 1, got "
                f"{self.num_inference_steps} and {self.patch}"
            )
        if self.patch_multiple < 1 or self.patch % self.patch_multiple:
            raise ValueError(f"patch_multiple must divide patch={self.patch}, got {self.patch_multiple}")
        object.__setattr__(self, "device", torch.device(self.device))
        try:
            json.dumps(dict(self.about), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"about must hold JSON values: {error}") from error
        self._solver()

    def _solver(self) -> ClosedForm:
        return closed_form(self.scheduler, self.num_inference_steps)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config["latent_channels"])

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent and side."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> CallableDenoiser:
        """Return the denoiser, the same for every stage."""
        return CallableDenoiser(self.predict, self._solver(), device=self.device)

    def base_image(self, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
        """Call ``generate``.

        Raises:
            NotImplementedError: If there is none.
            ValueError: If it returns something else.
        """
        if self.generate is None:
            raise NotImplementedError("this model generates no base image; give generate=, or enlarge one")
        found = self.generate(size, seed)
        if found.shape != (*size, 3) or found.dtype != np.uint8:
            raise ValueError(f"generate must return {(*size, 3)} uint8, got {found.shape} {found.dtype}")
        return found

    def describe(self) -> dict[str, object]:
        """Return everything that decides the result, as JSON values."""
        return {
            "model": self.name,
            "family": "function",
            "num_inference_steps": self.num_inference_steps,
            "scheduler": describe_scheduler(self.scheduler),
            **self.about,
        }


def describe_scheduler(scheduler: Any) -> dict[str, object]:
    """Return class and settings of a scheduler of diffusers, as JSON values."""
    config: Mapping[str, object] = scheduler.config
    plain = {
        # a limit without bound, such as one of DPM-Solver, is no number of JSON
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in config.items()
        if not name.startswith("_")
    }
    return {"class": type(scheduler).__name__, **json.loads(json.dumps(plain, default=str))}
