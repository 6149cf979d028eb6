# SPDX-License-Identifier: Apache-2.0
"""Limits of videos; imports nothing heavy, so that help texts come fast."""

from __future__ import annotations

from dataclasses import dataclass, fields

from common_kernels.runtime.images.limits import MAX_FRAMES, MAX_PIXELS

__all__ = ["VIDEO_SUFFIXES", "VideoLimits"]

VIDEO_SUFFIXES = frozenset({".mp4", ".gif"})
"""Suffixes that decide the format of a written video; of a video to read the contents count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """Limits of a video that is read; all are above 0.

    Attributes:
        max_frames: Most frames returned at once.
        max_pixels: Most pixels of all returned frames together, and of any one frame.
        max_seconds: Longest video, in seconds.
        max_decoded: Most frames decoded on the way to those returned, without these.
    """

    max_frames: int = MAX_FRAMES
    max_pixels: int = MAX_PIXELS
    max_seconds: float = 6 * 3600.0
    max_decoded: int = 100_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")
