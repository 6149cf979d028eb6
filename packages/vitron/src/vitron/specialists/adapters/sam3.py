# SPDX-License-Identifier: Apache-2.0
"""Masks of all that a text names, by SAM 3."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.specialists.adapters.base import as_masks, is_loaded, media_of
from vitron.specialists.adapters.sam import SamAdapter
from vitron.specialists.instances import choose_instances, label_of
from vitron.specialists.protocol import Request, Result

_THRESHOLD = 0.5  # of the published model


class Sam3Segmenter(SamAdapter):
    """Segments what a text names, each instance by itself: SAM 3; reads ``VITRON_SAM3_MODEL``.

    A plural request gets all instances, any other the one that its region overlaps most, or the surest.
    """

    name = "sam3"
    summary = "segments what a text names"
    tasks = ("image_segmentation",)
    inputs = ("image",)
    model_class, processor_class = "Sam3Model", "Sam3Processor"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment; see :class:`vitron.specialists.Specialist`."""
        import torch

        model, processor = is_loaded(self._model, self.name), self._processor
        media, label = media_of(request, self.name), label_of(request)
        inputs = processor(images=Image.fromarray(media.frames[0]), text=label, return_tensors="pt")
        inputs = inputs.to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            output = model(**inputs)
        (found,) = processor.post_process_instance_segmentation(
            output, threshold=_THRESHOLD, target_sizes=[media.size]
        )
        masks = list(found["masks"].cpu().numpy().astype(np.bool_))
        scores = found["scores"].float().tolist()
        chosen = choose_instances(request, masks, scores)
        if not chosen:
            raise UnsupportedRequestError(f"{self.name} finds nothing like {label[:60]!r}")
        note = f"scores {', '.join(f'{scores[each]:.2f}' for each in chosen)}"
        return Result(as_masks([masks[each] for each in chosen], [label] * len(chosen)), note=note)
