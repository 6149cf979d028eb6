# SPDX-License-Identifier: Apache-2.0
"""What can be read and written, and how much of it; imports nothing, so that help texts come fast."""

__all__ = ["MAX_FRAMES", "MAX_PIXELS", "OTHERS", "RAW", "READABLE", "VIDEOS", "WRITABLE"]

RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"})
"""Suffixes of camera raw files, which hold a thumbnail under the name of an image: their suffix counts."""

READABLE = (
    frozenset(
        {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp"}
        | {".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".psd", ".heic", ".heif", ".hif"}
    )
    | RAW
)
"""Suffixes of files that are taken from folders; of a named file the contents count, except for raw files."""

VIDEOS = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".wmv", ".flv", ".ogv"}
)
"""Suffixes of videos; of a video to read the contents count."""

OTHERS = VIDEOS | {".jxl", ".exr", ".hdr", ".svg", ".eps", ".pdf", ".npy", ".jpf", ".jpx", ".raw"}
"""Suffixes of videos and of images that are not read: a folder is told that they are left out."""

WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""Suffixes that decide the format of a written file."""

MAX_PIXELS = 250_000_000
"""Limit of width times height; a file that claims more is refused before it is decoded."""

MAX_FRAMES = 512
"""Limit of the frames of one file."""
