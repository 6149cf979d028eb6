# SPDX-License-Identifier: Apache-2.0
"""The call that all pipelines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from pixelsmith.adapters.assets import locate_model
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.core.config import Slider, Wrap
from pixelsmith.core.protocol import OnPatch
from pixelsmith.io.vae import TiledVAE
from pixelsmith.pipelines.enlarge import Enlarged, Hooks, encode, enlarge, paint_seamless
from pixelsmith.pipelines.pictures import Picture, check_output_type, from_pixels, to_pixels
from pixelsmith.pipelines.request import (
    Request,
    Size,
    StepCallback,
    Watch,
    choose_seed,
    plan_request,
    split_settings,
)


class PixelsmithMixin:
    """Stands before a text-to-image pipeline of diffusers and replaces its call; all else is inherited."""

    output: ClassVar[type[Any]]
    _interrupt: bool
    _stage: int = 0

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load a pipeline, as the host class does.

        Args:
            pretrained_model_name_or_path: Folder, hub id, or the name of a model shipped with this package.
            kwargs: As by the host class.
        """
        place = locate_model(pretrained_model_name_or_path)
        host: Any = super()
        return host.from_pretrained(place, **kwargs)

    @property
    def stage(self) -> int:
        """Stage under way: 0 for the base picture, from 1 for the enlargements."""
        return self._stage

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Condition = "",
        image: Picture | None = None,
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
        """Generate a large picture, or enlarge one.

        The result has ``height`` and ``width``, or ``scale`` times the sides of ``image``, or of the size
        that the model was trained at. All of it lies in RAM; for pictures beyond that use the command line
        or :class:`pixelsmith.job.Job`.

        Args:
            prompt: What the picture shows.
            image: Picture to enlarge, of any size and aspect: a Pillow image or ``(H, W, 3)`` uint8. Without
                one, the host pipeline makes a base picture first.
            height: Of the result, pixels, a multiple of the latent cell (8 pixels). Of height and width, one
                may be left out.
            width: Likewise.
            scale: Of the sides, instead of them; 2 if nothing is given.
            stages: Over how many enlargements.
            slider: Guided steps, see :class:`pixelsmith.JobConfig`; a list has one for each stage.
            wrap: Sides that join their opposite.
            seed: Of all noise; drawn if neither it nor ``generator`` is given.
            generator: The seed is drawn from it.
            callback_on_step_end: Called as by diffusers after every step, of the base picture too; the
                property ``stage`` says of which. Latents that it returns take the place of the state.
            callback_on_step_end_tensor_inputs: ``("latents",)`` or nothing.
            on_patch: Called after every patch; a true value stops, as does ``pipe._interrupt = True``.
            output_type: ``"pil"``, ``"np"``, ``"pt"``, or ``"latent"``: ``(1, C, h, w)``, not packed.
            return_dict: Whether to return the output class of the host, or a tuple.
            settings: Fields of :class:`pixelsmith.adapters.ModelOptions`, such as ``negative_prompt`` and
                ``num_inference_steps``, and of :class:`pixelsmith.JobConfig`, such as ``plan`` and
                ``batch_size``.

        Returns:
            The output of the host with one picture. A call that was stopped returns the last picture that
            was finished, which may be the one that it began with.

        Raises:
            TypeError: If a setting is unknown, or the image is none.
            ValueError: If a size or setting does not fit, or the scheduler has no closed form.
        """
        check_output_type(output_type)
        watch = Watch(self, callback_on_step_end, callback_on_step_end_tensor_inputs, on_patch)
        picture = None if image is None else to_pixels(image)
        options, loop = split_settings(settings)
        loop |= {"wrap": wrap, "seed": choose_seed(seed, generator)}
        model = from_pipeline(self, prompt, **options)
        size = Size(height=height, width=width, scale=scale, stages=stages)
        request = plan_request(model, picture, size, slider, loop)
        self._begin(model)
        try:
            found = self._run(model, picture, request, watch)
        finally:
            watch.close()
            pipe: Any = self
            pipe.maybe_free_model_hooks()
        return self._finish(model, found, output_type, return_dict)

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

    def _run(
        self, model: PipelineModel, picture: NDArray[Any] | None, request: Request, watch: Watch
    ) -> Enlarged:
        hooks = Hooks(on_stage=watch.on_stage, on_patch=watch.on_patch, on_step=watch.on_step)
        found = Enlarged(picture, None, True) if picture is not None else None
        if found is None and any(request.config.wraps):
            found = paint_seamless(model, request.first, request.config, hooks)
        elif found is None:
            found = self._paint(model, request, watch)
        if not found.is_finished or not request.stages:
            return found

        def on_stage(denoiser: Any) -> None:
            self._stage += 1
            watch.on_stage(denoiser)

        own = Hooks(on_stage=on_stage, on_patch=watch.on_patch, on_step=watch.on_step)
        return enlarge(model, found.pixels, request.stages, request.configs, own)

    def _paint(self, model: PipelineModel, request: Request, watch: Watch) -> Enlarged:
        """Let the host make the base picture, with the callback of the user."""
        more: dict[str, object] = {}
        if watch.callback is not None:
            more = {
                "callback_on_step_end": _relayed(watch.callback, self),
                "callback_on_step_end_tensor_inputs": watch.names,
            }
        pixels = model.base_image(request.first, request.config.seed, **more)
        return Enlarged(pixels, None, not self._interrupt)

    def _finish(self, model: PipelineModel, found: Enlarged, output_type: str, return_dict: bool) -> Any:
        if output_type == "latent":
            latents = found.latents
            if latents is None:
                latents = encode(TiledVAE(model.vae), found.pixels, found.pixels.shape[:2])
            images: Any = latents.data.unsqueeze(0)
            return self.output(**self._fields(images, None)) if return_dict else (images,)
        pixels, flags = self._screen(found.pixels)
        images = from_pixels(pixels, output_type)
        result = self._fields(images, flags)
        return self.output(**result) if return_dict else tuple(result.values())

    def _screen(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], list[bool] | None]:
        """Return the picture, and what a checker of the host says of it."""
        return pixels, None

    def _fields(self, images: Any, flags: list[bool] | None) -> dict[str, Any]:
        return {"images": images}


def _relayed(callback: StepCallback, owner: Any) -> StepCallback:
    """Wrap a callback for a host, which expects a result, and may be another pipeline over the same parts."""

    def call(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        found = dict(callback(owner, step, timestep, tensors) or {})
        pipe._interrupt = owner._interrupt
        return found

    return call
