# SPDX-License-Identifier: Apache-2.0
"""Overlapping tiles over images of any size: plan, cut, process, blend, stream."""

from common_kernels.tiling.blend import Blend, axis_weights, blend_tiles, stream_tiles
from common_kernels.tiling.plan import Box, TilePlan, largest_tile, plan_tiles
from common_kernels.tiling.process import map_tiles

__all__ = [
    "Blend",
    "Box",
    "TilePlan",
    "axis_weights",
    "blend_tiles",
    "largest_tile",
    "map_tiles",
    "plan_tiles",
    "stream_tiles",
]
