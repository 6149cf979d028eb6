# SPDX-License-Identifier: Apache-2.0
"""Masks from boxes, clicks and other regions by models of the SAM family of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
from common_kernels.runtime.hub import quiet_libraries, resolve_dtype
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PointsRegion
from vitron.protocol.regions.convert import mask_to_box
from vitron.specialists.adapters.base import (
    Adapter,
    as_masks,
    free,
    is_loaded,
    media_of,
)
from vitron.specialists.protocol import Request, Result

_POINTS = 8  # clicks for a region without corners, besides its box


class SamAdapter(Adapter):
    """Base of the adapters to models of the SAM family: a model, its processor, and regions as prompts."""

    outputs = ("masks",)
    packages = ("transformers", "torch")
    model_class: str
    processor_class: str
    _model: Any = None
    _processor: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Load model and processor; weights must be safetensors."""
        import transformers

        kind = resolve_dtype(dtype, device, cuda_default="float16")
        with quiet_libraries("transformers"):
            self._processor = getattr(transformers, self.processor_class).from_pretrained(self.model_name)
            model = getattr(transformers, self.model_class).from_pretrained(
                self.model_name, dtype=kind, use_safetensors=True
            )
        self._model = model.to(device).eval()

    def unload(self) -> None:
        """Delete the model."""
        self._model = self._processor = None
        free()


class SamSegmenter(SamAdapter):
    """Segments the object in a region: SAM, SAM-HQ, SAM 2 and others; reads ``VITRON_SAM_MODEL``.

    These models take no text prompt: a request without a region is left to others.
    """

    name = "sam"
    summary = "segments the object in a region"
    tasks = ("image_segmentation",)
    inputs = ("image",)
    model_class, processor_class = "AutoModelForMaskGeneration", "AutoProcessor"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment; see :class:`vitron.specialists.Specialist`."""
        import torch

        model, processor = is_loaded(self._model, self.name), self._processor
        image = media_of(request, self.name).frames[0]
        inputs = processor(
            images=Image.fromarray(image), return_tensors="pt", **prompts_of(request, self.name)
        )
        inputs = inputs.to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        sizes = [inputs.pop(key).cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        with torch.inference_mode():
            output = model(**inputs, multimask_output=True)
        (masks,) = processor.post_process_masks(output.pred_masks.float().cpu(), *sizes)
        scores = output.iou_scores.float().cpu()[0, 0]  # (candidates,)
        best = int(scores.argmax())
        mask = np.asarray(masks[0, best], dtype=np.bool_)
        label = next((action.text for action in request.actions if action.text), "what was marked")
        return Result(as_masks([mask], [label]), note=f"expected IoU {float(scores[best]):.2f}")


def prompts_of(request: Request, name: str) -> dict[str, Any]:
    """Return a request's region as boxes, clicks and their labels, of one image and one object.

    A box stays a box, clicks stay clicks. Any other region becomes its bounding box and, since a scribble or
    a mask lies on the object itself, some clicks on it.

    Raises:
        UnsupportedRequestError: If there is no region.
    """
    if request.mask is None or not request.mask.any():
        raise UnsupportedRequestError(
            f"{name} segments the object in a region: give a box, clicks or a scribble"
        )
    height, width = request.mask.shape
    region = request.region
    if isinstance(region, PointsRegion):
        points = [[x * width, y * height] for x, y in region.points]
        labels = [int(positive) for positive in region.positive or (True,) * len(points)]
        return {"input_points": [[points]], "input_labels": [[labels]]}
    box = (region if isinstance(region, BoxRegion) else mask_to_box(request.mask)).corners
    corners = [side * (width, height)[place % 2] for place, side in enumerate(box)]
    prompts: dict[str, Any] = {"input_boxes": [[corners]]}
    if not isinstance(region, BoxRegion):
        rows, columns = np.nonzero(request.mask)
        chosen = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(np.int64)
        prompts["input_points"] = [[[[columns[at] + 0.5, rows[at] + 0.5] for at in chosen.tolist()]]]
        prompts["input_labels"] = [[[1] * len(chosen)]]
    return prompts
