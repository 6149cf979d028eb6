# SPDX-License-Identifier: Apache-2.0
"""Tile sizes and the launch of a kernel, with or without a search over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import triton
from torch import Tensor

Kind = Literal["fwd", "bwd_dq", "bwd_dkv", "bwd_dbias"]

LOG2_E = 1.4426950408889634

# 3.0 to 3.9 fuse multiply and add by default, later ones do not: say it, so that results do not depend on it
_FP_FUSION = {"enable_fp_fusion": True}

_SMALLEST_SHARED = 99 * 1024  # consumer cards of compute capability 8.6 to 12.0


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


def default_tile(kind: Kind, head_dim: int, rows: int, dtype: torch.dtype) -> Tile:
    """Pick tile sizes without a search.

    Args:
        kind: Which kernel.
        head_dim: Channels per head.
        rows: Rows that a program owns a tile of: queries, or keys for ``"bwd_dkv"``.
        dtype: Of the operands.

    Returns:
        A tile that fits in the shared memory of every supported card.
    """
    wide = block_d(head_dim) > 64
    if dtype == torch.float32:
        # exact products run outside the tensor cores and hold their operands in registers
        return Tile(32, 32, 4, 1) if wide or kind != "fwd" else Tile(64, 32, 4, 1)
    if kind == "fwd":
        held = 128 if rows > 64 else 64
        return Tile(held, 64, 8 if wide and held == 128 else 4, 2 if wide else 3)
    if kind == "bwd_dbias":
        return Tile(64, 64, 4, 1 if wide else 2)
    return Tile(64, 64, 8 if wide else 4, 2)


def candidate_tiles(kind: Kind, head_dim: int, dtype: torch.dtype, shared_limit: int) -> list[Tile]:
    """List at most a dozen tiles worth trying, the default first, all within ``shared_limit`` bytes."""
    default = default_tile(kind, head_dim, 1024, dtype)
    sizes = ((128, 128, 8), (128, 64, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4), (64, 32, 4), (32, 32, 4))
    tiles = [default, *(Tile(*size, stages) for stages in (3, 2) for size in sizes)]
    tiles = list(dict.fromkeys(tiles))
    width = block_d(head_dim)
    return [t for t in tiles if t.shared_bytes(kind, width, dtype.itemsize) <= shared_limit][:12]


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``x`` current: a kernel starts on the current one, whatever its arguments."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def launch(
    kind: Kind, kernel: Any, grid: Callable[[dict[str, int]], tuple[int]], q: Tensor, *args: Any, **meta: Any
) -> None:
    """Run a kernel whose first argument is ``q`` and whose tile sizes are still open.

    With ``COMMON_KERNELS_AUTOTUNE=1`` in the environment the candidates are timed once for each new
    shape class and the fastest is kept on disk; otherwise :func:`default_tile` decides.
    """
    head_dim: int = meta["HEAD_DIM"]
    if os.environ.get("COMMON_KERNELS_AUTOTUNE") == "1" and q.is_cuda:
        limit = torch.cuda.get_device_properties(q.device).shared_memory_per_block_optin
        tuned = _autotuned(kind, kernel, head_dim, q.dtype, limit)
        tuned[grid](q, *args, **meta, **_FP_FUSION)
        return
    rows = args[0].shape[2] if kind == "bwd_dkv" else q.shape[2]
    tile = default_tile(kind, head_dim, rows, q.dtype)
    kernel[grid](
        q, *args, **meta, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        num_warps=tile.num_warps, num_stages=tile.num_stages, **_FP_FUSION,
    )  # fmt: skip


@cache
def _autotuned(kind: Kind, kernel: Any, head_dim: int, dtype: torch.dtype, shared_limit: int) -> Any:
    configs = [
        triton.Config(
            {"BLOCK_M": t.block_m, "BLOCK_N": t.block_n}, num_warps=t.num_warps, num_stages=t.num_stages
        )
        for t in candidate_tiles(kind, head_dim, dtype, shared_limit)
    ]
    # the window count only matters through the grid; timing it anew for every batch size would never end
    return triton.autotune(configs, key=["heads", "N", "M"], cache_results=True)(kernel)
