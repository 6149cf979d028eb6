# SPDX-License-Identifier: Apache-2.0
"""Base of the adapters to pipelines of diffusers."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from common_kernels.runtime.hub import quiet_libraries, resolve_dtype
from numpy.typing import NDArray

from vitron.errors import SpecialistError, UnsupportedRequestError
from vitron.specialists.adapters.base import Adapter, free, is_loaded, to_pixels
from vitron.specialists.adapters.signals import Merge, chosen_merge, prompt_settings
from vitron.specialists.protocol import Request

_CELL = 16  # sides are multiples of it, for every pipeline
MAX_SIDE, MAX_FRAMES = 4096, 512


class DiffusersAdapter(Adapter):
    """A specialist with a pipeline of diffusers.

    Weights must be safetensors: pickled ones are refused.

    Args:
        model: Folder or hub id of a pipeline.
        steps: Number of inference steps; default is ``VITRON_STEPS``, else that of the pipeline.
        signals: Merging of signal embeddings with the prompt: ``"off"``, ``"replace"`` or ``"concat"``;
            default is ``VITRON_SIGNALS``.
        offload: Whether parts wait in main memory until they are needed (accelerate, CUDA).
    """

    loader: ClassVar[str] = "DiffusionPipeline"
    packages = ("diffusers", "transformers", "torch")
    uses_signals = True
    _pipe: Any = None

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        steps: int | None = None,
        signals: str | None = None,
        offload: bool = False,
    ) -> None:
        super().__init__(model)
        given = os.environ.get("VITRON_STEPS", "")
        if steps is None and given and not given.isdecimal():
            raise SpecialistError(f"VITRON_STEPS must be a whole number, got {given!r}")
        self.steps = int(given) if steps is None and given else steps
        self.merge: Merge = chosen_merge(signals)
        self.offload = offload

    def load(self, device: str, dtype: str) -> None:
        """Load the pipeline."""
        place = self.find("model_index.json")
        with quiet_libraries("diffusers", "transformers"):  # the import too, which warns of kernels
            pipe = getattr(import_module("diffusers"), self.loader).from_pretrained(
                place,
                dtype=resolve_dtype(dtype, device, cuda_default="float16"),
                use_safetensors=True,
            )
        if self.offload and not device.startswith("cpu"):
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe = pipe.to(device)
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe

    @property
    def pipe(self) -> Any:
        """The pipeline.

        Raises:
            SpecialistError: If it is not loaded.
        """
        return is_loaded(self._pipe, self.name)

    @property
    def native(self) -> int | None:
        """Pixels of the side that the model was trained at, if its configuration says so."""
        pipe = self.pipe
        net = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
        side = getattr(getattr(net, "config", None), "sample_size", None)
        factor = getattr(pipe, "vae_scale_factor", None)
        return side * factor if isinstance(side, int) and isinstance(factor, int) else None

    def call(
        self, prompt: str, *, signal: NDArray[np.float32] | None, seed: int, **settings: Any
    ) -> tuple[Any, str]:
        """Call the pipeline with the arguments it accepts; return its output and a note."""
        import torch

        pipe = self.pipe
        takes = inspect.signature(type(pipe).__call__).parameters
        prompts, note = prompt_settings(pipe, prompt, signal, self.merge)
        if self.steps is not None:
            settings["num_inference_steps"] = self.steps
        # sampled on the CPU: the same noise on every device
        settings["generator"] = torch.Generator("cpu").manual_seed(seed)
        if "output_type" in takes:
            settings["output_type"] = "np"
        known = {name: value for name, value in settings.items() if name in takes and value is not None}
        with torch.inference_mode():
            output = pipe(**{name: value for name, value in prompts.items() if name in takes}, **known)
        return output, note

    def unload(self) -> None:
        """Delete the pipeline."""
        self._pipe = None
        free()


def asked_size(request: Request, name: str) -> tuple[int, int] | None:
    """Return the requested height and width, or ``None``.

    Raises:
        UnsupportedRequestError: If a side is too long.
    """
    if "size" not in request.args:
        return None
    width, height = map(int, str(request.args["size"]).split("x"))
    if not 8 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise UnsupportedRequestError(f"{name} makes 8 to {MAX_SIDE} pixels a side, got {width}x{height}")
    return height, width


def asked_length(request: Request, name: str) -> int | None:
    """Return the requested number of frames, or ``None``.

    Raises:
        UnsupportedRequestError: If there are too many.
    """
    if "length" not in request.args:
        return None
    length = int(request.args["length"])
    if not 1 <= length <= MAX_FRAMES:
        raise UnsupportedRequestError(f"{name} makes 1 to {MAX_FRAMES} frames, got {length}")
    return length


def fitting(size: tuple[int, int], longest: int | None = None) -> tuple[int, int]:
    """Return a height and width for pipelines: near ``size``, the longer side near ``longest``."""
    scale = 1.0 if longest is None else longest / max(size)
    height, width = (max(_CELL, round(side * scale / _CELL) * _CELL) for side in size)
    return height, width


def frames_of(output: Any, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return the first video of a pipeline's output as ``(T, H, W, 3)`` uint8.

    Raises:
        SpecialistError: If the pipeline made no video.
    """
    found = getattr(output, "frames", None)
    if found is None:
        raise SpecialistError(
            f"{type(output).__name__} of the pipeline holds no frames: use a pipeline for videos"
        )
    return np.stack([to_pixels(frame, size) for frame in found[0]])
