# SPDX-License-Identifier: Apache-2.0
"""One conversation in memory: messages, their media and regions, and targets for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, PlacedRegion

__all__ = ["Example"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A conversation and, for training, its targets.

    Attributes:
        task: Task name, such as ``"referring_segmentation"``, for balancing and scores.
        messages: Messages in order.
        media: Images and videos.
        regions: Regions of the messages.
        masks: True masks by position of the call among all calls, ``(T, H, W)`` boolean, of the frames of the
            medium that ``mask_media`` names.
        mask_media: Position of the medium of each of the ``masks``.
        group: Part of the task that is scored separately, such as ``"relation"``.
        conditions: Vectors ``(n, C)`` of a generator's text encoder for the prompt of a call, by position of
            the call.
    """

    task: str
    messages: tuple[Message, ...]
    media: tuple[Artefact, ...] = ()
    regions: tuple[PlacedRegion, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict[int, NDArray[np.bool_]])
    mask_media: Mapping[int, int] = field(default_factory=dict[int, int])
    group: str = ""
    conditions: Mapping[int, NDArray[np.float32]] = field(default_factory=dict[int, NDArray[np.float32]])
