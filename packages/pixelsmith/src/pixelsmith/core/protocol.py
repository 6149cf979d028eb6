# SPDX-License-Identifier: Apache-2.0
"""Interface of the denoising loop: the model, progress and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pixelsmith.store.canvas import Canvas

__all__ = ["Denoiser", "OnPatch", "OnStep", "Progress", "StageInterrupted"]


class Denoiser(Protocol):
    """A diffusion model with its prompt, guidance and schedule, free of state between calls.

    Steps count from 0, the noisiest, to ``num_steps - 1``. All tensors are fp32 on ``device``; a model of
    another precision casts inside. The same call gives the same values whatever came before it, which is
    what makes the loop independent of order, batches and processes.
    """

    @property
    def num_steps(self) -> int:
        """Number of inference steps."""
        ...

    @property
    def multistep(self) -> bool:
        """Whether a step needs the clean estimate of the step before (DPM-Solver++ 2M)."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of patches and predictions."""
        ...

    def initial(self, noise: Tensor) -> Tensor:
        """Scale unit noise, ``(B, C, h, w)``, to the initial latents of text-to-image at step 0."""
        ...

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """Return the value at the noise level of a step.

        Args:
            clean: Clean latents, ``(B, C, h, w)``.
            noise: Unit noise, shape of ``clean``.
            step: Number of the step in ``[0, num_steps]``; at ``num_steps`` the result is
                ``clean``.
        """
        ...

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the model's output with guidance applied, ``(B, C, P, Q)``.

        Args:
            x: Patches at the noise level of ``step``, ``(B, C, P, Q)``.
            step: Number of the step in ``[0, num_steps)``.
            origins: Row and column of each patch's first latent on the canvas; of a patch that reaches over
                the border, those of the nearest patch inside.
        """
        ...

    def advance(
        self, x: Tensor, prediction: Tensor, step: int, previous: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Take one step, sample by sample in closed form.

        Args:
            x: Input of ``predict``, ``(B, C, P, Q)``.
            prediction: Output of ``predict``.
            step: Number of the step in ``[0, num_steps)``.
            previous: Clean estimate of the step before; ``None`` at step 0 or if ``multistep`` is false.

        Returns:
            The value at the level of ``step + 1``, and the clean estimate if ``multistep``, else ``None``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: Number of the stage in its job.
        step: Current step, or the one just finished.
        num_steps: Steps of the stage.
        done: Patches of this step that are finished.
        total: Patches of this step.
        calls: Patches finished in this stage, all steps, those before a resume included.
        calls_total: Expected value of ``calls`` at the end; exact for grids, a mean for random covers.
    """

    stage: int
    step: int
    num_steps: int
    done: int
    total: int
    calls: int
    calls_total: int


# both stop the stage by returning true; what was finished is kept
OnPatch = Callable[[Progress], bool | None]
OnStep = Callable[[Progress, "Canvas"], bool | None]


class StageInterrupted(Exception):  # noqa: N818 - no error: a hook requested it
    """A hook asked the stage to stop.

    Attributes:
        progress: Position at which the stage stopped.
        canvas: State after the last finished step.
    """

    def __init__(self, progress: Progress, canvas: Canvas) -> None:
        super().__init__(
            f"stopped at step {progress.step + 1} of {progress.num_steps}, "
            f"patch {progress.done} of {progress.total}"
        )
        self.progress = progress
        self.canvas = canvas
