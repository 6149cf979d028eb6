# SPDX-License-Identifier: Apache-2.0
"""Images, videos and masks: as arrays, from files, and to files."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from common_kernels.runtime.files import write_bytes
from common_kernels.runtime.images import ImageError, read_frames
from common_kernels.runtime.images.limits import MAX_FRAMES
from common_kernels.runtime.pictures import draw_masks
from common_kernels.runtime.video import (
    VideoFile,
    VideoLimits,
    encode_video,
    equally_spaced,
    is_video,
    open_video,
    write_video,
)
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import MediaError
from vitron.protocol.contract import MAX_PIXELS, MediaKind

__all__ = ["MAX_FRAMES", "Artefact", "VideoFormat", "decode_media", "overlay", "read_media", "write_media"]

VideoFormat: TypeAlias = Literal["mp4", "gif"]

FPS = 8.0  # of a video that was made without a frame rate
# what is kept of a video that is beyond the limits: one that is, is long, and takes no more memory than this
SAMPLED_FRAMES, LEAST_FRAMES, SAMPLED_PIXELS = 64, 8, 32_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """An image, a video or masks.

    Attributes:
        kind: Kind of the artefact.
        data: Image ``(H, W, 3)`` or video ``(T, H, W, 3)``, uint8; masks ``(K, T, H, W)``, boolean, where
            ``T`` is 1 for an image.
        labels: Label of each of ``K`` masks; empty for an image or a video.
        fps: Frames per second of a video or its masks; ``None`` if it is not known.
        note: Remark on the reading, such as ``"64 of 7200 frames"``; else empty.

    Raises:
        MediaError: If shape or dtype is another, there is no pixel, or labels do not match.
    """

    kind: MediaKind
    data: NDArray[np.uint8] | NDArray[np.bool_]
    labels: tuple[str, ...] = ()
    fps: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        ndim = {"image": 3, "video": 4, "masks": 4}[self.kind]
        dtype = np.bool_ if self.kind == "masks" else np.uint8
        shape = self.data.shape
        if self.data.dtype != dtype or self.data.ndim != ndim or (dtype is np.uint8 and shape[-1] != 3):
            wanted = {"image": "(H, W, 3) uint8", "video": "(T, H, W, 3) uint8", "masks": "(K, T, H, W) bool"}
            raise MediaError(f"{self.kind} must be {wanted[self.kind]}, got {shape} {self.data.dtype}")
        # no mask at all is a valid result, an image without pixels is not
        if not np.prod(shape[1:] if self.kind == "masks" else shape):
            raise MediaError(f"{self.kind} must have pixels, got shape {shape}")
        if len(self.labels) != (shape[0] if self.kind == "masks" else 0):
            raise MediaError(f"masks have one label each, got {len(self.labels)} for shape {shape}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.data.shape[:-1][-2:] if self.kind != "masks" else self.data.shape[-2:]
        return int(height), int(width)

    @property
    def num_frames(self) -> int:
        """Number of frames; 1 for an image."""
        return {"image": 1, "video": self.data.shape[0], "masks": self.data.shape[1]}[self.kind]

    @property
    def frames(self) -> NDArray[np.uint8]:
        """An image or a video as ``(T, H, W, 3)``."""
        if self.kind == "masks":
            raise MediaError("masks have no colours")
        return np.asarray(self.data.reshape(self.num_frames, *self.size, 3), dtype=np.uint8)

    def timed_like(self, source: Artefact | None) -> Artefact:
        """Return a video, or its masks, with the frame rate of the video it was made from, if it has none."""
        fits = source is not None and self.num_frames == source.num_frames > 1
        return replace(self, fps=source.fps) if source is not None and fits and self.fps is None else self

    def joint_mask(self, frame: int = 0) -> NDArray[np.bool_]:
        """Return the union of the masks of one frame, ``(H, W)``."""
        if self.kind != "masks":
            raise MediaError(f"{self.kind} is not a mask")
        return np.asarray(self.data[:, min(frame, self.num_frames - 1)].any(axis=0), dtype=np.bool_)


def read_media(
    path: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    span: tuple[int, int] | None = None,
) -> Artefact:
    """Read an image or a video; the contents of the file count, not its suffix.

    Of a video with more frames than the limits allow, equally spaced ones are kept, at most 64, and the note
    of the result says so; their frame rate keeps its duration.

    Args:
        path: Image or video in any format of the runtime: 8 to 32 bits, CMYK, alpha over white, upright, in
            sRGB; MP4, MOV, WebM, MKV, GIF, WebP, PNG; pages of a TIFF are frames.
        max_pixels: Limit of the pixels of all frames, checked before decoding.
        max_frames: Limit of frames.
        span: First and last frame of the part of a video that is read; all if ``None``.

    Raises:
        MediaError: If the file is missing, damaged, neither an image nor a video, too large, or ends before
            the span.
    """
    return _read(path, str(path), max_pixels, max_frames, span)


def decode_media(
    content: bytes, *, name: str = "the file", max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES
) -> Artefact:
    """Decode an image or a video from the bytes of a file.

    Args:
        content: Bytes of a file in the formats of :func:`read_media`.
        name: Name of the file in error messages.
        max_pixels: Limit of the pixels of all frames, checked before decoding.
        max_frames: Limit of frames.

    Raises:
        MediaError: If the content is damaged, neither an image nor a video, or too large.
    """
    return _read(content, name, max_pixels, max_frames)


def _read(
    source: Path | bytes, name: str, max_pixels: int, max_frames: int, span: tuple[int, int] | None = None
) -> Artefact:
    try:
        if is_video(source, name=name):
            limits = VideoLimits(max_pixels=max_pixels, max_frames=max_frames)
            with open_video(source, name=name, limits=limits) as video:
                return _sample(video, span, name)
        frames = read_frames(source, name=name, max_pixels=max_pixels, max_frames=max_frames)
    except ImageError as error:
        raise MediaError(str(error)) from error
    pixels = [np.asarray(frame, dtype=np.uint8) for frame in frames]
    if len({each.shape for each in pixels}) > 1:
        raise MediaError(f"the frames of {name} differ in size")
    if len(pixels) == 1:
        return Artefact("image", pixels[0])
    kept = _within(span, len(pixels), name)
    return Artefact("video", np.stack(pixels[kept.start : kept.stop]))


def _within(span: tuple[int, int] | None, count: int, name: str) -> range:
    """Return the frames of a span that a video of so many frames has."""
    first, last = span or (0, count - 1)
    if first >= count:
        raise MediaError(f"{name} has {count} frames, and frame {first} is not one of them")
    return range(first, min(last, count - 1) + 1)


def _sample(video: VideoFile, span: tuple[int, int] | None, name: str) -> Artefact:
    height, width = video.size
    most = min(video.limits.max_frames, video.limits.max_pixels // (height * width))
    wanted, note = _within(span, video.num_frames, name), ""
    if len(wanted) <= most:
        found = video.read(wanted)
    else:
        within = max(LEAST_FRAMES, SAMPLED_PIXELS // (height * width))
        count = min(most, SAMPLED_FRAMES, within)
        found = video.read([wanted[each] for each in equally_spaced(len(wanted), count)])
        note = f"{len(found.frames)} of {len(wanted)} frames"
    return Artefact("video", found.frames, fps=found.sampled_fps, note=note)


def overlay(masks: Artefact, source: Artefact) -> Artefact:
    """Return an image or video with masks drawn over it: outlined, and everything else dimmed.

    Args:
        masks: Masks ``(K, T, H, W)``.
        source: Image or video of the same size and number of frames.

    Raises:
        MediaError: If sizes differ.
    """
    frames = source.frames
    if masks.size != source.size or masks.num_frames != len(frames):
        raise MediaError(
            f"masks of {masks.size}, {masks.num_frames} frames, do not fit {source.size}, "
            f"{len(frames)} frames"
        )
    planes = np.asarray(masks.data, dtype=np.bool_)
    drawn = np.stack([draw_masks(frame, planes[:, at]) for at, frame in enumerate(frames)])
    return Artefact(source.kind, drawn.reshape(source.data.shape), fps=source.fps)


def _colours(artefact: Artefact) -> NDArray[np.uint8]:
    """Return an image ``(H, W, 3)`` or a video ``(T, H, W, 3)``; masks are white on black."""
    if artefact.kind != "masks":
        return np.asarray(artefact.data, dtype=np.uint8)
    frames = np.stack([artefact.joint_mask(frame) for frame in range(artefact.num_frames)])
    colours = np.repeat(frames[..., None], 3, axis=-1).astype(np.uint8) * 255
    return colours if artefact.num_frames > 1 else colours[0]


def encode(artefact: Artefact, video_format: VideoFormat = "mp4") -> tuple[bytes, str]:
    """Return the bytes of a file and its suffix: PNG, or MP4 or GIF for a video; masks are white on black."""
    pixels = _colours(artefact)
    if pixels.ndim == 4:
        suffix = f".{video_format}"
        return encode_video(pixels, artefact.fps or FPS, suffix), suffix
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue(), ".png"


def write_media(artefact: Artefact, folder: Path, name: str, *, video_format: VideoFormat = "mp4") -> Path:
    """Write an artefact as ``folder/name.png``, or a video as ``.mp4`` or ``.gif``, atomically.

    Args:
        artefact: Image, video or masks.
        folder: Folder of the file; created if it is missing.
        name: Name without folder and suffix; letters, digits, ``_`` and ``-``.
        video_format: Format of a video.

    Returns:
        The file.

    Raises:
        MediaError: If the name leaves the folder.
        OSError: If the file cannot be written.
    """
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
        raise MediaError(f"a name has letters, digits, '_' and '-', got {name!r}")
    pixels = _colours(artefact)
    if pixels.ndim == 4:
        path = folder / f"{name}.{video_format}"
        write_video(path, pixels, artefact.fps or FPS)
    else:
        path = folder / f"{name}.png"
        write_bytes(path, encode(artefact)[0])
    return path
