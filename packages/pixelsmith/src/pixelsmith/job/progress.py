# SPDX-License-Identifier: Apache-2.0
"""What a job tells while it runs, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["JobInterrupted", "JobProgress", "OnProgress", "Phase"]

Phase = Literal["source", "encode", "denoise", "decode", "write"]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes:
        phase: What it does: read or make the first picture, encode, denoise, decode, write the file.
        stage: Number of the stage; behind the last one while writing.
        num_stages: All of them.
        done: Tiles, or patches through the model, that are finished in this phase of this stage, those before
            a resume included.
        total: Expected value of ``done`` at the end.
        step: Step of the model under way, while denoising.
        num_steps: Its steps, while denoising.
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


class JobInterrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """A hook asked the job to stop; its folder can be resumed.

    Attributes:
        progress: Where it stopped.
    """

    def __init__(self, progress: JobProgress) -> None:
        super().__init__(f"stopped in stage {progress.stage + 1} of {progress.num_stages}: {progress.phase}")
        self.progress = progress
