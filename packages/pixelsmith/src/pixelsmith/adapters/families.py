# SPDX-License-Identifier: Apache-2.0
"""The pipelines of diffusers that a job can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pixelsmith.adapters.base import Condition, Guidance
from pixelsmith.adapters.conditioning import Placement
from pixelsmith.adapters.control import Control, LatentControls
from pixelsmith.adapters.flux import FluxDenoiser
from pixelsmith.adapters.models import PipelineModel, rebuild
from pixelsmith.adapters.options import ModelOptions
from pixelsmith.adapters.schedulers import ClosedForm, closed_form
from pixelsmith.adapters.sd3 import SD3Denoiser
from pixelsmith.adapters.sdxl import SDXLDenoiser
from pixelsmith.adapters.unet import Controls, UNetDenoiser
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows


class SDModel(PipelineModel):
    """Stable Diffusion 1 and 2."""

    family = "sd"
    network_name = "unet"
    denoiser_class = UNetDenoiser
    default_steps = 50
    default_guidance = 7.5
    attention_name = "cross_attention_kwargs"
    host_name: ClassVar[str] = "StableDiffusionPipeline"
    control_host_name: ClassVar[str] = "StableDiffusionControlNetPipeline"

    @property
    def host(self) -> type[Any]:
        """Text to image of diffusers."""
        return _pipeline_class(self.host_name)

    @property
    def patch_multiple(self) -> int:
        """Divisor of the sides of patches in latents: the U-Net's factor of downsampling."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    def guidance(self) -> Guidance:
        """Return how two sides of a prompt are combined."""
        if self.network.config.time_cond_proj_dim is not None:
            return Guidance(scale=self.guidance_scale)
        return super().guidance()

    def _encode_by_host(self, given: dict[str, Any]) -> Condition:
        embeds, negative = self.pipe.encode_prompt(do_classifier_free_guidance=self._is_guided, **given)[:2]
        return Condition(embeds=embeds, negative_embeds=negative if self._is_guided else None)

    @property
    def _is_guided(self) -> bool:
        return self.guidance_scale > 1 and self.network.config.time_cond_proj_dim is None

    def _controls(self, size: tuple[int, int]) -> Controls | None:
        if not self.options.controls:
            return None
        return Controls(each=self.options.controls, size=size, vae_scale_factor=self.vae_scale_factor)

    def _call_host(self, given: dict[str, Any]) -> Any:
        return _call_steered(self, self.control_host_name, "image", given) or super()._call_host(given)


class SDXLModel(SDModel):
    """Stable Diffusion XL."""

    family = "sdxl"
    denoiser_class = SDXLDenoiser
    default_guidance = 5.0
    host_name = "StableDiffusionXLPipeline"
    control_host_name = "StableDiffusionXLControlNetPipeline"

    def _encode_by_host(self, given: dict[str, Any]) -> Condition:
        return _encode_pooled(self.pipe, self._is_guided, given)

    def _denoiser_options(self, size: tuple[int, int], patch: tuple[int, int]) -> dict[str, Any]:
        side = self.trained_side() * self.vae_scale_factor
        placement = Placement(
            policy=self.options.conditioning,
            size=size,
            base_size=(side, side),
            patch_size=(patch[0] * self.vae_scale_factor, patch[1] * self.vae_scale_factor),
            vae_scale_factor=self.vae_scale_factor,
        )
        return {"placement": placement}

    def _call_host(self, given: dict[str, Any]) -> Any:
        unions = [control for control in self.options.controls if control.num_kinds]
        if not unions:
            return super()._call_host(given)
        if len(self.options.controls) > 1:
            raise ValueError("a base image follows one union ControlNet only; give no other beside it")
        (control,) = unions
        host = _pipeline_class("StableDiffusionXLControlNetUnionPipeline")
        steered = rebuild(host, self.pipe, controlnet=control.model)
        return steered(
            **given, control_image=[control.image], control_mode=[control.mode],
            controlnet_conditioning_scale=float(control.scale), control_guidance_start=control.start,
            control_guidance_end=control.end,
        )  # fmt: skip


