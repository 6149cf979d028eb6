# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels import chess_mask


def test_pattern():
    assert chess_mask(3, 4).tolist() == [
        [True, False, True, False],
        [False, True, False, True],
        [True, False, True, False],
    ]
    assert chess_mask(1, 1).tolist() == [[True]]


@pytest.mark.parametrize("shift", [1, -1, 3, (1, 0), (0, 1), (2, 1), (-3, 0)])
def test_odd_shift_inverts(shift):
    assert torch.equal(chess_mask(5, 6, shift=shift), ~chess_mask(5, 6))


@pytest.mark.parametrize("shift", [0, 2, -4, (1, 1), (1, -1), (0, 2)])
def test_even_shift_changes_nothing(shift):
    assert torch.equal(chess_mask(5, 6, shift=shift), chess_mask(5, 6))


def test_shift_along_an_axis_is_a_cut_of_a_larger_board():
    assert torch.equal(chess_mask(4, 5, shift=(1, 0)), chess_mask(5, 5)[1:])
    assert torch.equal(chess_mask(4, 5, shift=(0, 1)), chess_mask(4, 6)[:, 1:])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float32])
def test_dtype(dtype):
    mask = chess_mask(3, 3, dtype=dtype)
    assert mask.dtype == dtype
    assert mask.device.type == "cpu"
    assert mask.sum() == 5
    assert set(mask.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize(("height", "width"), [(0, 3), (3, 0), (-1, 2)])
def test_empty_board_is_refused(height, width):
    with pytest.raises(ValueError, match="height and width must be at least 1"):
        chess_mask(height, width)
