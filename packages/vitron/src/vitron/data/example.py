# SPDX-License-Identifier: Apache-2.0
"""One dialogue, in memory: messages, the media and regions that they speak of, and the truth to learn."""

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
    """A dialogue and, for learning, its truth.

    Attributes:
        task: Name of what it teaches, as ``"referring_segmentation"``; for balancing and for scores.
        messages: In order.
        media: Pictures and clips.
        regions: What the regions of the messages are.
        masks: For a call that has a true mask: its position among all calls of the dialogue, to ``(T, H, W)``
            boolean of the frames of the medium ``mask_media`` names.
        mask_media: Which of the media each of the ``masks`` lies on.
        group: A part of the task that is scored apart, as ``"relation"``.
        conditions: For a call that makes something from words: what a generator's text encoder gives for
            them, ``(n, C)``, by the call's position.
    """

    task: str
    messages: tuple[Message, ...]
    media: tuple[Artefact, ...] = ()
    regions: tuple[PlacedRegion, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict[int, NDArray[np.bool_]])
    mask_media: Mapping[int, int] = field(default_factory=dict[int, int])
    group: str = ""
    conditions: Mapping[int, NDArray[np.float32]] = field(default_factory=dict[int, NDArray[np.float32]])
