# SPDX-License-Identifier: Apache-2.0
"""Masks of a video from a region on one frame, by SAM 2 and similar models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.contract import MaskRegion, PolygonRegion
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import is_loaded, media_of
from vitron.specialists.adapters.sam import SamAdapter, objects_of, prompts_of
from vitron.specialists.instances import label_of
from vitron.specialists.protocol import Request, Result

_EXACT = (MaskRegion, PolygonRegion)  # regions that outline the object itself


class SamVideoTracker(SamAdapter):
    """Tracks the objects in a region, forwards and backwards; reads ``VITRON_SAM_VIDEO_MODEL``."""

    name = "sam-video"
    summary = "tracks the object in a region"
    tasks = ("video_segmentation",)
    inputs = ("video",)
    model_class, processor_class = "Sam2VideoModel", "Sam2VideoProcessor"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Track; see :class:`vitron.specialists.Specialist`."""
        import torch

        model, processor = is_loaded(self._model, self.name), self._processor
        frames = media_of(request, self.name).frames
        prompts, count = prompts_of(request, self.name), 1
        (first, last), start = request.span, request.start
        session = processor.init_video_session(
            video=list(frames[first : last + 1]), inference_device=model.device, dtype=model.dtype
        )
        if request.region is None or isinstance(request.region, _EXACT):
            objects = objects_of(request)
            prompts, count = {"input_masks": objects}, len(objects)
        # clicks and boxes are in pixels of the frame
        processor.add_inputs_to_inference_session(
            session, frame_idx=start - first, obj_ids=list(range(count)), **prompts
        )
        masks = np.zeros((count, len(frames), *frames.shape[1:3]), dtype=np.bool_)
        with torch.inference_mode():
            model(inference_session=session, frame_idx=start - first)
            for reverse in (False, True):
                if reverse and start == first:
                    continue
                for found in model.propagate_in_video_iterator(
                    session, start_frame_idx=start - first, reverse=reverse, show_progress_bar=False
                ):
                    (large,) = processor.post_process_masks(
                        [found.pred_masks.float().cpu()], [list(frames.shape[1:3])], binarize=True
                    )
                    masks[:, first + int(found.frame_idx)] = np.asarray(large[:, 0], dtype=np.bool_)
        labels = (label_of(request),) * count
        return Result(Artefact("masks", masks, labels), note=f"followed from frame {start}")
