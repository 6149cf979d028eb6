# SPDX-License-Identifier: Apache-2.0
"""Calling conventions of each family of denoisers: conditions, latent layout, timestep."""

from __future__ import annotations

from torch import nn

from diffeat.denoisers.adapter import Adapter
from diffeat.denoisers.dit import FLUX, HUNYUAN, PIXART, SD3
from diffeat.denoisers.newer import LUMINA2, SANA, WAN, Z_IMAGE
from diffeat.denoisers.unet import UNET

ADAPTERS: dict[str, Adapter] = {
    "UNet2DConditionModel": UNET,
    "UNet2DModel": UNET,
    "PixArtTransformer2DModel": PIXART,
    "HunyuanDiT2DModel": HUNYUAN,
    "SD3Transformer2DModel": SD3,
    "FluxTransformer2DModel": FLUX,
    "SanaTransformer2DModel": SANA,
    "Lumina2Transformer2DModel": LUMINA2,
    "ZImageTransformer2DModel": Z_IMAGE,
    "WanTransformer3DModel": WAN,
}


def adapter_for(model: nn.Module) -> Adapter:
    """The conventions of a denoiser.

    Raises:
        NotImplementedError: If its class is not known.
    """
    name = type(model).__name__
    found = ADAPTERS.get(name)
    if found is None:
        raise NotImplementedError(
            f"FeatureExtractor knows how to call {', '.join(ADAPTERS)}, got {name}; "
            "run its own pipeline inside capture(pipeline, names) instead"
        )
    return found
