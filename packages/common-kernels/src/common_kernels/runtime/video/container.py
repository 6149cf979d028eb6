# SPDX-License-Identifier: Apache-2.0
"""Video containers, which PyAV opens: an index of all frames, then jumps to those that are wanted."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from common_kernels.runtime.images.decoding import check_size
from common_kernels.runtime.images.file import ImageError
from common_kernels.runtime.video.file import Frame, VideoError, VideoFile, mean_fps
from common_kernels.runtime.video.limits import VideoLimits

_MAX_PACKETS = 5_000_000
_MAX_THREADS = 4  # each holds a frame
_MICROSECONDS = 1_000_000  # FFmpeg's unit of the duration of a container


def import_av() -> Any:
    """Return PyAV.

    Raises:
        ImportError: If it is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError('videos need PyAV: pip install "common-kernels[video]"') from error
    return av


def open_container(av: Any, file: BinaryIO, kind: str) -> Any:
    """Open a container for reading, whatever bytes its texts are made of.

    Args:
        av: PyAV.
        file: File, open at its start.
        kind: FFmpeg's name of the container.
    """
    if int(av.__version__.partition(".")[0]) < 19:  # later ones have no such option, and escape such bytes
        return av.open(file, format=kind, metadata_errors="ignore")
    return av.open(file, format=kind)


@contextmanager
def video_errors(av: Any, name: str) -> Generator[None]:
    """Turn whatever FFmpeg says about a bad file into one sentence.

    Raises:
        VideoError: For anything that a bad file can cause.
    """
    try:
        yield
    except ImageError:
        raise
    except av.error.FFmpegError as error:
        raise VideoError(f"{name} is damaged, cut short or of an unknown codec: {error.strerror}") from error
    except (ValueError, OverflowError, ArithmeticError, LookupError, RuntimeError) as error:
        raise VideoError(f"{name} is damaged or cut short: {error}") from error


