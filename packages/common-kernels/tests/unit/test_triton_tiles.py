# SPDX-License-Identifier: Apache-2.0
"""Tile sizes of the Triton kernels of knn_attention."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from common_kernels.ops.knn_attention.triton.tiles import Tile, block_d, candidate_tiles, default_tile

KINDS = ("fwd", "bwd_dq", "bwd_dkv", "bwd_dbias")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SMALLEST_SHARED = 99 * 1024  # compute capability 8.6, 8.9 and 12.0


@pytest.mark.parametrize(("head_dim", "expected"), [(1, 16), (16, 16), (30, 32), (33, 64), (128, 128)])
def test_rows_are_padded_to_a_power_of_two_of_at_least_16(head_dim, expected):
    assert block_d(head_dim) == expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [16, 32, 64, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_default_fits_the_smallest_card(kind, head_dim, dtype):
    for rows in (1, 64, 65, 4096):
        for has_bias in (False, True):
            tile = default_tile(kind, head_dim, rows, dtype, has_bias)
            assert tile.shared_bytes(kind, head_dim, dtype.itemsize) <= SMALLEST_SHARED
            assert tile.block_m % 32 == 0
            assert tile.block_n % 32 == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_search_has_at_most_a_dozen_fitting_candidates_and_the_default(kind, head_dim, dtype):
    tiles = candidate_tiles(kind, head_dim, dtype, SMALLEST_SHARED)
    assert 2 <= len(tiles) <= 12
    assert len(set(tiles)) == len(tiles)
    assert tiles[0] == default_tile(kind, head_dim, 1024, dtype)
    assert all(t.shared_bytes(kind, head_dim, dtype.itemsize) <= SMALLEST_SHARED for t in tiles)


def test_small_shared_memory_prunes_large_tiles():
    large = Tile(128, 128, 8, 3)
    assert large in candidate_tiles("fwd", 128, torch.float16, 227 * 1024)
    assert large not in candidate_tiles("fwd", 128, torch.float16, SMALLEST_SHARED)


def test_few_rows_take_a_small_tile():
    assert default_tile("fwd", 32, 64, torch.float16).block_m == 64
    assert default_tile("fwd", 32, 65, torch.float16).block_m == 128
