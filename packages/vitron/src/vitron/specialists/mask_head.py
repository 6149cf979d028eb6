# SPDX-License-Identifier: Apache-2.0
"""Segmentation by the model itself: its signals, its image features, its mask head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import PointsRegion, ScribbleRegion, SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import rasterise
from vitron.specialists.instances import is_plural, label_of, split_instances
from vitron.specialists.protocol import Request, Result

__all__ = ["MaskHeadSpecialist"]

MASK_HEAD = 20  # see SpecialistSpec.preference
TOUCHED = 0.5  # share of the user's clicks or strokes that a mask has to cover
INSIDE, FILLED = 0.5, 0.25  # share of a mask in the user's box or outline, and of those in the mask

Mask = Callable[[NDArray[np.float32], str, Artefact], NDArray[np.bool_]]


class MaskHeadSpecialist:
    """Specialist around the mask head of a model.

    Args:
        mask: Function from signals ``(N, C)``, the name of the module and an image or video to a mask
            ``(T, H, W)``, such as ``Vitron.mask``, of the model that generated the signals.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="mask-head",
            summary="segments and tracks by the model's own signals",
            tasks=("image_segmentation", "video_segmentation"),
            inputs=("image", "video"),
            outputs=("masks",),
            licence="Apache-2.0",
            uses_signals=True,
            preference=MASK_HEAD,
        )

    def load(self, device: str, dtype: str) -> None:
        """Do nothing: the model is loaded already."""

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Return the mask of a call; of a plural request, one mask for each connected part.

        Frames outside of the part of a video that is meant have none.

        Raises:
            UnsupportedRequestError: If the call has no signals, the mask is empty, or it is one of an image
                and does not fit the region that the user drew.
        """
        if signal is None or request.media is None:
            raise UnsupportedRequestError("the mask head needs the model's signals, and this call has none")
        (first, last), frame = request.span, np.arange(request.media.num_frames)[:, None, None]
        mask = self._mask(signal, request.module, request.media) & (first <= frame) & (frame <= last)
        label = label_of(request)
        parts = split_instances(mask) if is_plural(request) else [mask]
        if not parts or not mask.any():
            raise UnsupportedRequestError(f"the mask head finds nothing like {label[:60]!r}")
        if request.media.kind == "image" and not fits_region(mask[0], request):
            raise UnsupportedRequestError("the mask of the mask head does not fit the region")
        return Result(Artefact("masks", np.stack(parts), (label,) * len(parts)))

    def unload(self) -> None:
        """Do nothing: the model stays loaded."""


def fits_region(mask: NDArray[np.bool_], request: Request) -> bool:
    """Return whether a mask agrees with the region that the user drew; true without one.

    It has to cover half of the clicks or strokes. Half of it has to lie in a box or an outline, of which it
    has to cover a quarter, as a thin object does that lies across its box.

    Args:
        mask: Mask of the image, ``(H, W)``.
        request: Request with the user's region.
    """
    region = request.region
    if region is None or request.mask is None or is_plural(request):
        return True
    if isinstance(region, PointsRegion | ScribbleRegion):
        drawn = rasterise(region, *mask.shape, patch=0)  # without the width that shows it to the model
        return bool((mask & drawn).sum() >= TOUCHED * drawn.sum())
    shared = (mask & request.mask).sum()
    return bool(shared >= INSIDE * mask.sum() and shared >= FILLED * request.mask.sum())
