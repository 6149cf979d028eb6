# SPDX-License-Identifier: Apache-2.0
"""Callbacks, progress bars and interrupts in the manner of diffusers, around the loop of a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from pixelsmith.adapters.base import Condition, sided
from pixelsmith.core.protocol import Denoiser, OnPatch, Progress
from pixelsmith.job.progress import Hooks, JobProgress
from pixelsmith.store.canvas import Canvas

_TENSORS = ("latents", "prompt_embeds")
# as in diffusers: pipeline, step, timestep, tensors by name; returns tensors that replace them
StepCallback = Callable[[Any, int, Any, dict[str, Any]], Mapping[str, Any] | None]


class CallbackAdapter:
    """Calls the user's callbacks at every step, and reports to the loop whether the pipeline is interrupted.

    Args:
        pipe: Host pipeline with ``_interrupt`` and ``_stage``.
        callback: Called after every step.
        tensors: Names of the tensors that are passed to the callback.
        on_patch: Called after every patch; a true value stops.

    Raises:
        ValueError: If another tensor than those is requested.
    """

    def __init__(
        self, pipe: Any, callback: StepCallback | None, tensors: Sequence[str], on_patch: OnPatch | None
    ) -> None:
        # callbacks that are objects of diffusers name their tensors themselves
        names = getattr(callback, "tensor_inputs", tensors)
        others = sorted(set(names) - set(_TENSORS))
        if others:
            raise ValueError(f"callbacks can be given {' and '.join(_TENSORS)} only, got {', '.join(others)}")
        self.pipe, self.callback, self.names, self.user_on_patch = pipe, callback, list(names), on_patch
        self.denoiser: Any = None
        self.bar: Any = None

    @property
    def hooks(self) -> Hooks:
        """Hooks of the job."""
        return Hooks(on_stage=self.on_stage, on_patch=self.on_patch, on_step=self.on_step)

    def host_arguments(self) -> dict[str, object]:
        """Return the arguments with which a host pipeline calls the same callback for the base image."""
        if self.callback is None:
            return {}
        return {"callback_on_step_end": self._relay, "callback_on_step_end_tensor_inputs": self.names}

    def on_progress(self, progress: JobProgress) -> bool:
        """Return whether the pipeline is interrupted."""
        return self.pipe._interrupt

    def on_stage(self, number: int, denoiser: Denoiser) -> None:
        """Begin a stage."""
        self.close()
        self.denoiser = denoiser
        self.pipe._stage = number + 1
        self.pipe._num_timesteps = denoiser.num_steps
        self.bar = self.pipe.progress_bar(total=1)

    def close(self) -> None:
        """End the progress bar of a stage."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_patch(self, progress: Progress) -> bool:
        """Advance the progress bar; return whether to stop."""
        self.bar.total = progress.calls_total
        self.bar.update()
        stops = self.user_on_patch is not None and bool(self.user_on_patch(progress))
        self.pipe._interrupt = self.pipe._interrupt or stops
        return self.pipe._interrupt

    def on_step(self, progress: Progress, canvas: Canvas) -> bool:
        """Call the callback; latents that it returns replace the state."""
        if self.callback is None:
            return self.pipe._interrupt
        state = canvas.data.unsqueeze(0)
        tensors: dict[str, Any] = {"latents": state}
        if "prompt_embeds" in self.names:
            tensors["prompt_embeds"] = self._embeds()
        given = {name: tensors[name] for name in self.names}
        found = self.callback(self.pipe, progress.step, self.denoiser.timestep(progress.step), given) or {}
        latents = found.get("latents", state)
        if latents is not state:
            canvas.write(0, 0, latents[0])
        embeds = found.get("prompt_embeds")
        if embeds is not None and embeds is not tensors.get("prompt_embeds"):
            self._replace_embeds(embeds)
        return self.pipe._interrupt

    def _embeds(self) -> Tensor:
        """Return the embeddings of the stage, ``(2, L, D)``, negative side first, or ``(1, L, D)``.

        Raises:
            ValueError: If every patch has a prompt of its own.
        """
        condition = self.denoiser.prompts.condition
        if not isinstance(condition, Condition):
            raise ValueError(
                "prompt_embeds cannot be given to a callback where each patch has its own prompt"
            )
        guided = self.denoiser.extras.guidance.is_on(condition)
        return sided(condition.negative_embeds if guided else None, condition.embeds)

    def _replace_embeds(self, embeds: Tensor) -> None:
        """Set the embeddings of the stage; a single row switches guidance off, as in the hosts."""
        condition = self.denoiser.prompts.condition
        negative = embeds[:1] if len(embeds) > 1 else None
        self.denoiser.prompts.condition = replace(condition, embeds=embeds[-1:], negative_embeds=negative)

    def _relay(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Relay the call of a host, which expects a result and may be another pipeline over the parts."""
        assert self.callback is not None
        found = dict(self.callback(self.pipe, step, timestep, tensors) or {})
        pipe._interrupt = self.pipe._interrupt
        return found
