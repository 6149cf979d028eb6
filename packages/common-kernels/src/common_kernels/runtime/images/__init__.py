# SPDX-License-Identifier: Apache-2.0
"""Image files in and out: any kind is read, nothing of an image is lost on the way back."""

from common_kernels.runtime.images.encoding import WRITABLE, encode_image, write_image
from common_kernels.runtime.images.file import ImageError, ImageFile
from common_kernels.runtime.images.reading import (
    MAX_PIXELS,
    READABLE,
    ImageSource,
    as_rgb,
    read_frames,
    read_image,
    read_rgb,
    read_size,
)

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "ImageError",
    "ImageFile",
    "ImageSource",
    "as_rgb",
    "encode_image",
    "read_frames",
    "read_image",
    "read_rgb",
    "read_size",
    "write_image",
]
