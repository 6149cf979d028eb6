# SPDX-License-Identifier: Apache-2.0
"""Pictures, clips and masks: as arrays, from files, and to files."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from vitron.errors import MediaError
from vitron.protocol.contract import MAX_PIXELS, MediaKind

__all__ = ["MAX_FRAMES", "Artefact", "decode_media", "overlay", "read_media", "write_media"]

MAX_FRAMES = 512
FRAME_MILLISECONDS = 125
# of the masks in an overlay, one after the other
OVERLAY_COLOURS = ((0, 190, 160), (40, 110, 230), (40, 170, 80), (240, 170, 20), (160, 60, 200))

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """A picture, a clip or masks.

    Attributes:
        kind: Which of them.
        data: A picture ``(H, W, 3)`` or a clip ``(T, H, W, 3)``, uint8; masks ``(K, T, H, W)``, boolean,
            where ``T`` is 1 for a picture.
        labels: A name for each of ``K`` masks, else nothing.

    Raises:
        MediaError: If shape or dtype are not these, there is no pixel, or labels do not match.
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
        # no mask at all is an answer too, a picture without pixels is none
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
        """Frames; 1 for a picture."""
        return {"image": 1, "video": self.data.shape[0], "masks": self.data.shape[1]}[self.kind]

    @property
    def frames(self) -> NDArray[np.uint8]:
        """A picture or a clip as ``(T, H, W, 3)``."""
        if self.kind == "masks":
            raise MediaError("masks have no colours")
        return np.asarray(self.data.reshape(self.num_frames, *self.size, 3), dtype=np.uint8)

    def joint_mask(self, frame: int = 0) -> NDArray[np.bool_]:
        """Return all masks of one frame together, ``(H, W)``."""
        if self.kind != "masks":
            raise MediaError(f"{self.kind} is no mask")
        return np.asarray(self.data[:, min(frame, self.num_frames - 1)].any(axis=0), dtype=np.bool_)


def read_media(path: Path, *, max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES) -> Artefact:
    """Read a picture, or a clip from a file of several frames (GIF, WebP, APNG).

    Args:
        path: Anything that Pillow reads. Transparency lies on white.
        max_pixels: Refuse a file whose frames together have more; the first check comes before decoding.
        max_frames: Refuse a clip that has more.

    Raises:
        MediaError: If the file is missing, no image, damaged, or too large.
    """
    if not path.is_file():
        raise MediaError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    return _read(path, str(path), max_pixels, max_frames)


def decode_media(
    content: bytes, *, name: str = "the file", max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES
) -> Artefact:
    """Read a picture or a clip from the bytes of a file.

    Args:
        content: As :func:`read_media` finds them in a file.
        name: What error messages call it.
        max_pixels: As in :func:`read_media`.
        max_frames: As in :func:`read_media`.

    Raises:
        MediaError: As in :func:`read_media`.
    """
    return _read(io.BytesIO(content), name, max_pixels, max_frames)


def _read(file: Path | io.BytesIO, name: str, max_pixels: int, max_frames: int) -> Artefact:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, which is checked here, and of damage beside the pixels
            with Image.open(file) as image:
                return _decode(name, image, max_pixels, max_frames)
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name} claims more than {max_pixels} pixels") from error
    except _DAMAGE as error:
        raise MediaError(f"{name} is damaged or cut short: {error}") from error


def _decode(name: str, image: Image.Image, max_pixels: int, max_frames: int) -> Artefact:
    count = int(getattr(image, "n_frames", 1))
    if count > max_frames:
        raise MediaError(f"{name} has {count} frames, more than {max_frames}: cut it first")
    if image.width * image.height * count > max_pixels:
        raise MediaError(
            f"{name} has {count} x {image.width} x {image.height} pixels, more than {max_pixels}: shrink it"
        )
    if count < 2:
        return Artefact("image", _rgb(ImageOps.exif_transpose(image)))
    return Artefact("video", np.stack([_rgb(frame) for frame in ImageSequence.Iterator(image)]))


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def overlay(masks: Artefact, under: Artefact) -> Artefact:
    """Return a picture or clip with masks drawn over it, half transparent.

    Args:
        masks: ``(K, T, H, W)``.
        under: Of the same size and number of frames.

    Raises:
        MediaError: If sizes differ.
    """
    frames = under.frames.astype(np.float64)
    if masks.size != under.size or masks.num_frames != len(frames):
        raise MediaError(
            f"masks of {masks.size}, {masks.num_frames} frames, do not fit {under.size}, {len(frames)} frames"
        )
    for index, mask in enumerate(masks.data):
        colour = np.asarray(OVERLAY_COLOURS[index % len(OVERLAY_COLOURS)], dtype=np.float64)
        frames = np.where(mask[..., None], 0.45 * frames + 0.55 * colour, frames)
    return Artefact(under.kind, frames.round().astype(np.uint8).reshape(under.data.shape))


def encode(artefact: Artefact) -> tuple[bytes, str]:
    """Return the bytes of a file and its suffix: PNG, or GIF for several frames; masks are white on black."""
    data = artefact.data
    if artefact.kind == "masks":
        frames = np.stack([artefact.joint_mask(frame) for frame in range(artefact.num_frames)])
        data = np.repeat(frames[..., None], 3, axis=-1).astype(np.uint8) * 255
        data = data if artefact.num_frames > 1 else data[0]
    pictures = [Image.fromarray(frame) for frame in (data if data.ndim == 4 else data[None])]
    buffer = io.BytesIO()
    if data.ndim == 3:
        pictures[0].save(buffer, format="PNG")
        return buffer.getvalue(), ".png"
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=FRAME_MILLISECONDS,
        loop=0,
        disposal=2,
    )
    return buffer.getvalue(), ".gif"


def write_media(artefact: Artefact, folder: Path, name: str) -> Path:
    """Write an artefact as ``folder/name.png``, or ``.gif``, in one piece.

    Args:
        artefact: What to write.
        folder: Made if it is not there.
        name: Without folder and suffix; letters, digits, ``_`` and ``-``.

    Returns:
        Where it is.

    Raises:
        MediaError: If the name leaves the folder, or the place cannot be written.
    """
    if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
        raise MediaError(f"a name has letters, digits, '_' and '-', got {name!r}")
    content, suffix = encode(artefact)
    return write_bytes(folder / f"{name}{suffix}", content)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name and rename it.

    Raises:
        MediaError: If the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MediaError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
