# SPDX-License-Identifier: Apache-2.0
"""The sound of a video, copied packet by packet beside new frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from common_kernels.runtime.images.reading import open_source
from common_kernels.runtime.video.container import import_av, open_container, video_errors
from common_kernels.runtime.video.reading import container_of

__all__ = ["Sound"]

# what players expect in an MP4; others, such as PCM and Vorbis, are not copied
_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})


class Sound:
    """The first audio stream of a file; a context manager.

    Args:
        path: Video of any container.

    Attributes:
        codec: FFmpeg's name of its codec; empty if there is no sound.

    Raises:
        ImportError: If PyAV is missing.
        VideoError: If the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._av, self._name, self._files = import_av(), str(path), ExitStack()
        self.codec, self._stream, self._start = "", None, 0.0
        with self._files:
            file = self._files.enter_context(open_source(path, kind="a video"))
            kind = container_of(file)
            if kind is not None:  # an animated image is silent
                self._open(file, kind)
            self._files = self._files.pop_all()

    def _open(self, file: BinaryIO, kind: str) -> None:
        with video_errors(self._av, self._name):
            self._container = open_container(self._av, file, kind)
            self._files.callback(self._container.close)
            self._stream = self._container.streams.best("audio")
            video = self._container.streams.best("video")
        if self._stream is not None and self._stream.codec_context is not None:
            self.codec = str(self._stream.codec_context.codec.canonical_name)
        if video is not None and video.time_base:
            self._start = float((video.start_time or 0) * video.time_base)

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def can_be_copied(self) -> bool:
        """Whether there is sound that an MP4 holds as it is."""
        return self.codec in _COPIED

    def packets(self, out: Any) -> Iterator[tuple[float, Any]]:
        """Add a stream to an open container; yield the packets for it.

        Args:
            out: Container of PyAV, before anything was written to it.

        Returns:
            Iterator over pairs of the seconds since the first frame and the packet.
        """
        stream = out.add_stream_from_template(self._stream)
        return self._shifted(stream)

    def _shifted(self, stream: Any) -> Iterator[tuple[float, Any]]:
        with video_errors(self._av, self._name):
            for packet in self._container.demux(self._stream):
                if packet.pts is None or packet.dts is None:  # the last one is empty
                    continue
                ticks = round(self._start / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                if packet.pts + (packet.duration or 0) > 0:
                    packet.stream = stream
                    yield float(packet.pts * packet.time_base), packet
