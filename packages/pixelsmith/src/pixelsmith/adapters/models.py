# SPDX-License-Identifier: Apache-2.0
"""A pipeline of diffusers with its prompt, as the model of a job."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pixelsmith.adapters.assets import model_name
from pixelsmith.adapters.base import Condition, Extras, Guidance, NetworkDenoiser, PatchCondition
from pixelsmith.adapters.callable import describe_scheduler
from pixelsmith.adapters.memory import DeviceMemory, measure_memory
from pixelsmith.adapters.options import (
    IMAGES,
    SAMPLING,
    SCHEDULE,
    TEXT,
    ModelOptions,
    PatchPlace,
    fingerprint,
)
from pixelsmith.adapters.phrases import PhraseMaps, map_phrases
from pixelsmith.adapters.schedulers import ClosedForm, closed_form
from pixelsmith.core.protocol import Denoiser
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.tiles import Tiling
from pixelsmith.io.upscaled import Upscaler
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store.rows import Rows

_KEPT_PROMPTS = 256  # prompts whose encodings are cached


class PipelineModel(ABC):
    """The common part of the families of pipelines. Made by :func:`pixelsmith.adapters.from_pipeline`.

    Args:
        pipe: Pipeline of diffusers with all of its parts.
        prompt: Prompt of the whole image: text, or embeddings.
        options: Settings of the model.

    Attributes:
        base_arguments: Further arguments of the host's call for a base image, such as a callback.

    Raises:
        ValueError: If a part is missing, an option means nothing to this pipeline, or the scheduler has no
            closed form.
    """

    family: ClassVar[str]
    network_name: ClassVar[str]
    denoiser_class: ClassVar[type[NetworkDenoiser[Any]]]
    default_steps: ClassVar[int]
    default_guidance: ClassVar[float]
    attention_name: ClassVar[str]

    def __init__(self, pipe: Any, prompt: str | Condition, options: ModelOptions) -> None:
        self.pipe = pipe
        self.prompt = prompt
        self.options = options
        self.base_arguments: Mapping[str, object] = {}
        self._check()
        self._encode_text: Callable[[str], Condition] = lru_cache(_KEPT_PROMPTS)(self._encode)
        self._condition: Condition | None = None
        self._extras: Extras | None = None
        self._phrases: PhraseMaps | None = None
        self.solver(self.patch * self.patch)  # refuses a scheduler before anything is computed

    def _check(self) -> None:
        title = type(self.pipe).__name__
        for part in (self.network_name, "vae", "scheduler"):
            if getattr(self.pipe, part, None) is None:
                raise ValueError(f"the {title} has no {part}, which every job needs; load it with all parts")
        takes = self.network.config.in_channels // self.cells_per_token
        if takes != self.channels:
            raise ValueError(
                f"the {self.network_name} must take the {self.channels} channels of the vae, takes {takes}; "
                "models for inpainting or editing are not supported"
            )
        known = self._host_parameters()
        given = self.options.changed((*TEXT, *SCHEDULE, *IMAGES, *SAMPLING))
        for name in given:
            if name not in known:
                raise ValueError(f"{name} means nothing to {title}; leave it out")
        encoder = getattr(self.pipe, "text_encoder", None)
        if self.options.clip_skip and encoder is not None:
            layers: int = encoder.config.num_hidden_layers
            if self.options.clip_skip >= layers:
                raise ValueError(
                    f"clip_skip must be below {layers}, the layers of the text encoder, got "
                    f"{self.options.clip_skip}"
                )
        if self.chooses_prompts and (self.network_name != "unet" or not isinstance(self.prompt, str)):
            raise ValueError("patch_prompts='auto' needs SD or SDXL, and a prompt as text")

    cells_per_token: ClassVar[int] = 1

    @property
    @abstractmethod
    def host(self) -> type[Any]:
        """Pipeline class of diffusers that generates the base image."""

    def _host_parameters(self) -> set[str]:
        return set(inspect.signature(self.host.__call__).parameters)

    @property
    def network(self) -> Any:
        """U-Net or transformer."""
        return getattr(self.pipe, self.network_name)

    @property
    def name(self) -> str:
        """Name in the record of a job."""
        known = self.options.name or getattr(self.pipe, "name_or_path", None)
        return model_name(known) if known else type(self.pipe).__name__

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    @property
    def upscaler(self) -> Upscaler | None:
        """Network that enlarges the image before it is encoded."""
        return self.options.upscaler

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent and side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def patch(self) -> int:
        """Side of a patch in latents, a multiple of ``patch_multiple``."""
        side = self.options.patch or self.trained_side()
        return side - side % self.patch_multiple if side >= self.patch_multiple else self.patch_multiple

    def trained_side(self) -> int:
        """Return the side of the images that the model was trained on, in latents."""
        side: int | list[int] = self.network.config.sample_size
        return side if isinstance(side, int) else min(side)

    @property
    @abstractmethod
    def patch_multiple(self) -> int:
        """Divisor of the sides of patches, in latents."""

    @property
    def size_multiple(self) -> int:
        """Pixels that divide the sides of a base image."""
        return int(np.lcm(8, self.vae_scale_factor))

    @property
    def device(self) -> torch.device:
        """Device of the patches: with offloading, not that of the weights."""
        return torch.device(self.pipe._execution_device)

    @property
    def num_inference_steps(self) -> int:
        """Number of inference steps."""
        own = self.options.timesteps or self.options.sigmas
        return len(own) if own else self.options.num_inference_steps or self.default_steps

    @property
    def guidance_scale(self) -> float:
        """Guidance scale."""
        given = self.options.guidance_scale
        return self.default_guidance if given is None else given

    def guidance(self) -> Guidance:
        """Return how two sides of a prompt are combined."""
        return Guidance(scale=self.guidance_scale, rescale=self.options.guidance_rescale)

    def solver(self, num_latents: int) -> ClosedForm:
        """Return the closed form of the scheduler.

        Args:
            num_latents: Number of latents of a patch, on which some flow schedulers depend.
        """
        own = {name: value for name, value in self.options.changed(SCHEDULE).items() if value is not None}
        return closed_form(self.pipe.scheduler, self.num_inference_steps, mu=self._shift(num_latents), **own)

    def _shift(self, num_latents: int) -> float | None:
        """Return the shift of a flow scheduler that depends on the number of tokens."""
        config = self.pipe.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return None
        tokens = num_latents // self.patch_multiple**2
        first, last = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return low + (high - low) * (tokens - first) / (last - first)

    def condition(self) -> Condition:
        """Return the encoded prompt of the whole image."""
        if self._condition is None:
            self._condition = self._encode(self.prompt)
        return self._condition

    def conditions(self, size: tuple[int, int], patch: tuple[int, int]) -> Condition | PatchCondition:
        """Return the encoded prompt, or a function that returns that of each patch.

        Args:
            size: Height and width of the canvas, pixels.
            patch: Height and width of a patch, latents.
        """
        choose = self.options.patch_prompt if self._phrases is None else self._phrases.choose
        if choose is None:
            return self.condition()

        def of(row: int, column: int) -> Condition:
            place = PatchPlace(
                top=row * self.vae_scale_factor,
                left=column * self.vae_scale_factor,
                height=patch[0] * self.vae_scale_factor,
                width=patch[1] * self.vae_scale_factor,
                size=size,
            )
            found = choose(place)
            return self._encode(found) if isinstance(found, Condition) else self._encode_text(found)

        return of

    @property
    def chooses_prompts(self) -> bool:
        """Whether the prompt of each patch is chosen by what the network sees there."""
        return self.options.patch_prompts == "auto"

    @torch.no_grad()
    def look(self, rows: Rows) -> None:
        """Find where each phrase of the prompt belongs in the image that the next stage enlarges.

        Args:
            rows: The image, of any size.
        """
        if not self.chooses_prompts:
            return
        assert isinstance(self.prompt, str)  # else refused on construction
        scale = self.patch / max(rows.height, rows.width)
        latent_size = [
            max(1, round(side * scale / self.patch_multiple)) * self.patch_multiple
            for side in (rows.height, rows.width)
        ]
        size = latent_size[0] * self.vae_scale_factor, latent_size[1] * self.vae_scale_factor
        latents = TiledVAE(self.vae).encode_whole(Resized(rows, size)).data
        denoiser = self._denoiser(size, (latent_size[0], latent_size[1]), self.condition())
        self._phrases = map_phrases(self.prompt, self.pipe.tokenizer, self.network, denoiser, latents)

    @torch.no_grad()
    def _encode(self, prompt: str | Condition) -> Condition:
        """Encode a prompt with the host; add the negative side that embeddings lack."""
        given: dict[str, Any] = {"prompt": prompt}
        if isinstance(prompt, Condition):
            given = {"prompt": None, **self._embeddings(prompt)}
        known = inspect.signature(self.pipe.encode_prompt).parameters
        scale = (self.options.attention_kwargs or {}).get("scale")
        given |= {"device": self.device, "num_images_per_prompt": 1, "lora_scale": scale}
        given |= {name: None for name in ("prompt_2", "prompt_3") if name in known}
        given |= {name: value for name, value in self.options.changed(TEXT).items() if name in known}
        return self._encode_by_host(given)

    @abstractmethod
    def _encode_by_host(self, given: dict[str, Any]) -> Condition:
        """Call ``encode_prompt`` of the host, which returns something else in every family."""

    def _embeddings(self, condition: Condition) -> dict[str, Any]:
        """Return a condition under the names of the hosts."""
        parts = {
            "prompt_embeds": condition.embeds,
            "pooled_prompt_embeds": condition.pooled,
            "negative_prompt_embeds": condition.negative_embeds,
            "negative_pooled_prompt_embeds": condition.negative_pooled,
        }
        return {name: value for name, value in parts.items() if value is not None}

    def extras(self) -> Extras:
        """Return the inputs of the network beside the prompt."""
        if self._extras is None:
            self._extras = Extras(
                guidance=self.guidance(),
                attention_kwargs=self.options.attention_kwargs,
                image_embeds=self._image_embeds(),
            )
        return self._extras

    @torch.no_grad()
    def _image_embeds(self) -> list[torch.Tensor]:
        if not self.options.changed(IMAGES):
            return []
        found = self.pipe.prepare_ip_adapter_image_embeds(
            self.options.ip_adapter_image,
            self.options.ip_adapter_image_embeds,
            self.device,
            1,
            self.guidance_scale > 1,
        )
        return found if isinstance(found, list) else [found]

    def denoiser(self, size: tuple[int, int], patch: tuple[int, int]) -> Denoiser:
        """Return the denoiser of one stage.

        Args:
            size: Height and width of the whole image of this stage, pixels.
            patch: Height and width of its patches, latents.

        Raises:
            ValueError: If a size does not fit.
        """
        if any(side % self.vae_scale_factor for side in size):
            raise ValueError(
                f"height and width must be multiples of {self.vae_scale_factor} pixels, "
                f"got {size[0]} x {size[1]}"
            )
        if any(side % self.patch_multiple for side in patch):
            raise ValueError(
                f"patches of {type(self.pipe).__name__} must be multiples of {self.patch_multiple} latents, "
                f"got {patch[0]} x {patch[1]}"
            )
        return self._denoiser(size, patch, self.conditions(size, patch))

    def _denoiser(
        self, size: tuple[int, int], patch: tuple[int, int], condition: Condition | PatchCondition
    ) -> Denoiser:
        return self.denoiser_class(
            self.network, self.solver(patch[0] * patch[1]), condition, self.extras(),
            controls=self._controls(size), device=self.device, **self._denoiser_options(size, patch),
        )  # fmt: skip

    @abstractmethod
    def _controls(self, size: tuple[int, int]) -> object | None:
        """Return the ControlNets of a stage, or ``None``."""

    def _denoiser_options(self, size: tuple[int, int], patch: tuple[int, int]) -> dict[str, Any]:
        """Return what the denoiser of the family takes besides."""
        return {}

    def check_base_size(self, size: tuple[int, int]) -> None:
        """Refuse a height and width that the host cannot generate.

        Raises:
            ValueError: If a side is no multiple of that of the host.
        """
        if any(side % self.size_multiple for side in size) or min(size) < 1:
            raise ValueError(
                f"height and width of a base image must be multiples of {self.size_multiple} pixels, "
                f"got {size[0]} x {size[1]}"
            )

    def base_image(self, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
        """Generate an image by the host pipeline, ``(H, W, 3)`` uint8; ``base_arguments`` go to its call.

        Args:
            size: Height and width, pixels.
            seed: Random seed.

        Raises:
            ValueError: If the host cannot generate that size.
        """
        self.check_base_size(size)
        given = self._host_arguments()
        given |= {"height": size[0], "width": size[1], "output_type": "pil", "num_images_per_prompt": 1}
        given |= {"generator": torch.Generator("cpu").manual_seed(seed % 2**63)}
        found = self._call_host({**given, **self.base_arguments})
        return np.asarray(found.images[0].convert("RGB"))

    def _call_host(self, given: dict[str, Any]) -> Any:
        pipe = self.pipe if isinstance(self.pipe, self.host) else rebuild(self.host, self.pipe)
        # by the host's class: our own subclass would start another job
        return self.host.__call__(pipe, **given)

    def _host_arguments(self) -> dict[str, Any]:
        given = self._embeddings(self.condition())
        given |= self.options.changed((*SCHEDULE, *IMAGES, *SAMPLING))
        given |= {"guidance_scale": self.guidance_scale, "num_inference_steps": self.num_inference_steps}
        if self.options.attention_kwargs is not None:
            given[self.attention_name] = dict(self.options.attention_kwargs)
        return given

    def device_memory(
        self, size: tuple[int, int], patch: tuple[int, int], batch_size: int, tiling: Tiling
    ) -> DeviceMemory:
        """Return the memory of a GPU for a stage, see :func:`pixelsmith.adapters.memory.measure_memory`."""
        return measure_memory(self, size, patch, batch_size, tiling)

    def describe(self) -> dict[str, object]:
        """Return everything that decides the result, as JSON values."""
        options = self.options
        text = options.changed(
            (*TEXT, *SCHEDULE, *SAMPLING, "conditioning", "positions", "patch", "patch_prompts")
        )
        extra = options.changed(("patch_prompt", *IMAGES, "attention_kwargs"))
        found: dict[str, object] = {
            "model": self.name,
            "family": self.family,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "prompt": fingerprint(self.prompt),
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "scheduler": describe_scheduler(self.pipe.scheduler),
            **{name: fingerprint(value) for name, value in {**text, **extra}.items()},
        }
        if options.controls:
            found["controls"] = [control.describe() for control in options.controls]
        if options.upscaler is not None:
            found["upscaler"] = options.upscaler.describe()
        loras = _active_loras(self.pipe, self.network)
        if loras:
            found["loras"] = loras
        return found


def rebuild(host: type[Any], pipe: Any, **more: object) -> Any:
    """Return a pipeline of another class over the same parts.

    Args:
        host: Class of the new pipeline.
        pipe: Pipeline whose parts are used.
        more: Further parts, which that pipeline lacks.
    """
    known = inspect.signature(host.__init__).parameters
    parts = {**dict(pipe.config), **pipe.components}
    kept = {name: value for name, value in parts.items() if name in known}
    if "add_watermarker" in known:
        kept["add_watermarker"] = False
    made = host(**{**kept, **more})
    made.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return made


def _active_loras(pipe: Any, network: Any) -> dict[str, object]:
    """Return the weights of the LoRAs in use, by name."""
    if not getattr(network, "peft_config", None):
        return {}
    names: list[str] = pipe.get_active_adapters()
    scales: dict[str, object] = {}
    for module in network.modules():
        found: Mapping[str, float] | None = getattr(module, "scaling", None)
        if found is not None:
            scales |= {name: float(found[name]) for name in names if name in found}
    return {name: scales.get(name) for name in names}
