# SPDX-License-Identifier: Apache-2.0
"""The instances of masks as plain values, for programs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.media import Artefact
from vitron.protocol.regions.convert import mask_to_box, mask_to_region

__all__ = ["list_instances"]


def list_instances(artefact: Artefact) -> list[dict[str, Any]]:
    """Return the instances of masks.

    Args:
        artefact: Masks.

    Returns:
        For each instance its ``label``, and for each of its ``frames`` the ``region`` as run lengths, the
        ``box`` (left, top, right and bottom edge as fractions; ``None`` where it is not seen) and the
        ``area`` in pixels.
    """
    many = artefact.num_frames > 1
    return [
        {"label": label, "frames": [_instance(mask, at if many else None) for at, mask in enumerate(frames)]}
        for label, frames in zip(artefact.labels, np.asarray(artefact.data, dtype=np.bool_), strict=True)
    ]


def _instance(mask: NDArray[np.bool_], frame: int | None) -> dict[str, Any]:
    region = mask_to_region(mask, frame=frame).model_dump(mode="json", exclude_none=True)
    box = list(mask_to_box(mask).corners) if mask.any() else None
    return {"region": region, "box": box, "area": int(mask.sum())}
