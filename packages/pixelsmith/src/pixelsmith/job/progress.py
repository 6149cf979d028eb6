# SPDX-License-Identifier: Apache-2.0
"""Progress of a job, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pixelsmith.core.protocol import Denoiser, OnPatch, OnStep
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows

__all__ = ["Hooks", "JobInterrupted", "JobProgress", "OnProgress", "Phase"]

Phase = Literal["source", "encode", "denoise", "decode", "write"]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes:
        phase: Phase of the job: read or generate the first image, encode, denoise, decode, write the file.
        stage: Number of the stage; behind the last one while writing.
        num_stages: Number of stages.
        done: Tiles, or patches through the model, that are finished in this phase of this stage, those before
            a resume included.
        total: Expected value of ``done`` at the end.
        step: Current inference step, while denoising.
        num_steps: Number of inference steps, while denoising.
    """

    phase: Phase
    stage: int
    num_stages: int
    done: int
    total: int
    step: int = 0
    num_steps: int = 0


# a true value stops the job; what was finished is kept
OnProgress = Callable[[JobProgress], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Callbacks inside the denoising loop.

    Attributes:
        on_stage: Called before the loop of a stage with its number, -1 for a base image, and its denoiser.
        on_patch: Called after every patch; a true value stops the job.
        on_step: Called after every step with the new state; a true value stops the job. In a
            :class:`pixelsmith.store.MemoryStore` it may change the state.
    """

    on_stage: Callable[[int, Denoiser], object] | None = None
    on_patch: OnPatch | None = None
    on_step: OnStep | None = None


class JobInterrupted(Exception):  # noqa: N818 - no error: a hook requested it
    """A hook asked the job to stop; a job in a folder can be resumed.

    Attributes:
        progress: Position at which the job stopped.
        latents: State after the last finished step, if it stopped while denoising.
        image: The last finished image; ``None`` if there is none yet.
    """

    def __init__(self, progress: JobProgress, latents: Canvas | None = None) -> None:
        super().__init__(f"stopped in stage {progress.stage + 1} of {progress.num_stages}: {progress.phase}")
        self.progress = progress
        self.latents = latents
        self.image: ArrayRows | None = None
