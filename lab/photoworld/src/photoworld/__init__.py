# SPDX-License-Identifier: Apache-2.0
"""Photographic cut-outs over photographs, with exact ground truth."""

from photoworld.fetching import ArchiveUnreachableError, fetch
from photoworld.library import library
from photoworld.scene import COLOURS, PALETTE, Composite, Cutout, Photo, draw_scene

__all__ = [
    "COLOURS",
    "PALETTE",
    "ArchiveUnreachableError",
    "Composite",
    "Cutout",
    "Photo",
    "draw_scene",
    "fetch",
    "library",
]
