# SPDX-License-Identifier: Apache-2.0
"""Masks from boxes, clicks and other regions by models of the SAM family of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from common_kernels.runtime.hub import quiet_libraries, resolve_dtype
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PointsRegion
from vitron.protocol.media import Artefact
from vitron.protocol.regions.convert import mask_to_box, pixels_of_box
from vitron.specialists.adapters.base import (
    Adapter,
    as_masks,
    free,
    is_loaded,
    media_of,
)
from vitron.specialists.instances import is_plural, label_of, split_instances
from vitron.specialists.protocol import Request, Result

_POINTS = 8  # clicks for a region without corners, besides its box


class SamAdapter(Adapter):
    """Base of the adapters to models of the SAM family: a model, its processor, and regions as prompts."""

    outputs = ("masks",)
    needs_region = True
    packages = ("transformers", "torch")
    model_class: str
    processor_class: str
    _model: Any = None
    _processor: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Load model and processor; weights must be safetensors."""
        import transformers

        kind, place = resolve_dtype(dtype, device, cuda_default="float16"), self.find()
        with quiet_libraries("transformers"):
            self._processor = getattr(transformers, self.processor_class).from_pretrained(place)
            model = getattr(transformers, self.model_class).from_pretrained(
                place, dtype=kind, use_safetensors=True
            )
        self._model = model.to(device).eval()

    def unload(self) -> None:
        """Delete the model."""
        self._model = self._processor = None
        free()


class SamSegmenter(SamAdapter):
    """Segments the objects in a region: SAM, SAM-HQ, SAM 2 and others; reads ``VITRON_SAM_MODEL``.

    These models take no text prompt: a request without a region is prompted by the mask of the call's
    signals, and left to others if there is none.
    """

    name = "sam"
    summary = "segments the object in a region"
    tasks = ("image_segmentation",)
    inputs = ("image",)
    model_class, processor_class = "AutoModelForMaskGeneration", "AutoProcessor"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment; see :class:`vitron.specialists.Specialist`."""
        media = media_of(request, self.name)
        masks, scores = self.segment(media, prompts_of(request, self.name))
        note = f"expected IoU {', '.join(f'{score:.2f}' for score in scores)}"
        return Result(as_masks(masks, [label_of(request)] * len(masks)), note=note)

    def segment(
        self, media: Artefact, prompts: Mapping[str, Any]
    ) -> tuple[list[NDArray[np.bool_]], list[float]]:
        """Return the best mask of each object, and its expected IoU.

        Args:
            media: Image.
            prompts: Boxes and clicks of each object, as :func:`prompts_of` returns them.

        Returns:
            Masks ``(H, W)``, and their scores.
        """
        import torch

        model, processor = is_loaded(self._model, self.name), self._processor
        inputs = processor(images=Image.fromarray(media.frames[0]), return_tensors="pt", **prompts)
        inputs = inputs.to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        sizes = [inputs.pop(key).cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        with torch.inference_mode():
            output = model(**inputs, multimask_output=True)
        (masks,) = processor.post_process_masks(output.pred_masks.float().cpu(), *sizes)
        scores, best = output.iou_scores.float().cpu()[0].max(-1)  # (objects,)
        chosen = [np.asarray(masks[number, at], dtype=np.bool_) for number, at in enumerate(best.tolist())]
        return chosen, scores.tolist()


def prompts_of(request: Request, name: str) -> dict[str, Any]:
    """Return a request's region as boxes, clicks and their labels, for each object of one image.

    A box stays a box, clicks stay clicks. Any other region becomes its bounding box and, since a scribble or
    a mask lies on the object itself, some clicks on it. The mask of a plural request's signals is one object
    for each connected part.

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
    if isinstance(region, BoxRegion):
        return {"input_boxes": [[_corners(region, width, height)]]}
    masks = objects_of(request)
    return {
        "input_boxes": [[_corners(mask_to_box(mask), width, height) for mask in masks]],
        "input_points": [[_clicks(mask) for mask in masks]],
        "input_labels": [[[1] * _POINTS for _ in masks]],
    }


def objects_of(request: Request) -> list[NDArray[np.bool_]]:
    """Return the mask of a request; of a plural request without a region of the user, each connected part."""
    assert request.mask is not None
    if request.region is not None or not is_plural(request):
        return [request.mask]
    return [part[0] for part in split_instances(request.mask[None])] or [request.mask]


def _corners(box: BoxRegion, width: int, height: int) -> list[float]:
    return list(pixels_of_box(box, width=width, height=height))


def _clicks(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return clicks all over a mask; of a mask with few pixels some twice."""
    rows, columns = np.nonzero(mask)
    chosen = np.linspace(0, len(rows) - 1, _POINTS).astype(np.int64)
    return [[float(columns[at]) + 0.5, float(rows[at]) + 0.5] for at in chosen.tolist()]
