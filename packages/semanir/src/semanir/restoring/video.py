# SPDX-License-Identifier: Apache-2.0
"""Videos: frame by frame through a network, in agreement with each other."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from common_kernels.runtime.ahead import read_ahead
from common_kernels.runtime.cli import OnProgress as Progress
from common_kernels.runtime.images import MAX_PIXELS
from common_kernels.runtime.video import Frame, Sound, VideoFile, VideoLimits, open_video, write_video

from semanir.options import VideoOptions
from semanir.restoring.files import remark_on_change
from semanir.restoring.source import Result, Source
from semanir.restoring.temporal import TemporalBlend
from semanir.restoring.tiles import TileRunner

__all__ = ["VideoReport", "restore_video"]

_AHEAD = 4  # decoded frames that wait for the network


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoReport:
    """What became of a video.

    Attributes:
        width: Width of the result in pixels.
        height: Height of the result in pixels.
        frames: Number of frames.
        fps: Frame rate in frames per second.
        change: Root of the mean squared change of the colours over all frames, in levels of 8 bits; ``None``
            if the network enlarges.
        note: Remarks for the user, separated by semicolons; may be empty.
    """

    width: int
    height: int
    frames: int
    fps: float
    change: float | None
    note: str


def restore_video(
    runner: TileRunner,
    source: Path,
    target: Path,
    options: VideoOptions,
    *,
    scale: int,
    strength: float,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> VideoReport:
    """Restore a video; see :meth:`semanir.Restorer.restore_video`."""
    limits = VideoLimits(max_seconds=math.inf, max_pixels=max_pixels)
    with open_video(source, limits=limits) as video, ExitStack() as stack:
        sound, note = None, ""
        if options.sound and target.suffix.lower() == ".mp4":
            sound = stack.enter_context(Sound(source))
            if sound.codec and not sound.can_be_copied:
                note = f"its sound ({sound.codec}) is not one that an MP4 holds as it is: left out"
        frames = _Frames(runner, video, options, scale, strength, progress)
        write_video(target, frames.restored(), video.fps, crf=options.crf, sound=sound)
        height, width = video.size
    change = frames.change
    return VideoReport(
        width=width * scale,
        height=height * scale,
        frames=frames.done,
        fps=video.fps,
        change=change,
        note="; ".join(filter(None, [note, remark_on_change(change, frames.noise)])),
    )


class _Frames:
    """One pass over the frames of a video."""

    def __init__(
        self,
        runner: TileRunner,
        video: VideoFile,
        options: VideoOptions,
        scale: int,
        strength: float,
        progress: Progress | None,
    ) -> None:
        self._runner, self._video = runner, video
        self._scale, self._strength, self._progress = scale, strength, progress
        self._blend = TemporalBlend(options.temporal)
        self._squares, self._noise = 0.0, 0.0
        self.done = 0

    @property
    def change(self) -> float | None:
        """Root of the mean squared change in levels of 8 bits."""
        return 255 * math.sqrt(self._squares / max(1, self.done)) if self._scale == 1 else None

    @property
    def noise(self) -> float:
        """Mean of what looks like noise in the frames, in levels of 8 bits."""
        return self._noise / max(1, self.done)

    def restored(self) -> Iterator[Frame]:
        """Yield the restored frames, each at its time."""
        waiting: deque[tuple[Source, float]] = deque()

        def sources() -> Iterator[Source]:
            for frame in read_ahead(self._video, _AHEAD):
                source = Source(frame.pixels)
                waiting.append((source, frame.time))
                yield source

        for bands in self._runner.run(sources()):
            restored = torch.cat([band for _, band in bands], dim=1)
            source, time = waiting.popleft()
            result = Result(source, self._scale, self._strength)
            pixels = result.rows(0, self._blend(restored))
            self._squares += result.squares / source.pixels.size
            self._noise += result.noise
            self.done += 1
            if self._progress is not None:
                self._progress(self.done, self._video.num_frames)
            yield Frame(pixels, time)
