# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from pixelsmith.core.band import blend_band
from pixelsmith.core.chess import chess_masks


def test_chess_masks_are_halves_that_a_coin_swaps():
    boards = chess_masks(8, 6, [(0, 0), (0, 1), (1, 0), (1, 1)])[:, 0]
    assert boards.shape == (4, 8, 6)
    assert boards.float().mean(dim=(1, 2)).tolist() == [0.5] * 4
    assert boards[0, 0, 0]
    assert torch.equal(boards[0], ~boards[1])
    assert torch.equal(boards[1], boards[2])
    assert torch.equal(boards[0], boards[3])


def box_mean_band(fresh, width):
    """The published definition: a box mean with mirrored borders, compared with 0 and 1."""
    padded = np.pad(fresh.astype(np.float64), width, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1, 2 * width + 1))
    return (windows.mean(axis=(2, 3)) > 0) & ~fresh


def brute_force_band(fresh, width):
    near = np.zeros_like(fresh)
    for i, j in zip(*np.nonzero(fresh), strict=True):
        near[max(0, i - width) : i + width + 1, max(0, j - width) : j + width + 1] = True
    return near & ~fresh


@pytest.mark.parametrize("seed", range(6))
def test_band_is_the_published_one(seed):
    generator = np.random.default_rng(seed)
    fresh = generator.random((24, 31)) < 0.004
    fresh[: seed * 3, :7] = True
    assert np.array_equal(blend_band(fresh, 10), box_mean_band(fresh, 10))
    assert np.array_equal(blend_band(fresh, 10), brute_force_band(fresh, 10))


def test_band_of_nothing_and_of_all():
    nothing = np.zeros((5, 5), dtype=bool)
    assert not blend_band(nothing, 2).any()
    assert not blend_band(~nothing, 2).any()
    nothing[2, 2] = True
    assert blend_band(nothing, 1).sum() == 8
    assert blend_band(nothing, 0).sum() == 0
