# SPDX-License-Identifier: Apache-2.0
"""What can be read and written, and how much of it; imports nothing, so that help texts come fast."""

__all__ = ["MAX_FRAMES", "MAX_PIXELS", "READABLE", "WRITABLE"]

READABLE = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".psd"}
)
"""Suffixes of files that are taken from folders; of a named file the contents count."""

WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""Suffixes that decide the format of a written file."""

MAX_PIXELS = 250_000_000
"""Limit of width times height; a file that claims more is refused before it is decoded."""

MAX_FRAMES = 512
"""Limit of the frames of one file."""
