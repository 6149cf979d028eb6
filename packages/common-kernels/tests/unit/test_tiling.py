# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from common_kernels.tiling import (
    axis_weights,
    blend_tiles,
    largest_tile,
    map_tiles,
    plan_tiles,
    stream_tiles,
)


def test_last_tile_ends_at_the_edge():
    plan = plan_tiles(10, 23, tile=8, overlap=2)
    assert plan.rows == ((0, 8), (2, 10))
    assert plan.columns == ((0, 8), (6, 14), (12, 20), (15, 23))
    assert len(plan) == len(list(plan)) == 8


def test_tiles_start_at_multiples():
    plan = plan_tiles(50, 50, tile=32, overlap=8, multiple=16)
    assert plan.rows == ((0, 32), (16, 48), (32, 50))


def test_a_tile_as_large_as_the_image_is_the_image():
    assert plan_tiles(5, 9, tile=64, overlap=16).rows == ((0, 5),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0, "tile": 4}, "height and tile must be at least 1"),
        ({"tile": 0}, "must be at least 1"),
        ({"tile": 4, "overlap": 4}, r"overlap must lie in \[0, tile\)"),
        ({"tile": 4, "overlap": -1}, r"overlap must lie in \[0, tile\)"),
        ({"tile": 8, "overlap": 4, "multiple": 8}, "must be at least multiple"),
        ({"tile": 8, "multiple": 0}, "multiple must be at least 1"),
    ],
)
def test_impossible_plans(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_tiles(**{"height": 20, "width": 20, **arguments})


def test_image_of_another_size_is_refused():
    plan = plan_tiles(8, 8, tile=4)
    with pytest.raises(ValueError, match=r"image must be \(..., 8, 8\)"):
        plan.cut(torch.zeros(3, 8, 9), next(iter(plan)))


def test_wrong_tiles_are_refused():
    plan = plan_tiles(8, 4, tile=4)
    tile = torch.zeros(1, 4, 4)
    with pytest.raises(ValueError, match="has 2 tiles, got 1"):
        blend_tiles(plan, [tile])
    with pytest.raises(ValueError, match="has 2 tiles, got more"):
        blend_tiles(plan, [tile] * 3)
    with pytest.raises(ValueError, match="tile 1 must be"):
        blend_tiles(plan, [tile, torch.zeros(1, 4, 3)])


def test_unknown_blend_and_gaps_are_refused():
    with pytest.raises(ValueError, match="blend must be"):
        axis_weights([(0, 4)], 4, "linear")
    with pytest.raises(ValueError, match="leave a gap"):
        axis_weights([(0, 2), (3, 4)], 4)


def test_uniform_blend_is_the_mean_over_visits():
    plan = plan_tiles(1, 6, tile=(1, 4), overlap=(0, 2))
    tiles = [torch.full((1, 4), 1.0), torch.full((1, 4), 3.0)]
    assert blend_tiles(plan, tiles, blend="uniform").tolist() == [[1, 1, 2, 2, 3, 3]]


def test_raised_cosine_favours_the_nearer_tile():
    first, second = axis_weights([(0, 8), (4, 12)], 12)
    overlap = first[4:]
    assert (overlap.diff() < 0).all()
    torch.testing.assert_close(overlap, second[:4].flip(0))


def test_streaming_holds_one_row_of_tiles():
    plan = plan_tiles(40, 16, tile=16, overlap=4)
    tiles = iter([plan.cut(torch.rand(40, 16), box) for box in plan])
    bands = list(stream_tiles(plan, tiles))
    assert [top for top, _ in bands] == [0, 12, 24]
    assert max(band.shape[0] for _, band in bands) <= 16


def test_progress_counts_every_tile():
    plan = plan_tiles(20, 20, tile=8, overlap=2)
    seen: list[int] = []
    map_tiles(lambda x: x, torch.rand(1, 20, 20), plan, batch_size=4, progress=seen.append)
    assert sum(seen) == len(plan)
    assert max(seen) <= 4


def test_function_of_the_wrong_scale_is_refused():
    plan = plan_tiles(8, 8, tile=4)
    with pytest.raises(ValueError, match="tile 0 must be"):
        map_tiles(lambda x: x, torch.rand(1, 8, 8), plan, scale=2)
    with pytest.raises(ValueError, match="batch_size must be"):
        map_tiles(lambda x: x, torch.rand(1, 8, 8), plan, batch_size=0)


def test_largest_tile():
    assert largest_tile(100 * 64 * 64, 100, multiple=16) == 64
    assert largest_tile(100 * 63 * 63, 100, multiple=16) == 48
    assert largest_tile(0, 100, multiple=16, minimum=20) == 32
    assert largest_tile(10**12, 1, multiple=16, maximum=1000) == 992
    with pytest.raises(ValueError, match="must be positive"):
        largest_tile(1, 0)
