# SPDX-License-Identifier: Apache-2.0
"""The call that all pipelines share: a job in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from common_kernels.runtime.images import ImageSource, as_rgb
from numpy.typing import NDArray

from pixelsmith.adapters.assets import locate_model
from pixelsmith.adapters.choosing import Announce, ensure_closed_form
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.options import ModelOptions
from pixelsmith.adapters.weights import check_weights, refuse_pickle
from pixelsmith.config import Fit, JobConfig, SizeConfig, Slider, Wrap
from pixelsmith.core.protocol import OnPatch
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.plan import plan_job
from pixelsmith.job.progress import JobInterrupted
from pixelsmith.job.run import Job
from pixelsmith.pipelines.callbacks import CallbackAdapter, StepCallback
from pixelsmith.pipelines.images import check_output_type, from_pixels, join_flags, join_images
from pixelsmith.pipelines.requests import Embeddings, Generators, Prompt, Request, expand
from pixelsmith.store.memory import MemoryStore
from pixelsmith.store.rows import ArrayRows

_log = logging.getLogger(__name__)
_OPTIONS = {field.name for field in fields(ModelOptions)}
_LOOP = {field.name for field in fields(JobConfig)} - {"patch", "patch_multiple"}
_ALIASES = {"cross_attention_kwargs": "attention_kwargs", "joint_attention_kwargs": "attention_kwargs"}


class PixelsmithMixin:
    """Replaces the call of a text-to-image pipeline of diffusers; all else is inherited."""

    output: ClassVar[type[Any]]
    _interrupt: bool
    _stage: int = 0

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, announce: Announce = _log.warning, **kwargs: Any
    ) -> Any:
        """Load a pipeline, as the host class does, from safetensors only.

        A scheduler without closed form is replaced by the nearest that has one.

        Args:
            pretrained_model_name_or_path: Folder, hub id, or the name of a model shipped with this package.
            announce: Called with one sentence if the scheduler is replaced.
            kwargs: Keyword arguments of the host class, such as ``variant``.

        Raises:
            ModelNotFoundError: If weights are pickles only, which can run code, or lack the variant.
            ValueError: If ``use_safetensors`` is false.
        """
        place = locate_model(pretrained_model_name_or_path)
        if not kwargs.setdefault("use_safetensors", True):
            raise ValueError("use_safetensors must be true: other weights are pickles, which can run code")
        check_weights(Path(place), kwargs.get("variant"))
        host: Any = super()
        pipe = host.from_pretrained(place, **kwargs)
        ensure_closed_form(pipe, announce)
        return pipe

    @classmethod
    def from_single_file(
        cls, pretrained_model_link_or_path: str | Path, *, announce: Announce = _log.warning, **kwargs: Any
    ) -> Any:
        """Load a pipeline from one ``.safetensors`` file in the format of its authors.

        A scheduler without closed form is replaced by the nearest that has one.

        Args:
            pretrained_model_link_or_path: The file.
            announce: Called with one sentence if the scheduler is replaced.
            kwargs: Keyword arguments of the host class, such as ``config``.

        Raises:
            ModelNotFoundError: If the file is a pickle, which can run code.
        """
        refuse_pickle(Path(pretrained_model_link_or_path))
        host: Any = super()
        pipe = host.from_single_file(str(pretrained_model_link_or_path), **kwargs)
        ensure_closed_form(pipe, announce)
        return pipe

    def to_json_string(self) -> str:
        """Return the index of a saved pipeline, which names the class of the host: any tool can load it."""
        host: Any = super()
        index = json.loads(host.to_json_string())
        index["_class_name"] = next(
            kind.__name__ for kind in type(self).__mro__ if kind.__module__.startswith("diffusers.")
        )
        return json.dumps(index, indent=2, sort_keys=True) + "\n"

    @property
    def stage(self) -> int:
        """Current stage: 0 for the base image, from 1 for the enlargements."""
        return self._stage

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        image: ImageSource | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        scale: float | None = None,
        stages: int = 1,
        fit: Fit | None = None,
        slider: Slider | list[Slider] = "auto",
        wrap: Wrap = "none",
        seed: int | None = None,
        generator: Generators | None = None,
        num_images_per_prompt: int = 1,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
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
            prompt: Prompt, text or embeddings, or a list of them, each of which gives images of its own.
            image: Image to enlarge, of any size and aspect: a path, a Pillow image of any mode, an array
                ``(H, W, C)`` or a tensor ``(C, H, W)``. Without one, the host pipeline generates a base image
                first.
            height: Height of the result in pixels, a multiple of the VAE scale factor. Without it,
                it follows from the width.
            width: Width of the result in pixels, likewise.
            scale: Enlargement of the sides of ``image``, or of the native size; 2 if nothing is given.
            stages: Number of stages, all of which enlarge by the same factor.
            fit: How an image of another shape than ``height`` and ``width`` comes to it: ``"crop"`` keeps its
                middle, ``"pad"`` adds white; refused if ``None``.
            slider: Guided steps, see :class:`pixelsmith.JobConfig`; a list has one for each stage.
            wrap: Sides that join their opposite.
            seed: Random seed of the first image, the next have the next; drawn if neither it nor
                ``generator`` is given.
            generator: Generator from which the seeds are drawn, or one for each image.
            num_images_per_prompt: Number of images of each prompt.
            latents: Initial latents of the base images, a row for each, in the form of the host.
            prompt_embeds: Embeddings instead of ``prompt``, a row for each prompt.
            pooled_prompt_embeds: Their pooled side, for models that take one.
            negative_prompt_embeds: Embeddings of the negative prompts.
            negative_pooled_prompt_embeds: Their pooled side.
            callback_on_step_end: Callback as in diffusers, called after every step, of the base image too;
                the property ``stage`` is the stage of the step. Latents that it returns replace the state.
            callback_on_step_end_tensor_inputs: ``"latents"`` and ``"prompt_embeds"``, the latter with both
                sides of guidance as in the host; embeddings that the callback returns hold from the next step
                to the end of the stage.
            on_patch: Callback after every patch; a true value stops, as does ``pipe._interrupt = True``.
            output_type: Form of the result: ``"pil"``, ``"np"``, ``"pt"``, or ``"latent"`` (unpacked,
                ``(1, C, h, w)``).
            return_dict: Whether to return the output class of the host, or a tuple.
            settings: Fields of :class:`pixelsmith.adapters.ModelOptions`, such as ``negative_prompt`` and
                ``num_inference_steps``, and of :class:`pixelsmith.JobConfig`, such as ``plan`` and
                ``batch_size``.

        Returns:
            The output class of the host, all images of the first prompt first. A call that was stopped
            returns the last finished image, which may be the one that it began with.

        Raises:
            TypeError: If a setting is unknown, or the image is of another type.
            ValueError: If a size or setting does not fit, or the scheduler has no closed form.
        """
        check_output_type(output_type)
        callbacks = CallbackAdapter(self, callback_on_step_end, callback_on_step_end_tensor_inputs, on_patch)
        pixels = None if image is None else np.asarray(as_rgb(image))
        if latents is not None and (image is not None or wrap != "none"):
            raise ValueError("latents are those of a base image; leave them out with image= and with wrap=")
        requests = expand(
            prompt, settings, num_images_per_prompt=num_images_per_prompt, seed=seed, generator=generator,
            latents=latents, embeddings=Embeddings(
                prompt_embeds=prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            ),
        )  # fmt: skip
        sizes = SizeConfig(height=height, width=width, scale=scale, stages=stages, fit=fit)
        sliders: list[Slider] = [*slider] if isinstance(slider, list) else [slider]
        made = [
            self._make(request, pixels, (sizes, sliders, wrap), callbacks, output_type)
            for request in requests
        ]
        images, flags = [image for image, _ in made], [flag for _, flag in made]
        result = self._fields(join_images(images), join_flags(flags))
        return self.output(**result) if return_dict else self._tuple(result, output_type)

    def _make(
        self,
        request: Request,
        pixels: NDArray[Any] | None,
        shape: tuple[SizeConfig, list[Slider], Wrap],
        callbacks: CallbackAdapter,
        output_type: str,
    ) -> tuple[Any, list[bool] | None]:
        """Return one image in the form of the output, and the flags of a safety checker."""
        sizes, sliders, wrap = shape
        options, loop = split_settings(request.settings)
        model = from_pipeline(self, request.prompt, **options)
        loop |= {"wrap": wrap, "seed": request.seed}
        config = JobConfig(patch=model.patch, patch_multiple=model.patch_multiple, **loop)  # pyright: ignore[reportArgumentType]  # checked on construction
        spec = plan_job(
            model, config, sizes, image_size=None if pixels is None else pixels.shape[:2], sliders=sliders
        )
        model.base_arguments = callbacks.host_arguments()
        if request.latents is not None:
            model.base_arguments = {**model.base_arguments, "latents": request.latents}
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
        if output_type == "latent":
            canvas = TiledVAE(model.vae).encode_whole(ArrayRows(found)) if latents is None else latents
            return canvas.data.unsqueeze(0), None
        shown, flags = self._screen(found)
        return from_pixels(shown, output_type), flags

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

    def _tuple(self, result: dict[str, Any], output_type: str) -> tuple[Any, ...]:
        return (result["images"],) if output_type == "latent" else tuple(result.values())

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
