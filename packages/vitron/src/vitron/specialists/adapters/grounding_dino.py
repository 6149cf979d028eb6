# SPDX-License-Identifier: Apache-2.0
"""Boxes of all that a text names, by Grounding DINO and its kin; with SAM, masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common_kernels.runtime.hub import quiet_libraries, resolve_dtype
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import Adapter, as_masks, free, is_loaded, media_of
from vitron.specialists.adapters.sam import SamSegmenter
from vitron.specialists.instances import choose_instances, label_of
from vitron.specialists.protocol import Request, Result

_THRESHOLD = 0.25  # of the published processor


class Detection(NamedTuple):
    """An object that was found.

    Attributes:
        box: Left, top, right and bottom edge in pixels.
        score: Confidence.
    """

    box: tuple[int, ...]
    score: float


class GroundingDino(Adapter):
    """Finds what a text names, as boxes; reads ``VITRON_GROUNDING_DINO_MODEL``.

    Works with the models of transformers' pipeline ``zero-shot-object-detection``: Grounding DINO, OWLv2 and
    others. The masks are the boxes. A plural request gets all of them, any other the one that its region
    overlaps most, or the surest.
    """

    name = "grounding-dino"
    summary = "finds what a text names, as boxes"
    tasks = ("image_segmentation",)
    inputs = ("image",)
    outputs = ("masks",)
    packages = ("transformers", "torch")
    needs_region = True
    _detect: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Load the pipeline; weights must be safetensors."""
        from transformers import pipeline

        with quiet_libraries("transformers"):
            self._detect = pipeline(
                "zero-shot-object-detection",
                model=self.find(),
                device=device,
                dtype=resolve_dtype(dtype, device, cuda_default="float16"),
                model_kwargs={"use_safetensors": True},
            )

    def unload(self) -> None:
        """Delete the pipeline."""
        self._detect = None
        free()

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Detect; see :class:`vitron.specialists.Specialist`."""
        found = self.detect(request)
        masks = [_filled(each, media_of(request, self.name)) for each in found]
        return Result(as_masks(masks, [label_of(request)] * len(found)), note=_scores(found))

    def detect(self, request: Request) -> list[Detection]:
        """Return what a request means.

        Raises:
            UnsupportedRequestError: If nothing is found.
        """
        detect, media = is_loaded(self._detect, self.name), media_of(request, self.name)
        label, sides = label_of(request), ("xmin", "ymin", "xmax", "ymax")
        # Grounding DINO was trained on lower-case sentences with a full stop
        text = f"{label.lower().rstrip('. ')}."
        found = [
            Detection(tuple(each["box"][side] for side in sides), each["score"])
            for each in detect(
                Image.fromarray(media.frames[0]), candidate_labels=[text], threshold=_THRESHOLD
            )
        ]
        masks = [_filled(each, media) for each in found]
        chosen = choose_instances(request, masks, [each.score for each in found])
        if not chosen:
            raise UnsupportedRequestError(f"{self.name} finds nothing like {label[:60]!r}")
        return [found[each] for each in chosen]


class GroundedSam:
    """Segments what a text names: boxes of Grounding DINO, masks of SAM.

    Reads ``VITRON_GROUNDING_DINO_MODEL`` and ``VITRON_SAM_MODEL``. A region of the user goes to
    SAM alone.

    Args:
        model: Name or folder of the detector.
        sam: Name or folder of the model of the SAM family.

    Raises:
        NotSetUpError: If a package or a model is missing.
    """

    name = "grounded-sam"

    def __init__(self, model: str | Path | None = None, sam: str | Path | None = None) -> None:
        self._detector, self._segmenter = GroundingDino(model), SamSegmenter(sam)

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        boxes, masks = self._detector.spec, self._segmenter.spec
        models = f"{self._detector.model_name}, {self._segmenter.model_name}"
        return boxes.model_copy(
            update={
                "name": self.name,
                "summary": f"segments what a text names ({models})",
                "memory_bytes": boxes.memory_bytes + masks.memory_bytes,
            }
        )

    def load(self, device: str, dtype: str) -> None:
        """Load both models; weights must be safetensors."""
        self._detector.load(device, dtype)
        self._segmenter.load(device, dtype)

    def unload(self) -> None:
        """Delete both models."""
        self._detector.unload()
        self._segmenter.unload()

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Detect and segment; see :class:`vitron.specialists.Specialist`."""
        if request.region is not None:
            return self._segmenter.run(request)
        found = self._detector.detect(request)
        prompts = {"input_boxes": [[list(each.box) for each in found]]}
        masks, _ = self._segmenter.segment(media_of(request, self.name), prompts)
        return Result(as_masks(masks, [label_of(request)] * len(masks)), note=_scores(found))


def _filled(detection: Detection, image: Artefact) -> NDArray[np.bool_]:
    """Return the box of a detection as a mask, ``(H, W)``."""
    left, top, right, bottom = (max(0, edge) for edge in detection.box)
    mask = np.zeros(image.size, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def _scores(found: Sequence[Detection]) -> str:
    return f"scores {', '.join(f'{each.score:.2f}' for each in found)}"
