# SPDX-License-Identifier: Apache-2.0
"""Images, videos and masks: as arrays, from files, and to files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common_kernels.runtime.files import write_bytes
from common_kernels.runtime.images import ImageError, read_frames
from common_kernels.runtime.images.limits import MAX_FRAMES
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import MediaError
from vitron.protocol.contract import MAX_PIXELS, MediaKind

__all__ = ["MAX_FRAMES", "Artefact", "decode_media", "overlay", "read_media", "write_media"]

FRAME_MILLISECONDS = 125
# colours of the masks in an overlay, in order
OVERLAY_COLOURS = ((0, 190, 160), (40, 110, 230), (40, 170, 80), (240, 170, 20), (160, 60, 200))


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """An image, a video or masks.

    Attributes:
        kind: Kind of the artefact.
        data: Image ``(H, W, 3)`` or video ``(T, H, W, 3)``, uint8; masks ``(K, T, H, W)``, boolean, where
            ``T`` is 1 for an image.
        labels: Label of each of ``K`` masks; empty for an image or a video.

    Raises:
        MediaError: If shape or dtype is another, there is no pixel, or labels do not match.
    """

    kind: MediaKind
    data: NDArray[np.uint8] | NDArray[np.bool_]
    labels: tuple[str, ...] = ()

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

    def joint_mask(self, frame: int = 0) -> NDArray[np.bool_]:
        """Return the union of the masks of one frame, ``(H, W)``."""
        if self.kind != "masks":
            raise MediaError(f"{self.kind} is not a mask")
        return np.asarray(self.data[:, min(frame, self.num_frames - 1)].any(axis=0), dtype=np.bool_)


def read_media(path: Path, *, max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES) -> Artefact:
    """Read an image, or a video from a file of several frames (GIF, WebP, APNG, TIFF).

    Args:
        path: File in any format of the runtime: 8 to 32 bits, CMYK, alpha over white, upright, in sRGB.
        max_pixels: Limit of the pixels of all frames, checked before decoding.
        max_frames: Limit of frames.

    Raises:
        MediaError: If the file is missing, damaged, not an image, or too large.
    """
    return _read(path, str(path), max_pixels, max_frames)


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
        MediaError: If the content is damaged, not an image, or too large.
    """
    return _read(content, name, max_pixels, max_frames)


def _read(source: Path | bytes, name: str, max_pixels: int, max_frames: int) -> Artefact:
    try:
        frames = read_frames(source, name=name, max_pixels=max_pixels, max_frames=max_frames)
    except ImageError as error:
        raise MediaError(str(error)) from error
    pixels = [np.asarray(frame, dtype=np.uint8) for frame in frames]
    if len({each.shape for each in pixels}) > 1:
        raise MediaError(f"the frames of {name} differ in size")
    return Artefact("image", pixels[0]) if len(pixels) == 1 else Artefact("video", np.stack(pixels))


def overlay(masks: Artefact, source: Artefact) -> Artefact:
    """Return an image or video with masks drawn over it, half transparent.

    Args:
        masks: Masks ``(K, T, H, W)``.
        source: Image or video of the same size and number of frames.

    Raises:
        MediaError: If sizes differ.
    """
    frames = source.frames.astype(np.float64)
    if masks.size != source.size or masks.num_frames != len(frames):
        raise MediaError(
            f"masks of {masks.size}, {masks.num_frames} frames, do not fit {source.size}, "
            f"{len(frames)} frames"
        )
    for index, mask in enumerate(masks.data):
        colour = np.asarray(OVERLAY_COLOURS[index % len(OVERLAY_COLOURS)], dtype=np.float64)
        frames = np.where(mask[..., None], 0.45 * frames + 0.55 * colour, frames)
    return Artefact(source.kind, frames.round().astype(np.uint8).reshape(source.data.shape))


def encode(artefact: Artefact) -> tuple[bytes, str]:
    """Return the bytes of a file and its suffix: PNG, or GIF for several frames; masks are white on black."""
    data = artefact.data
    if artefact.kind == "masks":
        frames = np.stack([artefact.joint_mask(frame) for frame in range(artefact.num_frames)])
        data = np.repeat(frames[..., None], 3, axis=-1).astype(np.uint8) * 255
        data = data if artefact.num_frames > 1 else data[0]
    images = [Image.fromarray(frame) for frame in (data if data.ndim == 4 else data[None])]
    buffer = io.BytesIO()
    if data.ndim == 3:
        images[0].save(buffer, format="PNG")
        return buffer.getvalue(), ".png"
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=FRAME_MILLISECONDS,
        loop=0,
        disposal=2,
    )
    return buffer.getvalue(), ".gif"


def write_media(artefact: Artefact, folder: Path, name: str) -> Path:
    """Write an artefact as ``folder/name.png``, or ``.gif``, atomically.

    Args:
        artefact: Image, video or masks.
        folder: Folder of the file; created if it is missing.
        name: Name without folder and suffix; letters, digits, ``_`` and ``-``.

    Returns:
        The file.

    Raises:
        MediaError: If the name leaves the folder.
        OSError: If the file cannot be written.
    """
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
        raise MediaError(f"a name has letters, digits, '_' and '-', got {name!r}")
    content, suffix = encode(artefact)
    path = folder / f"{name}{suffix}"
    write_bytes(path, content)
    return path
