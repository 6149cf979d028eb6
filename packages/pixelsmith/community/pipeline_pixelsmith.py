# SPDX-License-Identifier: Apache-2.0
"""Pixelsmith as a community pipeline of diffusers; needs the package pixelsmith.

``DiffusionPipeline.from_pretrained(model, custom_pipeline="path/to/pipeline_pixelsmith.py",
trust_remote_code=True)`` loads any model of Stable Diffusion 1, 2, XL and 3, or FLUX.1, and generates or
enlarges images of any size. The arguments of a call are those of ``pixelsmith.PixelsmithXLPipeline``. For
LoRAs and adapters ``as_family()`` returns our pipeline over the same networks, with all that the class of
diffusers has.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

from diffusers import DiffusionPipeline
from pixelsmith.adapters.choosing import ensure_closed_form
from pixelsmith.pipelines import pipeline_for


class PixelsmithPipeline(DiffusionPipeline):
    """A pipeline of any of the supported families; which one, its networks tell.

    Args:
        vae: Autoencoder.
        scheduler: Scheduler; one without closed form is replaced by the nearest that has one.
        unet: Network of Stable Diffusion 1, 2 and XL.
        transformer: Network of Stable Diffusion 3 and FLUX.1.
    """

    model_cpu_offload_seq = (
        "text_encoder->text_encoder_2->text_encoder_3->image_encoder->unet->transformer->vae"
    )
    _optional_components = (
        "unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2",
        "tokenizer_3", "image_encoder", "feature_extractor", "safety_checker",
    )  # fmt: skip

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        unet: Any = None,
        transformer: Any = None,
        text_encoder: Any = None,
        text_encoder_2: Any = None,
        text_encoder_3: Any = None,
        tokenizer: Any = None,
        tokenizer_2: Any = None,
        tokenizer_3: Any = None,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        safety_checker: Any = None,
    ) -> None:
        super().__init__()
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.register_modules(**given)
        family = self.as_family()
        ensure_closed_form(family)
        self.register_modules(scheduler=family.scheduler)

    def as_family(self) -> Any:
        """Return the pipeline of pixelsmith with the same networks."""
        if self.transformer is not None:
            kind = "FluxPipeline" if "Flux" in type(self.transformer).__name__ else "StableDiffusion3Pipeline"
        else:
            kind = f"StableDiffusion{'' if self.text_encoder_2 is None else 'XL'}Pipeline"
        family = pipeline_for(kind)
        wanted, _ = family._get_signature_keys(family)
        parts = {name: part for name, part in self.components.items() if name in wanted}
        more = {"requires_safety_checker": False} if kind == "StableDiffusionPipeline" else {}
        pipe = family(**parts, **more)
        pipe.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        return pipe

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> None:
        """Save as the pipeline of diffusers for these networks, so that any tool loads it again.

        Args:
            save_directory: Folder to write.
            options: Keyword arguments of diffusers, such as ``variant``.
        """
        self.as_family().save_pretrained(save_directory, **options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Generate or enlarge images; see ``pixelsmith.PixelsmithXLPipeline``."""
        return self.as_family()(*args, **options)
