# SPDX-License-Identifier: Apache-2.0
"""Nodes of ComfyUI: a CLIP model with a method, and masks of classes named in words.

The folder ``comfyui`` beside the sources is the node pack, whose only line imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from common_kernels.runtime import comfyui

from itaclip.methods import METHODS
from itaclip.pictures import Overlay

if TYPE_CHECKING:
    from torch import Tensor

    from itaclip.model import ITACLIP
    from itaclip.results import Segmentation

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_SEGMENTER = "ITACLIP_SEGMENTER"


class ItaclipLoad:
    """Loads a CLIP model, once for all nodes behind it."""

    DESCRIPTION = (
        "Loads a CLIP model of open_clip or transformers from safetensors, for segmentation by words."
    )
    CATEGORY = "itaclip"
    FUNCTION = "load"
    RETURN_TYPES = (_SEGMENTER,)
    RETURN_NAMES = ("segmenter",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        return {
            "required": {
                "model": ("STRING", {
                    "default": "tiny-shapes",
                    "tooltip": "Shipped name, folder, hub id, or open_clip's name of an architecture.",
                }),
                "pretrained": ("STRING", {
                    "default": "",
                    "tooltip": "Weights of an architecture: a tag such as openai, or a .safetensors file.",
                }),
                "method": (["auto", *METHODS], {
                    "default": "auto", "tooltip": "Method; auto is itaclip, or that of the shipped model.",
                }),
                "dtype": (["auto", "float32", "bfloat16", "float16"], {
                    "default": "auto", "tooltip": "Compute dtype; auto is float16 on CUDA, else float32.",
                }),
            }
        }  # fmt: skip

    def load(self, model: str, pretrained: str, method: str, dtype: Any) -> tuple[ITACLIP]:
        """Load the model.

        Raises:
            ModelNotFoundError: If there is no such model, or only a pickle of it.
            ValueError: If activation and weights do not match.
        """
        from itaclip.model import ITACLIP

        comfyui.free_memory()
        device = comfyui.host_device()
        return (
            ITACLIP.from_pretrained(
                model, pretrained=pretrained or None, preset=method, device=device, dtype=dtype, cache="auto"
            ),
        )


class ItaclipSegment:
    """Segments the images of a batch by the names of classes."""

    DESCRIPTION = "Masks and overlays of what is named in words, without training."
    CATEGORY = "itaclip"
    FUNCTION = "segment"
    RETURN_TYPES = ("MASK", "IMAGE")
    RETURN_NAMES = ("mask", "overlay")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        return {
            "required": {
                "segmenter": (_SEGMENTER, {"tooltip": "Model of the node that loads one."}),
                "image": ("IMAGE", {"tooltip": "Images to segment."}),
                "classes": ("STRING", {
                    "default": "cat, dog",
                    "multiline": True,
                    "tooltip": "Names between commas, further names behind |; or a list such as voc21.",
                }),
                "background": ("STRING", {
                    "default": "",
                    "tooltip": "Names between commas of what is none of the classes, as sky, grass.",
                }),
                "mask_of": ("STRING", {
                    "default": "", "tooltip": "Class of the mask; empty for all but the background.",
                }),
                "opacity": ("FLOAT", {
                    "default": 0.55, "min": 0.0, "max": 1.0, "step": 0.05,
                    "tooltip": "Opacity of the overlay.",
                }),
            }
        }  # fmt: skip

    def segment(
        self, segmenter: ITACLIP, image: Tensor, classes: str, background: str, mask_of: str, opacity: float
    ) -> tuple[Tensor, Tensor]:
        """Segment the images.

        Raises:
            ValueError: If no class is named, one twice, or ``mask_of`` names none of them.
        """
        from itaclip.cli.options import parse_classes
        from itaclip.text.classes import ClassList

        named = parse_classes(classes)
        if background.strip():
            rest = [name.strip() for name in background.split(",") if name.strip()]
            named = ClassList.build(list(named.classes), background=rest)
        if mask_of and mask_of not in named.labels:
            raise ValueError(f"mask_of must be one of {', '.join(named.labels)}, got {mask_of!r}")
        segmenter.set_classes(named)
        report, masks, overlays = comfyui.progress(), list[Any](), list[Any]()
        pixels = comfyui.from_images(image)
        for number, each in enumerate(pixels):
            found = next(segmenter.stream([each[..., :3]]))
            masks.append(_mask(found, mask_of))
            overlays.append(np.asarray(Overlay(each[..., :3], found, opacity=opacity).render()))
            report(number + 1, len(pixels))
        return comfyui.to_masks(masks), comfyui.to_images(overlays)


def _mask(found: Segmentation, name: str) -> Any:
    labels = found.labels.numpy()
    if name:
        return labels == found.names.index(name)
    return labels > 0 if found.background else np.ones_like(labels, bool)


NODE_CLASS_MAPPINGS = {"ItaclipLoad": ItaclipLoad, "ItaclipSegment": ItaclipSegment}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ItaclipLoad": "Load CLIP for Segmentation",
    "ItaclipSegment": "Segment by Words",
}
