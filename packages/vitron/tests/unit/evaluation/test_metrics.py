# SPDX-License-Identifier: Apache-2.0
"""The hand cases of the specification, and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vitron.evaluation import (
    accuracy_at,
    boundary_f,
    box_iou,
    ciou,
    giou,
    j_and_f,
    mask_iou,
    overlap,
    tube_iou,
    video_miou,
)

MASKS = arrays(np.bool_, (12, 9))
BOXES = st.tuples(*[st.floats(0, 1)] * 4)


def disc(size, row, column, radius):
    rows, columns = np.mgrid[:size, :size]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def test_ciou_is_not_the_mean():
    pairs = [(1, 2), (90, 100)]
    assert ciou(pairs) == pytest.approx(91 / 102, abs=1e-6)
    assert giou(pairs) == pytest.approx(0.7, abs=1e-6)


def test_empty_and_empty_agree():
    nothing = np.zeros((1, 6, 6), dtype=bool)
    assert mask_iou(nothing, nothing) == 1
    assert j_and_f(nothing, nothing) == (1, 1)
    assert giou([(0, 0), (0, 5)]) == 0.5
    assert ciou([(0, 0)]) == 1
    some = disc(6, 3, 3, 2)[None]
    assert j_and_f(nothing, some) == (0, 0)
    assert j_and_f(nothing, some).j_and_f == 0


def test_j_and_f_on_discs():
    large, small = disc(101, 50, 50, 30), disc(101, 50, 50, 20)
    inner, outer = small.sum(), large.sum()
    assert mask_iou(small, large) == pytest.approx(inner / outer, abs=1e-6)
    # ten pixels apart where two are allowed: no boundary meets
    assert boundary_f(small, large) == 0
    assert boundary_f(large, large) == 1
    # moved by the two pixels that are allowed (0.8 % of 142.8, rounded up): all of it meets
    assert boundary_f(disc(101, 50, 52, 30), large) > 0.95
    assert boundary_f(disc(101, 50, 56, 30), large) < 0.6
    assert j_and_f(np.stack([large, small]), np.stack([large, large])).j == pytest.approx(
        (1 + inner / outer) / 2
    )


def test_a_boundary_is_as_wide_as_the_tolerance_says():
    line, near, far = (np.zeros((250, 250), dtype=bool) for _ in range(3))
    line[:, 100:], near[:, 103:], far[:, 104:] = True, True, True
    # 0.008 * 353.6 = 2.83, so three pixels
    assert boundary_f(near, line) == 1
    assert boundary_f(far, line) == 0


def test_boxes_and_accuracy():
    assert box_iou((0, 0, 2, 1), (1, 0, 3, 1)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    assert accuracy_at([0.5, 0.51, 0.2]) == pytest.approx(1 / 3)
    assert accuracy_at([]) == 0


def test_tubes():
    box = (0.0, 0.0, 1.0, 1.0)
    half = (0.0, 0.0, 0.5, 1.0)
    v_iou, t_iou = tube_iou({1: box, 2: half}, {2: box, 3: box})
    assert v_iou == pytest.approx(0.5 / 3)
    assert t_iou == pytest.approx(1 / 3)
    assert tube_iou({}, {}) == (1, 1)
    assert tube_iou({}, {1: box}) == (0, 0)


def test_video_miou_weighs_videos_alike():
    assert video_miou([[1.0], [0.0, 0.5]]) == pytest.approx(0.625)
    assert video_miou([[], [0.5]]) == 0.5
    assert video_miou([]) == 0


@given(MASKS, MASKS)
def test_masks_are_scored_alike_both_ways(a, b):
    assert mask_iou(a, b) == mask_iou(b, a)
    assert boundary_f(a, b) == pytest.approx(boundary_f(b, a))
    assert 0 <= boundary_f(a, b) <= 1
    assert (mask_iou(a, b) == 1) == bool((a == b).all())
    assert boundary_f(a, a) == mask_iou(a, a) == 1


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=4))
def test_both_means_lie_between_the_extremes(pairs):
    overlaps = [overlap(*pair) for pair in pairs]
    each = [mask_iou(*pair) for pair in pairs]
    for score in (ciou(overlaps), giou(overlaps)):
        assert min(each) - 1e-9 <= score <= max(each) + 1e-9


@given(BOXES, BOXES, st.floats(0.5, 4), st.floats(-1, 1))
def test_box_iou_does_not_depend_on_unit_and_origin(a, b, scale, shift):
    moved = [tuple(scale * side + shift for side in box) for box in (a, b)]
    before = box_iou(a, b)
    assert 0 <= before <= 1
    sides = [abs(box[at + 2] - box[at]) for box in (a, b) for at in (0, 1)]
    if min(sides) > 1e-3:
        assert box_iou(*moved) == pytest.approx(before, abs=1e-6)


def test_shapes_must_fit():
    one, other = np.zeros((2, 2), dtype=bool), np.zeros((3, 2), dtype=bool)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 2\) and \(3, 2\)"):
        mask_iou(one, other)
    with pytest.raises(ValueError, match=r"must be \(H, W\)"):
        boundary_f(one, other)
    with pytest.raises(ValueError, match=r"must be \(T, H, W\)"):
        j_and_f(one, one)
