# SPDX-License-Identifier: Apache-2.0
"""Animated images, which Pillow decodes frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

import numpy as np

from common_kernels.runtime.images.decoding import (
    check_size,
    count_frames,
    from_pillow,
    image_errors,
    open_pillow,
)
from common_kernels.runtime.video.file import Frame, VideoError, VideoFile, mean_fps
from common_kernels.runtime.video.limits import VideoLimits

_SECONDS = 0.1  # of a frame that states none, or a time that browsers do not believe
_LEAST = 0.015


class Animation(VideoFile):
    """A GIF, WebP, PNG or AVIF of several frames; a context manager.

    Args:
        file: File, open at its start.
        name: Name in error messages.
        limits: Limits.

    Raises:
        ImageError: If it is damaged or beyond the limits.
    """

    def __init__(self, file: BinaryIO, name: str, limits: VideoLimits) -> None:
        super().__init__(name, limits)
        self._file = file
        file.seek(0)
        with image_errors(file, name):
            self._image = open_pillow(file)
            check_size(name, *self._image.size, limits.max_pixels)
            count = count_frames(self._image)
            if count > limits.max_decoded:
                raise VideoError(f"{name} has {count} frames, more than {limits.max_decoded}: cut it first")
            width, height = from_pillow(self._image, name).to_rgb().size
            self.size = height, width
            seconds = [self._seconds(index) for index in range(count)]
        self.timestamps = list(accumulate(seconds[:-1], initial=0.0))
        if sum(seconds) > limits.max_seconds:
            raise VideoError(
                f"{name} lasts {sum(seconds):.0f} s, more than {limits.max_seconds:.0f} s: cut it first"
            )
        self.fps = mean_fps(self.timestamps, count / sum(seconds))

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, *_: object) -> None:
        self._image.close()

    def _seconds(self, index: int) -> float:
        self._image.seek(index)
        self._image.load()  # a WebP knows the time of a frame once it is decoded
        seconds = float(self._image.info.get("duration") or 0) / 1000
        return seconds if seconds >= _LEAST else _SECONDS

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Yield frames one at a time; see :meth:`VideoFile.frames`."""
        height, width = self.size
        for index in indices:
            with image_errors(self._file, self.name):
                self._image.seek(index)
                image = from_pillow(self._image, self.name).to_rgb()
            if image.size != (width, height):  # a frame of a GIF may reach over its canvas
                image = image.crop((0, 0, width, height))
            yield Frame(np.asarray(image, dtype=np.uint8), self.timestamps[index])
