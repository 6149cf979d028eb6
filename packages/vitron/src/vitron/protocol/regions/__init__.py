# SPDX-License-Identifier: Apache-2.0
"""Regions: from pixels, to masks, from kind to kind, and as the text of a call."""

from vitron.protocol.regions.convert import (
    box_from_pixels,
    box_in_pixels,
    convert_region,
    mask_to_box,
    mask_to_point,
    mask_to_polygon,
    mask_to_region,
    pixels_of_box,
    points_from_pixels,
)
from vitron.protocol.regions.raster import dilate, rasterise
from vitron.protocol.regions.text import format_frames, format_region, parse_region, snap, to_code

__all__ = [
    "box_from_pixels",
    "box_in_pixels",
    "convert_region",
    "dilate",
    "format_frames",
    "format_region",
    "mask_to_box",
    "mask_to_point",
    "mask_to_polygon",
    "mask_to_region",
    "parse_region",
    "pixels_of_box",
    "points_from_pixels",
    "rasterise",
    "snap",
    "to_code",
]
