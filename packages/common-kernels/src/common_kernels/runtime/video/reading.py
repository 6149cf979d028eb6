# SPDX-License-Identifier: Apache-2.0
"""Videos from files and from memory, whatever their container."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO

from common_kernels.runtime.images.decoding import TIFF_STARTS, count_frames, image_errors, open_pillow
from common_kernels.runtime.images.file import ImageError
from common_kernels.runtime.images.reading import name_of, open_source
from common_kernels.runtime.video.file import Video, VideoError, VideoFile
from common_kernels.runtime.video.limits import VideoLimits

__all__ = ["is_video", "open_video", "read_video"]

VideoSource = str | os.PathLike[str] | bytes | BinaryIO

# FFmpeg's own guess would also open play lists, which name other files and addresses
_CONTAINERS = (
    (rb"....ftyp(?!avif|avis|hei|hev|mif1|msf1|crx )", "mov"),
    (rb"....(moov|mdat|wide|free|skip|pnot)", "mov"),
    (rb"\x1a\x45\xdf\xa3", "matroska"),
    (rb"RIFF....AVI ", "avi"),
    (rb"FLV\x01", "flv"),
    (rb"OggS", "ogg"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (rb"\x00\x00\x01\xba", "mpeg"),
    (rb"G.{187}G.{187}G", "mpegts"),
)
_STARTS = [(re.compile(start, re.DOTALL), kind) for start, kind in _CONTAINERS]


def container_of(file: BinaryIO) -> str | None:
    """Return FFmpeg's name of the container, or ``None`` if the file is of another kind."""
    start = file.read(1024)
    file.seek(0)
    return next((kind for pattern, kind in _STARTS if pattern.match(start)), None)


def is_video(source: VideoSource, *, name: str | None = None) -> bool:
    """Return whether the contents of a file are a video, or an image with several frames (not pages).

    Args:
        source: File, its bytes, or a file open for reading bytes.
        name: Name in error messages; the path or "the video" if ``None``.

    Raises:
        ImageError: If the file cannot be opened, or is neither a video nor an image.
    """
    with open_source(source, kind="an image or a video") as file:
        return container_of(file) is not None or _is_animation(file, name or name_of(source, "the video"))


def _is_animation(file: BinaryIO, name: str) -> bool:
    if file.read(4) in TIFF_STARTS:
        return False
    file.seek(0)
    with image_errors(file, name), open_pillow(file) as image:
        return count_frames(image) > 1


@contextmanager
def open_video(
    source: VideoSource, *, limits: VideoLimits | None = None, name: str | None = None
) -> Generator[VideoFile]:
    """Open a video; its frames are found and counted, and only the first is decoded.

    Args:
        source: MP4, MOV, WebM, MKV, AVI, FLV, Ogg, ASF or MPEG; or an animated GIF, WebP, PNG or AVIF. A
            file, its bytes, or a file open for reading bytes; the contents count, not the suffix.
        limits: Limits; the defaults if ``None``.
        name: Name in error messages; the path or "the video" if ``None``.

    Yields:
        The video.

    Raises:
        ImageError: If the file is missing, a folder, no video, a still image, damaged, cut short, or beyond
            the limits.
        ImportError: If PyAV is missing.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from common_kernels.runtime.video import encode_video
        >>> file = io.BytesIO(encode_video([np.zeros((8, 8, 3), np.uint8)] * 3, 10, ".gif"))
        >>> with open_video(file) as video:
        ...     print(video.num_frames, video.size, round(video.fps), len(list(video)))
        3 (8, 8) 10 3
    """
    from common_kernels.runtime.video.animation import Animation
    from common_kernels.runtime.video.container import Container

    limits, name = limits or VideoLimits(), name or name_of(source, "the video")
    with open_source(source, kind="a video") as file:
        kind = container_of(file)
        if kind is not None:
            with Container(file, kind, name, limits) as container:
                yield container
            return
        try:
            animated = _is_animation(file, name)
        except VideoError:
            raise
        except ImageError as error:
            raise VideoError(f"{error}".replace("is not an image", "is not a video")) from error
        if not animated:
            raise VideoError(f"{name} is a still image, not a video")
        with Animation(file, name, limits) as animation:
            yield animation


def read_video(
    source: VideoSource,
    *,
    frames: int | None = None,
    fps: float | None = None,
    limits: VideoLimits | None = None,
    name: str | None = None,
) -> Video:
    """Read frames of a video, chosen by their number or by their rate, or all of them.

    Where the container allows it, the reader jumps to the frames that are wanted, so that eight frames of two
    hours cost little time, and no more memory than these frames and the decoder's own.

    Args:
        source: Video, see :func:`open_video`.
        frames: Number of frames, equally spaced from the first to the last, see :func:`equally_spaced`.
        fps: Frames per second.
        limits: Limits; more frames than these are refused, not left out.
        name: Name in error messages.

    Raises:
        ImageError: As for :func:`open_video`, or if there are more frames than the limits allow.
        ImportError: If PyAV is missing.
        ValueError: If ``frames`` and ``fps`` are both given, or not above 0.
    """
    with open_video(source, limits=limits, name=name) as video:
        return video.read(video.sample(frames=frames, fps=fps))