class LatentModel(PipelineModel):
    """A model whose ControlNets take their image as latents."""

    control_host_name: ClassVar[str]

    def _controls(self, size: tuple[int, int]) -> LatentControls | None:
        """Return the ControlNets of a stage; their images are encoded when they are first needed."""
        if not self.options.controls:
            return None

        held: dict[int, Canvas] = {}

        def latents(control: Control) -> Canvas:
            if id(control) not in held:
                held[id(control)] = encode(control)
            return held[id(control)]

        def encode(control: Control) -> Canvas:
            rows = Resized(ArrayRows(np.asarray(control.image)), size)
            canvas = TiledVAE(self.vae).encode_whole(rows)
            if getattr(control.model.config, "force_zeros_for_pooled_projection", False):
                # those of SD3 were trained without the shift, as the pipeline of diffusers knows
                canvas.data += self.vae.config.scaling_factor * (self.vae.config.shift_factor or 0.0)
            return canvas

        return LatentControls(each=self.options.controls, latents=latents)

    def _call_host(self, given: dict[str, Any]) -> Any:
        found = _call_steered(self, self.control_host_name, "control_image", given)
        return found or super()._call_host(given)


class SD3Model(LatentModel):
    """Stable Diffusion 3."""

    family = "sd3"
    network_name = "transformer"
    denoiser_class = SD3Denoiser
    default_steps = 28
    default_guidance = 7.0
    attention_name = "joint_attention_kwargs"
    control_host_name = "StableDiffusion3ControlNetPipeline"

    @property
    def host(self) -> type[Any]:
        """Text to image of diffusers."""
        return _pipeline_class("StableDiffusion3Pipeline")

    @property
    def patch_multiple(self) -> int:
        """Side of a token in latents."""
        return int(self.network.config.patch_size)

    @property
    def size_multiple(self) -> int:
        """Pixels that divide the sides of a base image."""
        return self.vae_scale_factor * self.patch_multiple

    def _encode_by_host(self, given: dict[str, Any]) -> Condition:
        return _encode_pooled(self.pipe, self.guidance_scale > 1, given)


class FluxModel(LatentModel):
    """FLUX.1."""

    family = "flux"
    network_name = "transformer"
    denoiser_class = FluxDenoiser
    default_steps = 28
    default_guidance = 3.5
    attention_name = "joint_attention_kwargs"
    cells_per_token = 4
    control_host_name = "FluxControlNetPipeline"

    @property
    def host(self) -> type[Any]:
        """Text to image of diffusers."""
        return _pipeline_class("FluxPipeline")

    def trained_side(self) -> int:
        """Return the side of the images that the model was trained on, in latents."""
        return int(self.pipe.default_sample_size)

    @property
    def patch_multiple(self) -> int:
        """Side of a token in latents."""
        return 2

    @property
    def size_multiple(self) -> int:
        """Pixels that divide the sides of a base image."""
        return self.vae_scale_factor * self.patch_multiple

    def guidance(self) -> Guidance:
        """Return true classifier-free guidance; the model takes its guidance scale as an input."""
        return Guidance(scale=self.options.true_cfg_scale or 1.0)

    def solver(self, num_latents: int) -> ClosedForm:
        """Return the closed form of the scheduler, with the evenly spaced levels of the host."""
        count = self.num_inference_steps
        sigmas = self.options.sigmas
        if sigmas is None:
            if self.pipe.scheduler.config.get("use_flow_sigmas"):
                return super().solver(num_latents)
            sigmas = np.linspace(1.0, 1 / count, count).tolist()
        return closed_form(self.pipe.scheduler, None, mu=self._shift(num_latents), sigmas=sigmas)

    def _encode_by_host(self, given: dict[str, Any]) -> Condition:
        negative_text = {
            name.removeprefix("negative_"): value
            for name, value in self.options.changed(("negative_prompt", "negative_prompt_2")).items()
        }
        negative = {name: given.pop(name, None) for name in _NEGATIVE_EMBEDS}
        embeds, pooled, _ = self.pipe.encode_prompt(**given)
        has_negative = negative_text or negative["negative_prompt_embeds"] is not None
        if self.guidance().scale <= 1 or not has_negative:
            return Condition(embeds=embeds, pooled=pooled)
        if negative["negative_prompt_embeds"] is not None:
            sides = negative["negative_prompt_embeds"], negative["negative_pooled_prompt_embeds"]
        else:
            text = {"prompt": "", "prompt_2": None, **negative_text}
            kept = {name: value for name, value in given.items() if name not in (*_POSITIVE, *text)}
            sides = self.pipe.encode_prompt(**kept, **text)[:2]
        return Condition(embeds=embeds, pooled=pooled, negative_embeds=sides[0], negative_pooled=sides[1])

    @torch.no_grad()
    def _image_embeds(self) -> list[Tensor]:
        image, embeds = self.options.ip_adapter_image, self.options.ip_adapter_image_embeds
        if image is None and embeds is None:
            return []
        found: list[Tensor] = self.pipe.prepare_ip_adapter_image_embeds(image, embeds, self.device, 1)
        if self.guidance().scale <= 1:
            return found
        side = self.trained_side() * self.vae_scale_factor
        black = [np.zeros((side, side, 3), dtype=np.uint8)] * len(found)  # which the host takes as no image
        nothing: list[Tensor] = self.pipe.prepare_ip_adapter_image_embeds(black, None, self.device, 1)
        return [torch.cat([low, high]) for low, high in zip(nothing, found, strict=True)]

    def _denoiser_options(self, size: tuple[int, int], patch: tuple[int, int]) -> dict[str, Any]:
        return {"guidance_embed": self.guidance_scale, "positions": self.options.positions}


