# SPDX-License-Identifier: Apache-2.0
"""Videos to files: MP4 that every browser plays, or GIF; whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common_kernels.runtime.files import atomic_path
from common_kernels.runtime.video.container import import_av
from common_kernels.runtime.video.file import Frame, VideoError
from common_kernels.runtime.video.limits import VIDEO_SUFFIXES
from common_kernels.runtime.video.sound import Sound

__all__ = ["encode_video", "write_video"]

Frames = Iterable["NDArray[np.uint8] | Frame"]

# by preference; wheels of PyAV have the first, other builds of FFmpeg may not
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "mpeg4")
_CLOCK = 90_000  # ticks a second for frames with times, as in MPEG
_GIF_CLOCK = 100
_GIF_LEAST = 2  # ticks; browsers show shorter frames for ten
_BT709 = 1  # number of these primaries, transfer curve and matrix in H.264


def write_video(
    path: str | os.PathLike[str],
    frames: Frames,
    fps: float | Fraction,
    *,
    crf: int = 18,
    sound: Sound | None = None,
) -> str:
    """Write a video file, whole or not at all.

    An MP4 is H.264 in 4:2:0 with its index at the front; an odd side is made even by repeating its last row
    or column. A GIF shows at most 50 frames a second, and leaves further ones out. Frames are taken one at a
    time, so that memory does not grow with the video.

    Args:
        path: File; its suffix, one of ``VIDEO_SUFFIXES``, decides the format.
        frames: ``(H, W, 3)``, uint8, in sRGB, all of one size; those with a time are shown at that time.
        fps: Frame rate, in frames per second, of frames without times.
        crf: Constant rate factor of an MP4, 0 to 51: the lower, the better and larger.
        sound: Sound to copy into an MP4, see :attr:`Sound.can_be_copied`; ``None`` is silence.

    Returns:
        Name of FFmpeg's encoder, such as ``libx264``.

    Raises:
        ImportError: If PyAV is missing.
        OSError: If the file cannot be written.
        ValueError: If ``fps`` or ``crf`` is out of range; a :class:`VideoError` if there are no frames, they
            are not of this form, or they cannot be encoded.
    """
    path = Path(path)
    _check(str(path), path.suffix.lower(), fps, crf)
    with atomic_path(path) as temporary:
        # an absolute path is no address of one of FFmpeg's protocols
        target = str(temporary.absolute())
        rate = Fraction(fps).limit_denominator(1001)
        return _write(target, frames, rate, path.suffix.lower(), crf, sound)


def encode_video(frames: Frames, fps: float | Fraction, suffix: str = ".mp4", *, crf: int = 18) -> bytes:
    """Return the bytes of a video file; see :func:`write_video`, but the index of an MP4 is at its end.

    Raises:
        ImportError: If PyAV is missing.
        ValueError: As for :func:`write_video`.
    """
    _check("the video", suffix, fps, crf)
    buffer = io.BytesIO()
    _write(buffer, frames, Fraction(fps).limit_denominator(1001), suffix, crf)
    return buffer.getvalue()


def _check(name: str, suffix: str, fps: float | Fraction, crf: int) -> None:
    if suffix not in VIDEO_SUFFIXES:
        raise VideoError(
            f"{name} has no known video suffix: choose one of {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    if not 0.01 <= fps <= 1000:
        raise ValueError(f"fps must lie in [0.01, 1000], got {float(fps):g}")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf must lie in [0, 51], got {crf}")


def _write(
    target: str | BinaryIO,
    frames: Frames,
    rate: Fraction,
    suffix: str,
    crf: int,
    sound: Sound | None = None,
) -> str:
    av = import_av()
    is_gif = suffix == ".gif"
    options = {"movflags": "faststart"} if isinstance(target, str) and not is_gif else {}
    stream: Any = None
    size, last, clock = (0, 0), -_GIF_LEAST, Fraction(_GIF_CLOCK)
    audio = _Packets(iter(()))
    try:
        with av.open(target, "w", format=suffix[1:], options=options) as out:
            for number, item in enumerate(frames):
                pixels, time = item if isinstance(item, Frame) else (item, None)
                if stream is None:
                    size = _size_of(pixels)
                    clock = clock if is_gif else rate if time is None else Fraction(_CLOCK)
                    stream = _add_gif(out, rate, size) if is_gif else _add_h264(av, out, rate, size, crf)
                    stream.time_base = stream.codec_context.time_base = 1 / clock
                    if sound is not None and sound.can_be_copied and not is_gif:
                        audio = _Packets(sound.packets(out))
                elif _size_of(pixels) != size:
                    raise VideoError(
                        f"all frames of a video have one size, got {size} and {pixels.shape[:2]}"
                    )
                tick = round((number / rate if time is None else Fraction(time)) * clock)
                if is_gif and tick < last + _GIF_LEAST:
                    continue
                frame = _paletted(av, pixels) if is_gif else _planar(av, pixels)
                frame.pts = last = max(tick, last + 1, 0)
                frame.time_base = 1 / clock
                out.mux(stream.encode(frame))
                audio.write(out, float(tick / clock))
            if stream is None:
                raise VideoError("a video needs at least one frame, got none")
            out.mux(stream.encode())
            # sound that goes on after the last frame is kept for as long as that frame is shown
            audio.write(out, float((last + max(1, clock / rate)) / clock))
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, f"the video cannot be written: {error.strerror}") from error
        raise VideoError(f"a video of {size[1]} x {size[0]} cannot be encoded: {error.strerror}") from error
    return str(stream.codec_context.codec.name)


class _Packets:
    """Sound that is written as the frames come."""

    def __init__(self, packets: Iterator[tuple[float, Any]]) -> None:
        self._packets = packets
        self._next = next(packets, None)

    def write(self, out: Any, until: float) -> None:
        """Write the packets up to a time in seconds."""
        while self._next is not None and self._next[0] <= until:
            out.mux(self._next[1])
            self._next = next(self._packets, None)


def _size_of(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise VideoError(f"frames of a video must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    return int(pixels.shape[0]), int(pixels.shape[1])


def _add_h264(av: Any, out: Any, rate: Fraction, size: tuple[int, int], crf: int) -> Any:
    known: set[str] = av.codecs_available
    name = next((name for name in _ENCODERS if name in known), "mpeg4")
    options = {"crf": str(crf), "preset": "fast"} if name == "libx264" else {}
    stream = out.add_stream(name, rate=rate, options=options)
    # the chroma planes have half the size
    stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = av.video.reformatter.ColorRange.MPEG
    return stream


def _planar(av: Any, pixels: NDArray[np.uint8]) -> Any:
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def _add_gif(out: Any, rate: Fraction, size: tuple[int, int]) -> Any:
    stream = out.add_stream("gif", rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "pal8"
    return stream


def _paletted(av: Any, pixels: NDArray[np.uint8]) -> Any:
    image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(256)
    colours = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, dtype=np.uint8)  # alpha, red, green, blue
    palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(image, dtype=np.uint8), palette), format="pal8")
