# SPDX-License-Identifier: Apache-2.0
"""Masks of a video of all that a text names, by SAM 3."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import is_loaded, media_of
from vitron.specialists.adapters.sam import SamAdapter
from vitron.specialists.instances import choose_instances, label_of
from vitron.specialists.protocol import Request, Result


class Sam3VideoTracker(SamAdapter):
    """Tracks what a text names, each instance by itself: SAM 3; reads ``VITRON_SAM3_VIDEO_MODEL``.

    A plural request gets all instances, any other the one that its region overlaps most on the frame of the
    region, or the surest.
    """

    name = "sam3-video"
    summary = "tracks what a text names"
    tasks = ("video_segmentation",)
    inputs = ("video",)
    model_class, processor_class = "Sam3VideoModel", "Sam3VideoProcessor"

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Track; see :class:`vitron.specialists.Specialist`."""
        import torch

        model, processor = is_loaded(self._model, self.name), self._processor
        frames, label = media_of(request, self.name).frames, label_of(request)
        first, last = request.span
        at = None if request.region is None or request.region.frame is None else request.start
        session = processor.init_video_session(
            video=list(frames[first : last + 1]), inference_device=model.device, dtype=model.dtype
        )
        processor.add_text_prompt(session, label)
        masks, scores = dict[int, NDArray[np.bool_]](), dict[int, float]()
        with torch.inference_mode():
            for output in model.propagate_in_video_iterator(session):
                found = processor.postprocess_outputs(session, output)
                rows = (found[key].cpu().tolist() for key in ("object_ids", "scores"))
                for number, score, mask in zip(*rows, found["masks"].cpu().numpy(), strict=True):
                    whole = masks.setdefault(number, np.zeros(frames.shape[:3], dtype=np.bool_))
                    whole[first + int(output.frame_idx)] = mask
                    scores[number] = max(score, scores.get(number, 0.0))
        numbers = list(masks)
        flat = (masks[each].any(axis=0) if at is None else masks[each][at] for each in numbers)
        seen = [np.asarray(mask, dtype=np.bool_) for mask in flat]
        chosen = [
            numbers[each] for each in choose_instances(request, seen, [scores[each] for each in numbers])
        ]
        if not chosen:
            raise UnsupportedRequestError(f"{self.name} finds nothing like {label[:60]!r}")
        note = f"scores {', '.join(f'{scores[each]:.2f}' for each in chosen)}"
        tracks = np.stack([masks[each] for each in chosen])
        return Result(Artefact("masks", tracks, (label,) * len(chosen)), note=note)
