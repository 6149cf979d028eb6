# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from semanir.degradations import resize_bicubic
from semanir.functional import (
    enlarge_bicubic,
    pad_to_multiple,
    relative_coordinates,
    window_partition,
    window_regions,
    window_reverse,
)


@given(batch=st.integers(0, 3), rows=st.integers(1, 3), columns=st.integers(1, 3), window=st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_partition_then_reverse_is_identity(batch, rows, columns, window):
    x = torch.arange(batch * 2 * rows * columns * window**2, dtype=torch.float32)
    x = x.reshape(batch, 2, rows * window, columns * window)
    windows = window_partition(x, window)
    assert windows.shape == (batch * rows * columns, window**2, 2)
    if batch:
        assert torch.equal(window_reverse(windows, window, *x.shape[-2:]), x)


def test_windows_come_in_raster_order():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert window_partition(x, 2)[:, :, 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_regions_separate_exactly_what_the_roll_brought_together():
    H, W, M, shift = 12, 8, 4, 2
    position = torch.stack(torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij"))[None].float()
    rolled = window_partition(torch.roll(position, (-shift, -shift), (-2, -1)), M)  # (windows, N, 2)
    near = (rolled[:, :, None] - rolled[:, None]).abs().amax(dim=-1) < M
    labels = window_regions(H, W, M, shift)
    assert torch.equal(labels[:, :, None] == labels[:, None], near)


def test_relative_coordinates_are_those_of_an_offset_and_its_opposite():
    coordinates = relative_coordinates(3).view(5, 5, 2)  # offsets from -2 to 2
    assert coordinates[0, 0].sign().tolist() == [-1, -1]
    assert coordinates[2, 2].tolist() == [0, 0]
    torch.testing.assert_close(coordinates.flip(0, 1), -coordinates)
    assert coordinates.abs().max() == pytest.approx(torch.log2(torch.tensor(9.0)).item() / 3)


@pytest.mark.parametrize(("size", "multiple"), [(1, 8), (3, 8), (7, 8), (8, 8), (9, 8), (5, 1)])
def test_padding_mirrors_then_repeats(size, multiple):
    x = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size)
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[-1] == padded.shape[-2] == -(-size // multiple) * multiple
    assert torch.equal(padded[..., :size, :size], x)
    if size < padded.shape[-1] and size > 1:
        assert torch.equal(padded[..., :size, size], x[..., size - 2])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarging_is_the_bicubic_of_the_field_away_from_the_border(scale):
    x = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    y, expected = enlarge_bicubic(x, scale), resize_bicubic(x, scale)
    assert y.shape == expected.shape
    inner = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    torch.testing.assert_close(y[inner], expected[inner], rtol=0, atol=1e-6)
    assert torch.allclose(enlarge_bicubic(torch.full_like(x, 0.3), scale), torch.tensor(0.3))
