# SPDX-License-Identifier: Apache-2.0
"""Nodes of ComfyUI: a pipeline, images enlarged by it, and images generated at any size.

The folder ``comfyui`` beside the sources is the node pack; its only line imports this module, so that a pack
cannot be older or newer than the package that it drives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from common_kernels.runtime import comfyui
from common_kernels.runtime.comfyui import Widget

from pixelsmith.config import DenoisingConfig, LoadingConfig, SamplingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pixelsmith.core.protocol import Progress

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_PIPELINE = "PIXELSMITH_PIPELINE"
_NO_FILE = "none"
_LARGEST = 2**20  # pixels of a side
_PARTS = 1000  # of the progress of an image
_IN = {"pipeline": (_PIPELINE, {"tooltip": "Pipeline of the node that loads one."})}
_PROMPT: dict[str, Widget] = {
    "prompt": ("STRING", {"multiline": True, "default": "", "tooltip": "Prompt that describes the image."}),
}
_SLIDER: dict[str, Widget] = {
    "slider": ("STRING", {
        "default": "auto",
        "tooltip": "Guided steps: a number (20), a fraction (0.9), or auto; more keeps more of the image.",
    }),
}  # fmt: skip
_SEED: dict[str, Widget] = {
    "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "tooltip": "Random seed of the first image."}),
}
_STAGES: dict[str, Widget] = {
    "stages": ("INT", {
        "default": 1, "min": 1, "max": 16, "tooltip": "Stages, all of which enlarge by the same factor.",
    }),
}  # fmt: skip
_BATCH: dict[str, Widget] = {
    "batch_size": ("INT", {"default": 1, "min": 1, "max": 256, "tooltip": "Patches in one pass."}),
}


def _sampling() -> dict[str, Widget]:
    return comfyui.widgets(
        SamplingConfig, "negative_prompt", "num_inference_steps", "guidance_scale",
        negative_prompt={"multiline": True},
        num_inference_steps={"default": 50, "min": 1, "max": 1000},
        guidance_scale={"default": 5.0, "max": 100.0, "step": 0.1},
    )  # fmt: skip


def _side(title: str) -> Widget:
    return "INT", {
        "default": 2048, "min": 8, "max": _LARGEST, "step": 8, "tooltip": f"{title} of the image in pixels.",
    }  # fmt: skip


class PixelsmithLoad:
    """Loads a pipeline of diffusers, once for all nodes behind it."""

    DESCRIPTION = "Loads Stable Diffusion 1, 2, XL or 3, or FLUX, from safetensors."
    CATEGORY = "pixelsmith"
    FUNCTION = "load"
    RETURN_TYPES = (_PIPELINE,)
    RETURN_NAMES = ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        files = [
            _NO_FILE,
            *(file for file in comfyui.model_files("checkpoints") if file.endswith(".safetensors")),
        ]
        return {
            "required": {
                "model": ("STRING", {
                    "default": "tiny-sdxl",
                    "tooltip": "Shipped name, folder of a diffusers pipeline, .safetensors file, or hub id.",
                }),
                "checkpoint": (files, {
                    "default": _NO_FILE, "tooltip": "One of ComfyUI's checkpoints, instead of the model.",
                }),
                **comfyui.widgets(LoadingConfig, "variant", "config", "scheduler", "offload"),
                "lora": ("STRING", {
                    "multiline": True, "default": "",
                    "tooltip": "LoRAs, a line each: file, folder or hub id, with a weight behind a colon.",
                }),
                "dtype": (["auto", "float32", "bfloat16", "float16"], {
                    "default": "auto", "tooltip": "Compute dtype; auto is float16 on CUDA.",
                }),
            }
        }  # fmt: skip

    def load(self, model: str, checkpoint: str, lora: str, dtype: Any, **loading: Any) -> tuple[Any]:
        """Load the pipeline.

        Raises:
            ModelNotFoundError: If there is no such model, or only pickles of it.
            ValueError: If it is of another architecture, or an option does not fit.
        """
        from pixelsmith.adapters import load_pipeline

        given: dict[str, Any] = {name: value or None for name, value in loading.items()}
        loras = tuple(line.strip() for line in lora.splitlines() if line.strip())
        comfyui.free_memory()
        pipe = load_pipeline(
            model if checkpoint == _NO_FILE else comfyui.model_path("checkpoints", checkpoint),
            device=comfyui.host_device(), dtype=dtype, loading=LoadingConfig(**given, lora=loras or None),
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        return (pipe,)


class _Node:
    """What both nodes that make images share."""

    CATEGORY = "pixelsmith"
    FUNCTION = "run"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    def make(self, pipeline: Any, images: list[Any], slider: str, **settings: Any) -> tuple[Tensor]:
        from pixelsmith.cli.options import parse_sliders

        sliders, report, made = parse_sliders(slider), comfyui.progress(), list[Any]()
        seed, negative = settings.pop("seed"), settings.pop("negative_prompt")
        stages = settings.get("stages", 1)

        def on_patch(progress: Progress) -> None:
            # images and stages take different numbers of patches, and count alike
            before = pipeline.stage - 1 + progress.calls / progress.calls_total
            report(int(_PARTS * (len(made) + max(before, 0) / stages)), _PARTS * len(images))

        for number, image in enumerate(images):
            result = pipeline(
                image=image, slider=sliders, seed=seed + number, negative_prompt=negative or None,
                output_type="np", on_patch=on_patch, **settings,
            )  # fmt: skip
            made.append(result.images[0])
        return (comfyui.to_images(made),)


class PixelsmithUpscale(_Node):
    """Enlarges images, adding the detail that the model sees in them."""

    DESCRIPTION = "Enlarges images to any size within the memory of one patch."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802
        """Return the inputs of the node."""
        scale: Widget = "FLOAT", {
            "default": 2.0, "min": 1.0, "max": 64.0, "step": 0.25, "tooltip": "Enlargement of the sides.",
        }  # fmt: skip
        return {
            "required": {
                **_IN, "images": ("IMAGE", {"tooltip": "Images to enlarge."}), **_PROMPT, "scale": scale,
                **_SLIDER, **_SEED, **_sampling(),
            },
            "optional": {
                **_STAGES, **_BATCH, **comfyui.widgets(DenoisingConfig, "plan", "wrap", "colour_fix"),
            },
        }  # fmt: skip

    def run(self, pipeline: Any, images: Tensor, prompt: str, slider: str, **settings: Any) -> tuple[Tensor]:
        """Return the enlarged images.

        Raises:
            ValueError: If a setting does not fit.
        """
        return self.make(pipeline, comfyui.from_images(images), slider, prompt=prompt, **settings)


class PixelsmithGenerate(_Node):
    """Generates images of any size."""

    DESCRIPTION = "Generates images of any size: one of native size, which is then enlarged."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802
        """Return the inputs of the node."""
        count: Widget = "INT", {"default": 1, "min": 1, "max": 64, "tooltip": "Number of images."}
        return {
            "required": {
                **_IN, **_PROMPT, "width": _side("Width"), "height": _side("Height"), **_SLIDER, **_SEED,
                **_sampling(),
            },
            "optional": {
                "count": count, **_STAGES, **_BATCH, **comfyui.widgets(DenoisingConfig, "plan", "wrap"),
            },
        }  # fmt: skip

    def run(self, pipeline: Any, prompt: str, slider: str, count: int = 1, **settings: Any) -> tuple[Tensor]:
        """Return the images.

        Raises:
            ValueError: If a setting does not fit.
        """
        return self.make(pipeline, [None] * count, slider, prompt=prompt, **settings)


NODE_CLASS_MAPPINGS: dict[str, type] = {
    node.__name__: node for node in (PixelsmithLoad, PixelsmithUpscale, PixelsmithGenerate)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PixelsmithLoad": "Load Pixelsmith pipeline",
    "PixelsmithUpscale": "Upscale (Pixelsmith)",
    "PixelsmithGenerate": "Generate at any size (Pixelsmith)",
}
