# SPDX-License-Identifier: Apache-2.0
"""Windows cover, weights add up, constants stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from itaclip.windows import WindowMerger, plan_windows, resized_shape
from torch.nn import functional as F

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [((375, 500), 336, (336, 448)), ((480, 640), 448, (448, 597)), ((1024, 2048), 560, (560, 1120))],
    ids=["voc", "coco", "cityscapes"],
)
def test_published_sizes(size, short, expected):
    assert resized_shape(*size, short=short, long=2048) == expected


@pytest.mark.parametrize(
    ("size", "grid"),
    [((336, 448), (5, 9)), ((448, 597), (9, 15)), ((560, 1120), (13, 33))],
    ids=["voc", "coco", "cityscapes"],
)
def test_published_grids(size, grid):
    plan = plan_windows(*size, crop=224, stride=28)
    assert (len(plan.rows), len(plan.columns)) == grid
    assert all(bottom - top == 224 for top, bottom in plan.rows)


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    short=st.integers(0, 600),
    long=st.integers(1, 2048),
)
@SETTINGS
def test_a_resized_side_stays_within_its_limits(height, width, short, long):
    h, w = resized_shape(height, width, short=short, long=long, least=16)
    assert min(h, w) >= 16
    assert max(h, w) <= max(long, 16)
    if short and min(h, w) > 16:
        assert min(h, w) <= short or max(h, w) <= max(height, width)


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.integers(1, 40),
    data=st.data(),
)
@SETTINGS
def test_windows_start_where_the_formula_says(size, crop, data):
    stride = data.draw(st.integers(1, crop))
    plan = plan_windows(*size, crop=crop, stride=stride)
    for length, spans in zip(size, (plan.rows, plan.columns), strict=True):
        count = max(length - crop + stride - 1, 0) // stride + 1
        ends = [min(n * stride + crop, length) for n in range(count)]
        assert spans == tuple((max(end - crop, 0), end) for end in ends)


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    crop=st.integers(0, 40),
    data=st.data(),
)
@SETTINGS
def test_constant_scores_stay_constant(size, target, crop, data):
    stride = data.draw(st.integers(1, max(crop, 1)))
    plan = plan_windows(*size, crop=crop, stride=stride)
    merger = WindowMerger(plan, (2, 3), target)
    merged = merger.merge(torch.full((2, 2 * len(plan.rows), 3 * len(plan.columns)), 0.7))
    assert merged.shape == (2, *target)
    assert torch.allclose(merged, torch.tensor(0.7), atol=1e-6)


@given(size=st.tuples(st.integers(8, 60), st.integers(8, 60)), crop=st.integers(8, 40), data=st.data())
@SETTINGS
def test_merging_is_upsampling_averaging_and_resizing(size, crop, data):
    stride = data.draw(st.integers(1, crop))
    plan = plan_windows(*size, crop=crop, stride=stride)
    target = (data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70)))
    merger = WindowMerger(plan, (3, 2), target)
    windows = torch.randn(len(plan), 2, 3, 2, generator=torch.Generator().manual_seed(0))
    rows = windows.unflatten(0, (len(plan.rows), -1))
    placed = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
    total, visits = torch.zeros(2, *size), torch.zeros(size)
    for box, window in zip(plan, windows, strict=True):
        side = (box.bottom - box.top, box.right - box.left)
        pixels = F.interpolate(window[None], size=side, mode="bilinear", align_corners=False)[0]
        total[:, box.top : box.bottom, box.left : box.right] += pixels
        visits[box.top : box.bottom, box.left : box.right] += 1
    assert visits.min() >= 1
    expected = F.interpolate((total / visits)[None], size=target, mode="bilinear", align_corners=False)[0]
    assert torch.allclose(merger.merge(placed), expected, atol=1e-5)


def test_one_window_over_the_image_is_the_whole_image():
    windows = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    plan = plan_windows(32, 32, crop=0, stride=1)
    whole = WindowMerger(plan, (4, 4), (32, 32), direct=True).merge(windows)
    for crop in (32, 100):
        merger = WindowMerger(plan_windows(32, 32, crop=crop, stride=crop), (4, 4), (32, 32))
        assert torch.allclose(merger.merge(windows), whole, atol=1e-6)


@given(
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
@SETTINGS
def test_whole_images_are_enlarged_once(size, target):
    plan = plan_windows(*size, crop=0, stride=1)
    maps = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    merged = WindowMerger(plan, (3, 5), target, direct=True).merge(maps)
    expected = F.interpolate(maps[None], size=target, mode="bilinear", align_corners=False)[0]
    assert torch.allclose(merged, expected, atol=1e-5)


def test_several_windows_are_no_whole_image():
    plan = plan_windows(32, 40, crop=32, stride=8)
    with pytest.raises(ValueError, match="direct is for one window, got 2"):
        WindowMerger(plan, (4, 4), (32, 40), direct=True)
