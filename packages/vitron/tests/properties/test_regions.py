# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from vitron.protocol.contract import BoxRegion, PointsRegion, PolygonRegion, ScribbleRegion
from vitron.protocol.regions import (
    format_region,
    mask_to_box,
    mask_to_polygon,
    mask_to_region,
    parse_region,
    rasterise,
    snap,
    to_code,
)
from vitron.protocol.rle import compress, decode_mask, decompress, encode_mask

SIDE = st.floats(0, 1, allow_subnormal=False)
FRAME = st.none() | st.integers(0, 10_000)
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))
POINTS = st.lists(st.tuples(SIDE, SIDE), min_size=3, max_size=9).map(tuple)


@st.composite
def boxes(draw):
    x0, x1, y0, y1 = (draw(SIDE) for _ in range(4))
    assume(x0 != x1 and y0 != y1)
    return BoxRegion(x0=min(x0, x1), x1=max(x0, x1), y0=min(y0, y1), y1=max(y0, y1), frame=draw(FRAME))


REGIONS = st.one_of(
    boxes(),
    st.builds(PolygonRegion, points=POINTS, frame=FRAME),
    POINTS.flatmap(
        lambda points: st.builds(
            PointsRegion,
            points=st.just(points),
            positive=st.just(()) | st.just((True, *[False] * (len(points) - 1))),
            frame=FRAME,
        )
    ),
    st.builds(ScribbleRegion, strokes=st.lists(POINTS, min_size=1, max_size=3).map(tuple), frame=FRAME),
    st.builds(mask_to_region, MASKS, frame=FRAME),
)


@given(MASKS)
def test_run_lengths_give_the_mask_back(mask):
    runs = encode_mask(mask)
    assert all(run > 0 for run in runs[1:])
    assert decompress(compress(runs)) == runs
    assert np.array_equal(decode_mask(runs, *mask.shape), mask)
    assert np.array_equal(decode_mask(compress(runs), *mask.shape), mask)


@given(st.lists(st.integers(0, 1 << 34), max_size=20))
def test_any_lengths_survive_compression(runs):
    assert decompress(compress(runs)) == runs


@given(SIDE)
def test_a_code_is_off_by_half_a_step_at_most(value):
    assert abs(to_code(value) / 999 - value) <= 0.5 / 999 + 1e-12
    assert to_code(to_code(value) / 999) == to_code(value)


@given(boxes())
def test_a_box_in_text_is_off_by_half_a_step_at_most(box):
    read, _ = parse_region(format_region(box))
    wide, high = box.x1 - box.x0 >= 1 / 999, box.y1 - box.y0 >= 1 / 999
    for before, after, exact in zip(box.corners, read.corners, (wide, high, wide, high), strict=True):
        # a box thinner than a step is widened to one
        assert abs(before - after) <= (0.5 if exact else 1.5) / 999 + 1e-12


@given(REGIONS)
def test_text_of_a_region_on_the_grid_gives_it_back(region):
    on_grid = snap(region)
    assert on_grid.kind == region.kind
    assert parse_region(format_region(on_grid)) == (on_grid, None)
    assert format_region(on_grid) == format_region(region)


@given(MASKS)
def test_the_box_of_a_mask_is_tight(mask):
    assume(mask.any())
    drawn = rasterise(mask_to_box(mask), *mask.shape)
    assert drawn[mask].all()
    assert np.array_equal(drawn.any(axis=0), _between(mask.any(axis=0)))
    assert np.array_equal(drawn.any(axis=1), _between(mask.any(axis=1)))


def _between(line):
    places = np.flatnonzero(line)
    return (np.arange(len(line)) >= places[0]) & (np.arange(len(line)) <= places[-1])


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 3))
def test_the_outline_of_one_part_without_holes_is_the_mask(heights, margin):
    # columns of any height on a common ground hang together and enclose nothing
    mask = np.arange(12)[:, None] >= 12 - np.asarray(heights)[None]
    mask = np.pad(mask, margin)
    assert np.array_equal(rasterise(mask_to_polygon(mask), *mask.shape), mask)


@given(REGIONS, st.integers(1, 30), st.integers(1, 30))
def test_every_region_can_be_drawn_at_every_size(region, height, width):
    mask = rasterise(region, height, width)
    assert mask.shape == (height, width)
    assert mask.dtype == bool
    if region.kind != "mask":
        assert mask.any()