_POSITIVE = ("prompt_embeds", "pooled_prompt_embeds")
_NEGATIVE_EMBEDS = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
_FAMILIES: dict[str, type[PipelineModel]] = {
    "StableDiffusionPipeline": SDModel,
    "StableDiffusionImg2ImgPipeline": SDModel,
    "StableDiffusionControlNetPipeline": SDModel,
    "StableDiffusionXLPipeline": SDXLModel,
    "StableDiffusionXLImg2ImgPipeline": SDXLModel,
    "StableDiffusionXLControlNetPipeline": SDXLModel,
    "StableDiffusion3Pipeline": SD3Model,
    "StableDiffusion3Img2ImgPipeline": SD3Model,
    "FluxPipeline": FluxModel,
    "FluxImg2ImgPipeline": FluxModel,
}


def from_pipeline(pipe: object, prompt: str | Condition = "", **settings: object) -> PipelineModel:
    """Make a pipeline of diffusers the model of a job.

    Args:
        pipe: Stable Diffusion 1, 2, XL or 3, or FLUX.1: a pipeline of diffusers, or a subclass, with whatever
            was loaded into it: LoRAs, IP-Adapters, textual inversions, offloading.
        prompt: Prompt of the whole image: text, or embeddings.
        settings: Fields of :class:`pixelsmith.adapters.options.ModelOptions`.

    Raises:
        TypeError: If the pipeline is of another class, or a setting is unknown.
        ValueError: If a part is missing, a setting does not fit, or the scheduler has no closed form.
    """
    for kind in type(pipe).__mro__:
        if kind.__name__ in _FAMILIES:
            options = ModelOptions(**settings)  # pyright: ignore[reportArgumentType]  # checked by the class
            return _FAMILIES[kind.__name__](pipe, prompt, options)
    raise TypeError(
        f"pipe must be one of {', '.join(_FAMILIES)}, got {type(pipe).__name__}; "
        "other models take part as a function, see pixelsmith.adapters.CallableModel"
    )


def _call_steered(model: PipelineModel, host: str, name: str, given: Mapping[str, Any]) -> Any:
    """Call the ControlNet pipeline of diffusers for a base image; ``None`` without ControlNets."""
    controls = model.options.controls
    if not controls:
        return None
    steered = rebuild(_pipeline_class(host), model.pipe, controlnet=[control.model for control in controls])
    more: dict[str, Any] = {
        name: [control.image for control in controls],
        "controlnet_conditioning_scale": [float(control.scale) for control in controls],
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.end for control in controls],
    }
    if any(control.mode is not None for control in controls):
        more["control_mode"] = [control.mode for control in controls]
    return steered(**given, **more)


def _encode_pooled(pipe: Any, guided: bool, given: dict[str, Any]) -> Condition:
    """Call ``encode_prompt`` of SDXL and SD3."""
    given["do_classifier_free_guidance"] = guided
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(**given)
    return Condition(
        embeds=embeds,
        pooled=pooled,
        negative_embeds=negative if guided else None,
        negative_pooled=negative_pooled if guided else None,
    )


def _pipeline_class(name: str) -> type[Any]:
    import diffusers  # slow to import, and only pipelines need it

    return getattr(diffusers, name)
