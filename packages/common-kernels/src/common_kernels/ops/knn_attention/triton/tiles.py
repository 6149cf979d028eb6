# SPDX-License-Identifier: Apache-2.0
"""Tile sizes of the kernels: a default for each shape, and the candidates of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import triton

Kind = Literal["fwd", "bwd_dq", "bwd_dkv", "bwd_dbias"]


@dataclass(frozen=True, slots=True)
class Tile:
    """Tile sizes of one launch.

    Attributes:
        block_m: Queries per tile, a multiple of 32.
        block_n: Keys per tile, a multiple of 32.
        num_warps: Warps per program.
        num_stages: Depth of the software pipeline.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int

    def shared_bytes(self, kind: Kind, block_d: int, itemsize: int) -> int:
        """Estimate the shared memory that operands take: two resident, two per pipeline stage."""
        held, streamed = (self.block_n, self.block_m) if kind == "bwd_dkv" else (self.block_m, self.block_n)
        resident = 1 if kind == "fwd" else 2
        if kind == "bwd_dbias":  # all four operands change with the window
            return 2 * (held + streamed) * block_d * itemsize * max(1, self.num_stages - 1)
        return (resident * held + 2 * streamed * max(1, self.num_stages - 1)) * block_d * itemsize


def block_d(head_dim: int) -> int:
    """Return the padded width of a row: a power of two that a tensor core accepts."""
    return max(16, triton.next_power_of_2(head_dim))


def default_tile(kind: Kind, head_dim: int, rows: int, dtype: torch.dtype, has_bias: bool = False) -> Tile:
    """Pick tile sizes without a search.

    Args:
        kind: Which kernel.
        head_dim: Channels per head.
        rows: Rows that a program owns a tile of: queries, or keys for ``"bwd_dkv"``.
        dtype: Dtype of the operands.
        has_bias: Whether a tile of the bias is held beside the logits.

    Returns:
        A tile that fits in the shared memory of every supported card. Sizes follow from register
        counts of the compiled kernels; no clock has been put to them.
    """
    wide = block_d(head_dim) > 64
    if dtype == torch.float32:
        # exact products run outside the tensor cores and hold their operands in registers
        return Tile(32, 32, 8, 1)
    if kind == "fwd":
        held = 128 if rows > 64 and not has_bias else 64
        return Tile(held, 64, 8 if wide else 4, 2 if wide else 3)
    if kind == "bwd_dbias":
        return Tile(64, 32, 4, 1) if wide else Tile(64, 64, 4, 2)
    return Tile(64, 64, 8 if wide else 4, 2)


def candidate_tiles(kind: Kind, head_dim: int, dtype: torch.dtype, shared_limit: int) -> list[Tile]:
    """List at most a dozen tiles worth trying, the default first, all within ``shared_limit`` bytes."""
    default = default_tile(kind, head_dim, 1024, dtype)
    sizes = ((128, 128, 8), (128, 64, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4), (64, 32, 4), (32, 32, 4))
    tiles = [default, *(Tile(*size, stages) for stages in (3, 2) for size in sizes)]
    tiles = list(dict.fromkeys(tiles))
    width = block_d(head_dim)
    return [t for t in tiles if t.shared_bytes(kind, width, dtype.itemsize) <= shared_limit][:12]
