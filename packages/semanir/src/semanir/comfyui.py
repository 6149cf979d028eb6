# SPDX-License-Identifier: Apache-2.0
"""Nodes of ComfyUI: a network, and images restored by it.

The folder ``comfyui`` beside the sources is the node pack; its only line imports this module, so that a pack
cannot be older or newer than the package that it drives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common_kernels.runtime import comfyui

from semanir.options import RestoreOptions

if TYPE_CHECKING:
    from torch import Tensor

    from semanir.restorer import Restorer

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_RESTORER = "SEMANIR_RESTORER"
_NO_FILE = "none"
_FILES = "upscale_models"  # where ComfyUI keeps networks that restore, too


class SemanirLoad:
    """Loads a network, once for all nodes behind it."""

    DESCRIPTION = (
        "Loads a network of semanir, or SwinIR, HAT, GRL and kin (extra spandrel), from safetensors."
    )
    CATEGORY = "semanir"
    FUNCTION = "load"
    RETURN_TYPES = (_RESTORER,)
    RETURN_NAMES = ("restorer",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        files = [file for file in comfyui.model_files(_FILES) if file.endswith(".safetensors")]
        return {
            "required": {
                "model": ("STRING", {
                    "default": "tiny-denoise",
                    "tooltip": "Shipped name, folder, .safetensors file, or hub id.",
                }),
                "file": ([_NO_FILE, *files], {
                    "default": _NO_FILE, "tooltip": "One of ComfyUI's upscale models, instead of the model.",
                }),
                "dtype": (["auto", "float32", "bfloat16", "float16"], {
                    "default": "auto", "tooltip": "Compute dtype; auto is float32.",
                }),
                "batch_size": ("INT", {
                    "default": 1, "min": 1, "max": 256, "tooltip": "Tiles in one pass of the network.",
                }),
            }
        }  # fmt: skip

    def load(self, model: str, file: str, dtype: Any, batch_size: int) -> tuple[Restorer]:
        """Load the network.

        Raises:
            ModelNotFoundError: If there is no such model, or only a pickle of it.
            ImportError: If the file needs spandrel and it is missing.
            ValueError: If the dtype does not suit the network.
        """
        from semanir.restorer import Restorer

        comfyui.free_memory()
        name = model if file == _NO_FILE else comfyui.model_path(_FILES, file)
        device = comfyui.host_device()
        return (Restorer.from_pretrained(name, device=device, dtype=dtype, batch_size=batch_size),)


class SemanirRestore:
    """Restores the images of a batch, in tiles if they are large."""

    DESCRIPTION = "Removes noise, JPEG artefacts or blur, or enlarges: what the network was trained for."
    CATEGORY = "semanir"
    FUNCTION = "restore"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - the name that ComfyUI calls
        """Return the inputs of the node."""
        return {
            "required": {
                "restorer": (_RESTORER, {"tooltip": "Network of the node that loads one."}),
                "image": ("IMAGE", {"tooltip": "Images to restore."}),
                **comfyui.widgets(RestoreOptions, "strength", "self_ensemble", strength={"max": 1.0}),
                "k": ("INT", {
                    "default": 0, "min": 0, "max": 2**12,
                    "tooltip": "Keys per token; 0 is the number of the network.",
                }),
                "tile": ("INT", {
                    "default": 0, "min": 0, "max": 2**14,
                    "tooltip": "Side of the tiles in pixels; 0 takes the largest that fits into the memory.",
                }),
            }
        }  # fmt: skip

    def restore(self, restorer: Restorer, image: Tensor, k: int, tile: int, **given: Any) -> tuple[Tensor]:
        """Restore the images.

        Raises:
            ValueError: If the network enlarges and ``strength`` is below 1, or tiles are too small for it.
        """
        options = RestoreOptions(**given, k=k or None, tile=tile or "auto")
        restored = restorer.restore(image.movedim(-1, 1), options, progress=comfyui.progress())
        return (restored.clamp(0, 1).movedim(1, -1).contiguous(),)


NODE_CLASS_MAPPINGS = {"SemanirLoad": SemanirLoad, "SemanirRestore": SemanirRestore}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SemanirLoad": "Load Restoration Network",
    "SemanirRestore": "Restore Image",
}
