# SPDX-License-Identifier: Apache-2.0
"""Prompts on small masks worked by hand, and every documented error."""

import numpy as np
import pytest
from shapeworld.prompts import box, points, scribble

DOT = np.zeros((5, 7), dtype=np.bool_)
DOT[3, 2] = True


def rng():
    return np.random.default_rng(0)


def test_one_pixel_takes_every_prompt():
    line = scribble(DOT, rng())
    np.testing.assert_array_equal(line.mask, DOT)
    np.testing.assert_array_equal(line.points[0], [2.5, 3.5])
    found = points(DOT, rng(), positive=1, negative=3)
    np.testing.assert_array_equal(found.xy[0], [2.5, 3.5])
    np.testing.assert_array_equal(found.labels, [1, 0, 0, 0])
    np.testing.assert_array_equal(box(DOT, rng(), jitter=0), [2, 3, 3, 4])


def test_positive_points_are_deep_inside_a_square():
    mask = np.zeros((16, 16), dtype=np.bool_)
    mask[3:14, 3:14] = True
    found = points(mask, rng(), positive=20)
    # depth is 6 in the middle: at least 3 means two pixels from the border
    assert found.xy.min() >= 5.5
    assert found.xy.max() <= 11.5


def test_the_border_of_the_picture_is_a_border():
    full = np.ones((9, 9), dtype=np.bool_)
    xy = points(full, rng(), positive=30).xy
    assert xy.min() >= 2.5
    assert xy.max() <= 6.5


def test_scribble_follows_a_ring_round_its_hole():
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(x - 31.5, y - 31.5)
    ring = (radius > 20) & (radius < 27)
    spans = []
    for i in range(20):
        line = scribble(ring, np.random.default_rng(i), strokes=30)
        angles = np.arctan2(line.points[:, 1] - 32, line.points[:, 0] - 32)
        spans.append(np.ptp(np.unwrap(angles)))
    assert max(spans) > np.pi


def test_wider_lines_cover_more():
    mask = np.ones((64, 64), dtype=np.bool_)
    areas = [scribble(mask, rng(), width=width).mask.sum() for width in (1, 3, 6)]
    assert areas[0] < areas[1] < areas[2]


def test_errors():
    empty, full = np.zeros((4, 4), dtype=np.bool_), np.ones((4, 4), dtype=np.bool_)
    for prompt in (scribble, points, box):
        with pytest.raises(ValueError, match="at least one pixel"):
            prompt(empty, rng())
        with pytest.raises(ValueError, match="two axes"):
            prompt(full[None], rng())
    with pytest.raises(ValueError, match="strokes must be"):
        scribble(full, rng(), strokes=0)
    with pytest.raises(ValueError, match="width must be"):
        scribble(full, rng(), width=0.5)
    with pytest.raises(ValueError, match="must not be negative"):
        points(full, rng(), positive=-1)
    with pytest.raises(ValueError, match="fills the image"):
        points(full, rng(), negative=1)
    with pytest.raises(ValueError, match="jitter must be in"):
        box(full, rng(), jitter=0.5)
