# SPDX-License-Identifier: Apache-2.0
"""Nodes of ComfyUI: a diffusion pipeline, and drawings of its activations for images.

The folder ``comfyui`` beside the sources is the node pack, whose only line imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from common_kernels.runtime import comfyui
from PIL import Image

from diffeat.options import ExtractionOptions
from diffeat.pictures import Kind, draw_values, overlay

if TYPE_CHECKING:
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_EXTRACTOR = "DIFFEAT_EXTRACTOR"


class DiffeatLoad:
    """Loads a pipeline, once for all nodes behind it."""

    DESCRIPTION = "Loads a diffusers pipeline from safetensors, whose activations are drawn."
    CATEGORY = "diffeat"
    FUNCTION = "load"
    RETURN_TYPES = (_EXTRACTOR,)
    RETURN_NAMES = ("extractor",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        return {
            "required": {
                "model": ("STRING", {
                    "default": "tiny-sdxl", "tooltip": "Shipped name, folder or hub id of a pipeline.",
                }),
                "dtype": (["auto", "float32", "bfloat16", "float16"], {
                    "default": "auto", "tooltip": "Compute dtype; auto is float32 on the CPU, else half.",
                }),
            }
        }  # fmt: skip

    def load(self, model: str, dtype: Any) -> tuple[FeatureExtractor]:
        """Load the pipeline.

        Raises:
            ModelNotFoundError: If there is no such pipeline.
            NotImplementedError: If its denoiser cannot be called from here.
        """
        from diffeat.extractor import FeatureExtractor

        comfyui.free_memory()
        return (FeatureExtractor.from_pretrained(model, device=comfyui.host_device(), dtype=dtype),)


class DiffeatView:
    """Draws an activation of each image of a batch; colours are comparable across the batch."""

    DESCRIPTION = "Principal components, clusters or similarities to a point, of an activation of the model."
    CATEGORY = "diffeat"
    FUNCTION = "view"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        share = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "extractor": (_EXTRACTOR, {"tooltip": "Pipeline of the node that loads one."}),
                "image": ("IMAGE", {"tooltip": "Images whose activations are drawn."}),
                "names": ("STRING", {
                    "default": "up-level1-repeat0-vit-out",
                    "tooltip": "Name or glob of activations, side by side if there are several.",
                }),
                "kind": (list(get_args(Kind)), {
                    "default": "pca",
                    "tooltip": "Principal components, clusters, or similarities to a point of image 1.",
                }),
                "timestep": ("INT", {
                    "default": 50, "min": 0, "max": 999, "tooltip": "Timestep of the training schedule.",
                }),
                **comfyui.widgets(ExtractionOptions, "seed"),
                "prompt": ("STRING", {
                    "default": "", "multiline": True, "tooltip": "Prompt of all images.",
                }),
                "size": ("INT", {
                    "default": 0, "min": 0, "max": 4096,
                    "tooltip": "Side in pixels to which images are resized; 0 is that of the model.",
                }),
                "clusters": ("INT", {"default": 6, "min": 1, "max": 64, "tooltip": "Groups of k-means."}),
                "x": ("FLOAT", {**share, "tooltip": "Place of the point, as a share of the width."}),
                "y": ("FLOAT", {**share, "tooltip": "Place of the point, as a share of the height."}),
                "opacity": ("FLOAT", {
                    **share, "default": 1.0, "tooltip": "Opacity of the drawing over the image.",
                }),
            }
        }  # fmt: skip

    def view(
        self,
        extractor: FeatureExtractor,
        image: Tensor,
        names: str,
        kind: Kind,
        timestep: int,
        size: int,
        **given: Any,
    ) -> tuple[Tensor]:
        """Draw the activation.

        Raises:
            LookupError: If a name is unknown.
            ValueError: If the size or the timestep does not suit the model, or the activation has no place
                on the image.
        """
        options = ExtractionOptions(
            timesteps=(timestep,), prompt=given["prompt"], seed=given["seed"], size=size or None
        )
        pixels = [Image.fromarray(each[..., :3]) for each in comfyui.from_images(image)]
        features = extractor(pixels, names, options, batch_size=1, on_batch=comfyui.progress())
        values = list(features.concat().float().cpu())
        point = (given["x"], given["y"])
        drawings, _ = draw_values(kind, values, clusters=given["clusters"], point=point)
        shown = [
            np.asarray(overlay(each, drawing, opacity=given["opacity"]))
            for each, drawing in zip(pixels, drawings, strict=True)
        ]
        return (comfyui.to_images(shown),)


NODE_CLASS_MAPPINGS = {"DiffeatLoad": DiffeatLoad, "DiffeatView": DiffeatView}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DiffeatLoad": "Load Pipeline for Features",
    "DiffeatView": "View Diffusion Features",
}
