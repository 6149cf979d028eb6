# SPDX-License-Identifier: Apache-2.0
"""A video that is open for reading, and the frames that were sampled from it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common_kernels.runtime.images.file import ImageError
from common_kernels.runtime.video.limits import VideoLimits

__all__ = ["Frame", "Video", "VideoError", "VideoFile", "equally_spaced"]


class VideoError(ImageError):
    """A file is no video that can be handled; the message is one sentence for the user."""


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        pixels: ``(H, W, 3)``, uint8, upright, in sRGB.
        time: Seconds since the first frame.
    """

    pixels: NDArray[np.uint8]
    time: float


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Frames sampled from a video.

    Attributes:
        frames: ``(T, H, W, 3)``, uint8, upright, in sRGB.
        fps: Mean frame rate of the source, in frames per second.
        duration: Duration of the source in seconds.
        num_source_frames: Number of frames of the source.
        indices: Number of each frame in the source, from 0; ascending, and repeated if it is shorter.
        timestamps: Seconds of each frame since the first frame of the source.
    """

    frames: NDArray[np.uint8]
    fps: float
    duration: float
    num_source_frames: int
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    @property
    def sampled_fps(self) -> float:
        """Frame rate at which these frames last as long as the source."""
        span = self.timestamps[-1] - self.timestamps[0]
        if len(self.indices) == self.num_source_frames or span <= 0:
            return self.fps
        return (len(self.indices) - 1) / span


def equally_spaced(num_frames: int, count: int) -> list[int]:
    """Return ``count`` indices from the first to the last of ``num_frames``, truncated to integers.

    A shorter video repeats frames. This is the rule of Video-LLaVA and Vitron.

    Args:
        num_frames: Number of frames, at least 1.
        count: Number of indices, at least 1.

    Raises:
        ValueError: If one is below 1.

    Example:
        >>> equally_spaced(100, 8)
        [0, 14, 28, 42, 56, 70, 84, 99]
    """
    if num_frames < 1 or count < 1:
        raise ValueError(f"num_frames and count must be at least 1, got {num_frames} and {count}")
    return np.linspace(0, num_frames - 1, count).astype(int).tolist()


class VideoFile(ABC):
    """A video that is open for reading; iterating over it gives all its frames, one at a time.

    Args:
        name: Name in error messages.
        limits: Limits.

    Attributes:
        name: Name in error messages.
        limits: Limits.
        size: Height and width, upright.
        fps: Mean frame rate, in frames per second.
        timestamps: Seconds of each frame since the first.
    """

    def __init__(self, name: str, limits: VideoLimits) -> None:
        self.name, self.limits = name, limits
        self.size = (0, 0)
        self.fps = 0.0
        self.timestamps: Sequence[float] = ()

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.timestamps)

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.timestamps[-1] + 1 / self.fps

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Yield frames one at a time, whatever their number.

        Args:
            indices: Numbers of frames, from 0, ascending; may repeat.

        Raises:
            VideoError: If the video is damaged, or too many frames lie between those that are wanted.
        """

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(range(self.num_frames))

    def sample(self, *, frames: int | None = None, fps: float | None = None) -> list[int]:
        """Return the indices of the frames that a rule chooses.

        Args:
            frames: Number of frames, see :func:`equally_spaced`.
            fps: Frames per second: at each multiple of ``1 / fps`` the frame that is shown then.

        Returns:
            Indices, ascending; all of them if neither is given.

        Raises:
            ValueError: If both are given, or one is not above 0.
            VideoError: If these are more frames than the limit.
        """
        if frames is not None and fps is not None:
            raise ValueError("a video is sampled by frames or by fps, got both")
        if (frames is not None and frames < 1) or (fps is not None and not 0 < fps < math.inf):
            raise ValueError(f"frames and fps must be above 0, got {frames if fps is None else fps}")
        if frames is not None:
            return equally_spaced(self.num_frames, frames)
        if fps is None:
            self.check(self.num_frames)
            return list(range(self.num_frames))
        # a frame that is shown a millionth of a second late is shown in time
        count = math.floor((self.timestamps[-1] + 1e-6) * fps) + 1
        self.check(count)
        return [bisect_right(self.timestamps, step / fps + 1e-6) - 1 for step in range(count)]

    def check(self, count: int) -> None:
        """Refuse more frames at once than the limits allow.

        Raises:
            VideoError: If there are more.
        """
        height, width = self.size
        cure = "sample fewer frames"
        if count > self.limits.max_frames:
            raise VideoError(f"{self.name} has {count} frames, more than {self.limits.max_frames}: {cure}")
        if count * height * width > self.limits.max_pixels:
            raise VideoError(
                f"{self.name} has {count} x {width} x {height} pixels, more than {self.limits.max_pixels}: "
                f"{cure}"
            )

    def read(self, indices: Sequence[int]) -> Video:
        """Read frames into memory.

        Args:
            indices: Numbers of frames, from 0, ascending; may repeat.

        Raises:
            ValueError: If there is none, or they are not ascending numbers of frames.
            VideoError: If there are more than the limits allow, or the video is damaged.
        """
        inside = indices and indices[0] >= 0 and indices[-1] < self.num_frames
        if not inside or any(a > b for a, b in pairwise(indices)):
            raise ValueError(f"indices must ascend within {self.num_frames} frames, got {list(indices)[:9]}")
        self.check(len(indices))
        pixels = np.empty((len(indices), *self.size, 3), dtype=np.uint8)
        for place, frame in enumerate(self.frames(indices)):
            pixels[place] = frame.pixels
        times = tuple(float(self.timestamps[index]) for index in indices)
        return Video(pixels, self.fps, self.duration, self.num_frames, tuple(indices), times)


def mean_fps(timestamps: Sequence[float], stated: float | None = None) -> float:
    """Return the mean frame rate; the stated one if it agrees, because it is not rounded.

    Args:
        timestamps: Seconds of each frame, ascending, at least one.
        stated: Rate from the header of the file, if there is any.
    """
    span = timestamps[-1] - timestamps[0]
    measured = (len(timestamps) - 1) / span if span > 0 else stated or 1.0
    return stated if stated and abs(stated - measured) < 0.02 * measured else measured
