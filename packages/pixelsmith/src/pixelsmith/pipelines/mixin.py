# SPDX-License-Identifier: Apache-2.0
"""The call that all pipelines share: a job in memory."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from common_kernels.runtime.images import ImageSource, as_rgb
from numpy.typing import NDArray

from pixelsmith.adapters.assets import locate_model
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.options import ModelOptions
from pixelsmith.config import JobConfig, SizeConfig, Slider, Wrap
from pixelsmith.core.protocol import OnPatch
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.plan import plan_job
from pixelsmith.job.progress import JobInterrupted
from pixelsmith.job.run import Job
from pixelsmith.pipelines.callbacks import CallbackAdapter, StepCallback
from pixelsmith.pipelines.images import check_output_type, from_pixels
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.memory import MemoryStore
from pixelsmith.store.rows import ArrayRows

_OPTIONS = {field.name for field in fields(ModelOptions)}
_LOOP = {field.name for field in fields(JobConfig)} - {"patch", "patch_multiple"}
_ALIASES = {"cross_attention_kwargs": "attention_kwargs", "joint_attention_kwargs": "attention_kwargs"}


class PixelsmithMixin:
    """Replaces the call of a text-to-image pipeline of diffusers; all else is inherited."""

    output: ClassVar[type[Any]]
    _interrupt: bool
    _stage: int = 0

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load a pipeline, as the host class does.

        Args:
            pretrained_model_name_or_path: Folder, hub id, or the name of a model shipped with this package.
            kwargs: Keyword arguments of the host class.
        """
        place = locate_model(pretrained_model_name_or_path)
        host: Any = super()
        return host.from_pretrained(place, **kwargs)

    @property
    def stage(self) -> int:
        """Current stage: 0 for the base image, from 1 for the enlargements."""
        return self._stage

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Condition = "",
        image: ImageSource | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        scale: float | None = None,
        stages: int = 1,
        slider: Slider | list[Slider] = "auto",
        wrap: Wrap = "none",
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] | list[str] = ("latents",),
        on_patch: OnPatch | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        **settings: object,
    ) -> Any:
        """Generate a large image, or enlarge one.

        This is a :class:`pixelsmith.job.Job` in memory. For images that do not fit, or runs that have to be
        resumable, use the command line or a job in a folder.

        Args:
            prompt: Prompt, or its embeddings.
            image: Image to enlarge, of any size and aspect: a path, a Pillow image of any mode, an array
                ``(H, W, C)`` or a tensor ``(C, H, W)``. Without one, the host pipeline generates a base image
                first.
            height: Height of the result in pixels, a multiple of the VAE scale factor. Without it,
                it follows from the width.
            width: Width of the result in pixels, likewise.
            scale: Enlargement of the sides of ``image``, or of the native size; 2 if nothing is given.
            stages: Number of stages, all of which enlarge by the same factor.
            slider: Guided steps, see :class:`pixelsmith.JobConfig`; a list has one for each stage.
            wrap: Sides that join their opposite.
            seed: Random seed; drawn if neither it nor ``generator`` is given.
            generator: Generator from which the seed is drawn.
            callback_on_step_end: Callback as in diffusers, called after every step, of the base image too;
                the property ``stage`` is the stage of the step. Latents that it returns replace the state.
            callback_on_step_end_tensor_inputs: ``("latents",)`` or nothing.
            on_patch: Callback after every patch; a true value stops, as does ``pipe._interrupt = True``.
            output_type: Form of the result: ``"pil"``, ``"np"``, ``"pt"``, or ``"latent"`` (unpacked,
                ``(1, C, h, w)``).
            return_dict: Whether to return the output class of the host, or a tuple.
            settings: Fields of :class:`pixelsmith.adapters.ModelOptions`, such as ``negative_prompt`` and
                ``num_inference_steps``, and of :class:`pixelsmith.JobConfig`, such as ``plan`` and
                ``batch_size``.

        Returns:
            The output class of the host with one image. A call that was stopped returns the last finished
            image, which may be the one that it began with.

        Raises:
            TypeError: If a setting is unknown, or the image is of another type.
            ValueError: If a size or setting does not fit, or the scheduler has no closed form.
        """
        check_output_type(output_type)
        callbacks = CallbackAdapter(self, callback_on_step_end, callback_on_step_end_tensor_inputs, on_patch)
        pixels = None if image is None else np.asarray(as_rgb(image))
        options, loop = split_settings(settings)
        model = from_pipeline(self, prompt, **options)
        loop |= {"wrap": wrap, "seed": choose_seed(seed, generator)}
        config = JobConfig(patch=model.patch, patch_multiple=model.patch_multiple, **loop)  # pyright: ignore[reportArgumentType]  # checked on construction
        spec = plan_job(
            model, config, SizeConfig(height=height, width=width, scale=scale, stages=stages),
            image_size=None if pixels is None else pixels.shape[:2],
            sliders=slider if isinstance(slider, list) else [slider],
        )  # fmt: skip
        model.base_arguments = callbacks.host_arguments()
        job = Job(
            model, spec, MemoryStore(), image=pixels, on_progress=callbacks.on_progress, hooks=callbacks.hooks
        )
        self._begin(model)
        try:
            result = job.run()
            found, latents = result.image.array, result.latents
        except JobInterrupted as stopped:
            found = (
                np.zeros((*spec.source_size, 3), np.uint8) if stopped.image is None else stopped.image.array
            )
            latents = stopped.latents
        finally:
            callbacks.close()
            pipe: Any = self
            pipe.maybe_free_model_hooks()
        return self._finish(model, found, latents, output_type, return_dict)

    def _begin(self, model: PipelineModel) -> None:
        """Set what the properties of the host read."""
        self._interrupt = False
        self._stage = 0
        state = {
            "_guidance_scale": model.guidance_scale,
            "_guidance_rescale": model.options.guidance_rescale,
            "_clip_skip": model.options.clip_skip,
            f"_{model.attention_name}": model.options.attention_kwargs,
            "_num_timesteps": model.num_inference_steps,
        }
        for name, value in state.items():
            setattr(self, name, value)

    def _finish(
        self,
        model: PipelineModel,
        pixels: NDArray[Any],
        latents: Canvas | None,
        output_type: str,
        return_dict: bool,
    ) -> Any:
        if output_type == "latent":
            images: Any = (encode(model, pixels) if latents is None else latents).data.unsqueeze(0)
            return self.output(**self._fields(images, None)) if return_dict else (images,)
        pixels, flags = self._screen(pixels)
        result = self._fields(from_pixels(pixels, output_type), flags)
        return self.output(**result) if return_dict else tuple(result.values())

    def _screen(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], list[bool] | None]:
        """Return the image, and the flags of a safety checker of the host."""
        return pixels, None

    def _fields(self, images: Any, flags: list[bool] | None) -> dict[str, Any]:
        return {"images": images}


def split_settings(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Separate settings of the model from those of the loop.

    Returns:
        Fields of :class:`ModelOptions`, and fields of :class:`JobConfig`.

    Raises:
        TypeError: If a setting is unknown.
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
    """Return the seed of a job; without a seed one is drawn, without touching the global generators.

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


def encode(model: PipelineModel, pixels: NDArray[Any]) -> Canvas:
    """Return the latents of an image."""
    vae = TiledVAE(model.vae)
    canvas = Canvas.zeros(vae.latent_channels, *vae.size(*pixels.shape[:2]))
    for top, latents in vae.encode(ArrayRows(pixels)):
        canvas.write(top, 0, latents)
    return canvas