class Container(VideoFile):
    """A video in a container; a context manager.

    Args:
        file: File, open at its start.
        kind: FFmpeg's name of the container.
        name: Name in error messages.
        limits: Limits.

    Raises:
        ImageError: If it is damaged or beyond the limits.
        ImportError: If PyAV is missing.
    """

    def __init__(self, file: BinaryIO, kind: str, name: str, limits: VideoLimits) -> None:
        super().__init__(name, limits)
        self._av = import_av()
        self._kind = kind
        # times of all frames, those of key frames, and what to ask for to land on these
        self._pts, self._keys, self._jumps = array("q"), array("q"), array("q")
        self._decoder: Iterator[Any] = iter(())
        self._frame: Any = None  # decoded last
        self._at = 0  # its time
        self._left = limits.max_decoded
        self._frame_size: tuple[int, int] | None = None
        self._timed = True
        with video_errors(self._av, name):
            self._container = open_container(self._av, file, kind)
        try:
            with video_errors(self._av, name):
                self._stream = self._open_stream()
                self._scan()
                first = self._decode(self._pts[0])
                self._frame_size = first.width, first.height
                height, width, _ = self._pixels(first).shape
            self.size = height, width
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder, self._frame = iter(()), None
        self._container.close()

    def _open_stream(self) -> Any:
        stream = self._container.streams.best("video")
        if stream is None:
            raise VideoError(f"{self.name} has no video stream")
        codec = stream.codec_context
        if codec is None:
            raise VideoError(f"{self.name} is of a codec that cannot be decoded")
        check_size(self.name, codec.width, codec.height, self.limits.max_pixels)
        # a stream may grow on the way
        codec.options = {"max_pixels": str(self.limits.max_pixels)}
        codec.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
        stream.thread_type = "AUTO"
        self._check_duration((self._container.duration or 0) / _MICROSECONDS)
        return stream

    def _check_duration(self, seconds: float) -> None:
        if seconds > self.limits.max_seconds:
            raise VideoError(
                f"{self.name} lasts {seconds:.0f} s, more than {self.limits.max_seconds:.0f} s: cut it first"
            )

    def _scan(self) -> None:
        """Find the times of all frames, without decoding any."""
        stream = self._stream
        discarded, timed, end = 0, True, 0.0
        for number, packet in enumerate(self._container.demux()):
            if number >= _MAX_PACKETS:
                raise VideoError(f"{self.name} has more than {_MAX_PACKETS} packets: cut it first")
            if not packet.size:  # the last of each stream is empty
                continue
            pts: int | None = packet.pts
            last = packet.dts if pts is None else pts
            if last is not None:
                end = max(end, float((last + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index:
                continue
            if packet.is_discard:  # cut away by an edit list
                discarded += 1
                continue
            timed = timed and pts is not None
            self._pts.append(len(self._pts) if pts is None else pts)
            if packet.is_keyframe:
                self._keys.append(self._pts[-1])
                # only Matroska has an index by the time of display, the others by that of decoding
                dts: int | None = None if self._kind == "matroska" else packet.dts
                self._jumps.append(self._pts[-1] if dts is None else dts)
        if not self._pts:
            raise VideoError(f"{self.name} is damaged or cut short: it has no frames")
        self._check_whole(len(self._pts) + discarded, end)
        self._set_times(timed=timed)

    def _check_whole(self, count: int, end: float) -> None:
        """Compare what the file holds with what its header announces."""
        if self._kind not in {"mov", "matroska"}:  # others announce nothing, or what they guess
            return
        start, announced = self._container.start_time or 0, self._container.duration or 0
        missing = (start + announced) / _MICROSECONDS - end
        too_short = missing > max(0.5, 0.02 * announced / _MICROSECONDS)
        if too_short or count < self._stream.frames:
            raise VideoError(f"{self.name} is damaged or cut short: its last frames are missing")

    def _set_times(self, *, timed: bool) -> None:
        rate = float(self._stream.average_rate or 0) or None
        unit = float(self._stream.time_base or 0)
        if not timed or not unit:  # old containers state no times: frames are counted
            self._pts, self._keys = array("q", range(len(self._pts))), array("q")
            unit, timed = 1 / (rate or 25.0), False
        self._timed = timed
        self._pts = array("q", sorted(self._pts))  # packets come in the order of decoding
        self.timestamps = ((np.asarray(self._pts) - self._pts[0]) * unit).tolist()
        self.fps = mean_fps(self.timestamps, rate)
        self._check_duration(self.duration)

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Yield frames one at a time; see :meth:`VideoFile.frames`."""
        self._left = self.limits.max_decoded
        previous, pixels = -1, np.empty((0, 0, 3), dtype=np.uint8)
        for index in indices:
            if index != previous:
                with video_errors(self._av, self.name):
                    pixels = self._pixels(self._decode(self._pts[index]))
                previous = index
                self._left += 1  # only what is decoded in vain counts
            yield Frame(pixels, self.timestamps[index])

    def _decode(self, wanted: int) -> Any:
        """Return the frame of a time, decoding on or jumping to the key frame before it."""
        key = bisect_right(self._keys, wanted) - 1
        if self._frame is None or self._at > wanted or (key >= 0 and self._keys[key] > self._at):
            self._jump(self._jumps[key] if key >= 0 else 0)
            if self._at > wanted and key >= 0:  # the container leads behind it: no more jumps
                self._keys = array("q")
                self._jump(0)
        # a packet at the end may hold no picture: the last frame stands for it
        while self._at < wanted and self._advance():
            pass
        return self._frame

    def _jump(self, offset: int) -> None:
        self._container.seek(offset, stream=self._stream)
        self._decoder, self._frame = self._container.decode(self._stream), None
        if not self._advance():
            raise VideoError(f"{self.name} is damaged or cut short: a frame cannot be decoded")

    def _advance(self) -> bool:
        """Decode the next frame; return whether there is one."""
        frame = next(self._decoder, None)
        if frame is None:
            return False
        self._left -= 1
        if self._left < 0:
            raise VideoError(
                f"{self.name} has too few key frames: more than {self.limits.max_decoded} frames would "
                "have to be decoded"
            )
        if self._timed and frame.pts is not None:
            self._at = int(frame.pts)
        else:
            self._at = self._pts[0] if self._frame is None else self._at + 1
        self._frame = frame
        return True

    def _pixels(self, frame: Any) -> NDArray[np.uint8]:
        """Return a frame as ``(H, W, 3)``, upright, in the size of the first."""
        width, height = self._frame_size or (frame.width, frame.height)
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        turns = round(frame.rotation / 90) % 4  # of the display matrix, which phones write
        return np.ascontiguousarray(np.rot90(pixels, turns))
