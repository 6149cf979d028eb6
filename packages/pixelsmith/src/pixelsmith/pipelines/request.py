# SPDX-License-Identifier: Apache-2.0
"""What a call of a pipeline asks for, checked before anything is computed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from numpy.typing import NDArray

from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.options import ModelOptions
from pixelsmith.core.config import JobConfig, Slider
from pixelsmith.core.protocol import OnPatch, Progress
from pixelsmith.core.steps import plan_steps
from pixelsmith.job.spec import base_size, nearest_size, scaled_size
from pixelsmith.pipelines.enlarge import check_sizes
from pixelsmith.pipelines.sizes import Stage, plan_stages

# as by diffusers: pipeline, step, timestep, tensors by name; returns tensors that replace them
StepCallback = Callable[[Any, int, Any, dict[str, Any]], Mapping[str, Any] | None]

_OPTIONS = {field.name for field in fields(ModelOptions)}
_LOOP = {field.name for field in fields(JobConfig)} - {"patch", "patch_multiple"}
_ALIASES = {"cross_attention_kwargs": "attention_kwargs", "joint_attention_kwargs": "attention_kwargs"}


def split_settings(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Tell settings of the model from those of the loop.

    Returns:
        Fields of :class:`ModelOptions`, and fields of :class:`JobConfig`.

    Raises:
        TypeError: If one is neither.
    """
    plain = {_ALIASES.get(name, name): value for name, value in settings.items()}
    unknown = sorted(set(plain) - _OPTIONS - _LOOP)
    if unknown:
        raise TypeError(
            f"unknown settings: {', '.join(unknown)}; those of ModelOptions and of JobConfig are known"
        )
    model = {name: value for name, value in plain.items() if name in _OPTIONS}
    return model, {name: value for name, value in plain.items() if name in _LOOP}


def choose_seed(seed: int | None, generator: torch.Generator | None) -> int:
    """Return the seed of a job; one that nobody gave is drawn, without touching the global generators.

    Raises:
        TypeError: If the generator is a list.
        ValueError: If both are given.
    """
    if generator is None:
        return secrets.randbelow(2**63) if seed is None else seed
    if seed is not None:
        raise ValueError("seed and generator cannot both be given; leave one out")
    if not isinstance(generator, torch.Generator):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"generator must be one torch.Generator, got {type(generator).__name__}")
    drawn = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return int(drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Which size is wanted.

    Attributes:
        height: Pixels.
        width: Pixels.
        scale: Of the sides of the picture that is given, or of the model's own size.
        stages: Over how many enlargements.
    """

    height: int | None = None
    width: int | None = None
    scale: float | None = None
    stages: int = 1

    def __post_init__(self) -> None:
        if self.scale is not None and (self.height is not None or self.width is not None):
            raise ValueError("scale and height or width cannot both be given; leave one out")

    def of(self, model: PipelineModel, held: tuple[int, int] | None) -> tuple[int, int]:
        """Return height and width of the result.

        Args:
            model: Tells its own size.
            held: Height and width of the picture that is given, pixels; ``None`` if one is to be made.
        """
        native = model.patch * model.pixels
        height, width = held or (native, native)
        if self.height is None and self.width is None:
            return scaled_size((height, width), 2.0 if self.scale is None else self.scale, model.pixels)
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.width is not None:
            return nearest_size((self.width * height / width, self.width), model.pixels)[0], self.width
        assert self.height is not None
        return self.height, nearest_size((self.height, self.height * width / height), model.pixels)[1]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be done.

    Attributes:
        first: Height and width of the picture that everything begins with, pixels.
        stages: Enlargements.
        configs: Of each of them.
        config: Of the job, with the slider of the first stage.
    """

    first: tuple[int, int]
    stages: Sequence[Stage]
    configs: Sequence[JobConfig]
    config: JobConfig


def plan_request(
    model: PipelineModel,
    picture: NDArray[Any] | None,
    size: Size,
    sliders: Slider | list[Slider],
    loop: Mapping[str, object],
) -> Request:
    """Work out the stages, and refuse what cannot be done.

    Args:
        model: The model.
        picture: ``(H, W, 3)``, or ``None`` if one is to be made.
        size: Which size is wanted.
        sliders: One for all stages, or a list with one for each.
        loop: Fields of :class:`JobConfig`.

    Raises:
        ValueError: If a size, a slider or a setting does not fit.
    """
    held = None if picture is None else (picture.shape[0], picture.shape[1])
    target = size.of(model, held)
    first = held or base_size(target, model)
    stages = plan_stages(first, target, model.pixels, size.stages) if held or first != target else []
    each = sliders if isinstance(sliders, list) else [sliders] * max(1, len(stages))
    if len(each) != max(1, len(stages)):
        raise ValueError(
            f"there must be one slider, or one for each of the {len(stages)} stages, got {len(each)}"
        )
    config = JobConfig(**{  # pyright: ignore[reportArgumentType]  # checked on construction
        **loop, "patch": model.patch, "patch_multiple": model.patch_multiple, "slider": each[0],
    })  # fmt: skip
    configs = [replace(config, slider=one) for one in each[: len(stages)]]
    check_sizes(model, [*([] if held else [first]), *(stage.size for stage in stages)], config)
    steps = model.solver(model.patch**2).num_steps
    for stage, own in zip(stages, configs, strict=True):
        plan_steps(own, steps, scale=stage.scale)
    return Request(first, stages, configs, config)


class Watch:
    """Tells callbacks in the manner of diffusers what the loop does, and the loop whether to stop.

    Args:
        pipe: Pipeline with ``_interrupt``.
        callback: Called after every step.
        tensors: Names of the tensors that it wants.
        on_patch: Called after every patch; a true value stops.

    Raises:
        ValueError: If another tensor than the latents is asked for.
    """

    def __init__(
        self, pipe: Any, callback: StepCallback | None, tensors: Sequence[str], on_patch: OnPatch | None
    ) -> None:
        # callbacks that are objects of diffusers say by themselves what they want
        names = getattr(callback, "tensor_inputs", tensors)
        others = sorted(set(names) - {"latents"})
        if others:
            raise ValueError(
                f"callbacks can be given the latents only, since prompts belong to patches, got {others}"
            )
        self.pipe, self.callback, self.names, self.user_on_patch = pipe, callback, list(names), on_patch
        self.denoiser: Any = None
        self.bar: Any = None

    def on_stage(self, denoiser: Any) -> None:
        """Begin a stage."""
        self.close()
        self.denoiser = denoiser
        self.pipe._num_timesteps = denoiser.num_steps
        self.bar = self.pipe.progress_bar(total=1)

    def close(self) -> None:
        """End the bar of a stage."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_patch(self, progress: Progress) -> bool:
        """Move the bar; say whether to stop."""
        self.bar.total = progress.calls_total
        self.bar.update()
        asked = self.user_on_patch is not None and bool(self.user_on_patch(progress))
        self.pipe._interrupt = self.pipe._interrupt or asked
        return self.pipe._interrupt

    def on_step(self, progress: Progress, canvas: Any) -> bool:
        """Call the callback; let the latents that it returns take the place of the state."""
        if self.callback is None:
            return self.pipe._interrupt
        state = canvas.data.unsqueeze(0)
        given = {"latents": state} if self.names else {}
        found = self.callback(self.pipe, progress.step, self.denoiser.timestep(progress.step), given) or {}
        latents = found.get("latents", state)
        if latents is not state:
            canvas.write(0, 0, latents[0])
        return self.pipe._interrupt
