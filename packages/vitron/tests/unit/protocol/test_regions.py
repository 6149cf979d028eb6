# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from vitron.errors import RegionError
from vitron.protocol.contract import (
    BoxRegion,
    MaskRegion,
    PointsRegion,
    PolygonRegion,
    ReferenceRegion,
    ScribbleRegion,
)
from vitron.protocol.regions import (
    box_from_pixels,
    convert_region,
    dilate,
    format_frames,
    format_region,
    mask_to_box,
    mask_to_point,
    mask_to_polygon,
    mask_to_region,
    parse_region,
    pixels_of_box,
    points_from_pixels,
    rasterise,
    to_code,
)

L_SHAPE = np.zeros((8, 10), dtype=bool)
L_SHAPE[1:7, 2:4] = True
L_SHAPE[5:7, 4:9] = True


def test_a_box_covers_the_pixels_whose_centres_it_holds():
    box = box_from_pixels(2, 1, 5, 3, width=8, height=6)
    mask = rasterise(box, 6, 8)
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:3, 2:5] = True
    assert np.array_equal(mask, expected)
    assert mask_to_box(mask).corners == box.corners
    assert pixels_of_box(box, width=8, height=6) == (2, 1, 5, 3)
    # the left edge passes a centre, the right one stops short of the next
    assert rasterise(box_from_pixels(2.6, 1, 5.4, 3, width=8, height=6), 6, 8).sum() == 4


def test_a_shape_between_the_centres_still_gets_a_pixel():
    tiny = BoxRegion(x0=0.5, y0=0.5, x1=0.501, y1=0.501)
    assert np.argwhere(rasterise(tiny, 4, 4)).tolist() == [[2, 2]]
    triangle = PolygonRegion(points=((0.99, 0.99), (1, 0.99), (1, 1)))
    assert np.argwhere(rasterise(triangle, 4, 4)).tolist() == [[3, 3]]


def test_a_polygon_is_filled_by_the_even_odd_rule():
    square = PolygonRegion(points=((0, 0), (1, 0), (1, 1), (0, 1)))
    assert rasterise(square, 5, 7).all()
    # the same line twice around an inner square leaves a hole
    ring = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    mask = rasterise(PolygonRegion(points=(*ring, (0.25, 0.25))), 8, 8)
    assert mask.sum() == 64 - 16
    assert not mask[2:6, 2:6].any()
    assert rasterise(PolygonRegion(points=((0, 0), (1, 0), (0, 1))), 100, 100).sum() == 4950


def test_strokes_are_widened_by_one_patch():
    stroke = ScribbleRegion(strokes=(((0, 0.5), (0.999, 0.5)),))
    mask = rasterise(stroke, 16, 16, patch=2)
    assert np.array_equal(np.flatnonzero(mask.any(axis=1)), [6, 7, 8, 9, 10])
    assert mask[6:11].all()
    assert rasterise(stroke, 48, 48).any(axis=1).sum() == 5  # a patch is a 24th of the side
    slanted = ScribbleRegion(strokes=(((0, 0), (1, 1)),))
    assert np.array_equal(rasterise(slanted, 9, 9, patch=0), np.eye(9, dtype=bool))


def test_points_that_are_not_meant_take_away_but_never_the_click_itself():
    both = PointsRegion(points=((0.5, 0.5), (0.7, 0.5)), positive=(True, False))
    mask = rasterise(both, 10, 10, patch=1)
    assert mask[5, 5]
    assert not mask[:, 6:].any()
    same = PointsRegion(points=((0.5, 0.5), (0.5, 0.5)), positive=(True, False))
    assert np.argwhere(rasterise(same, 10, 10, patch=1)).tolist() == [[5, 5]]


def test_dilation_reaches_corners_and_stops_at_edges():
    dot = np.zeros((5, 7), dtype=bool)
    dot[0, 6] = dot[3, 2] = True
    expected = np.zeros((5, 7), dtype=bool)
    expected[0:2, 5:7] = expected[2:5, 1:4] = True
    assert np.array_equal(dilate(dot, 1), expected)
    assert np.array_equal(dilate(dot, 0), dot)


def test_a_mask_of_another_size_is_read_at_the_nearest_pixel():
    region = mask_to_region(np.array([[True, False], [False, True]]))
    assert rasterise(region, 4, 4).astype(int).tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    assert rasterise(region, 1, 1).tolist() == [[True]]
    assert rasterise(region, 2, 2).tolist() == [[True, False], [False, True]]


def test_a_reference_is_looked_up():
    region = ReferenceRegion(name="mask_2")
    assert np.array_equal(rasterise(region, 8, 10, masks={"mask_2": L_SHAPE}), L_SHAPE)
    with pytest.raises(RegionError, match="there is no mask_2 in this conversation"):
        rasterise(region, 8, 10, masks={"mask_1": L_SHAPE})


def test_kinds_become_each_other():
    region = mask_to_region(L_SHAPE, frame=4)
    assert isinstance(region.counts, str)
    assert convert_region(region, "box", height=8, width=10).corners == (0.2, 0.125, 0.9, 0.875)
    polygon = convert_region(region, "polygon", height=8, width=10)
    assert len(polygon.points) == 6
    assert np.array_equal(rasterise(polygon, 8, 10), L_SHAPE)
    click = convert_region(polygon, "points", height=8, width=10)
    assert L_SHAPE[int(click.points[0][1] * 8), int(click.points[0][0] * 10)]
    assert click.frame == polygon.frame == 4
    back = convert_region(polygon, "mask", height=8, width=10)
    assert back == region
    assert convert_region(back, "mask", height=1, width=1) is back


def test_the_longest_outline_is_kept():
    mask = np.zeros((9, 9), dtype=bool)
    mask[0:2, 0:2] = mask[2:7, 2:7] = True  # they touch at a corner
    mask[4, 4] = False
    polygon = mask_to_polygon(mask)
    filled = np.zeros((9, 9), dtype=bool)
    filled[2:7, 2:7] = True
    assert np.array_equal(rasterise(polygon, 9, 9), filled)


@pytest.mark.parametrize("make", [mask_to_box, mask_to_polygon, mask_to_point])
def test_an_empty_mask_is_nowhere(make):
    with pytest.raises(RegionError, match="empty mask has no position"):
        make(np.zeros((3, 3), dtype=bool))
    assert not rasterise(mask_to_region(np.zeros((3, 3), dtype=bool)), 3, 3).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_from_pixels(0, 0, 65, 10, width=64, height=64), r"inside the image of 64 x 64"),
        (lambda: box_from_pixels(-1, 0, 5, 10, width=64, height=64), r"got \(-1, 0\)"),
        (lambda: box_from_pixels(9, 0, 5, 10, width=64, height=64), "right edge beyond the left"),
        (lambda: box_from_pixels(0, 0, float("nan"), 1, width=64, height=64), "inside the image"),
        (lambda: box_from_pixels(0, 0, 1, 1, width=0, height=64), "image with pixels"),
        (lambda: points_from_pixels([(3, 70)], width=64, height=64), "a point must lie inside"),
        (lambda: rasterise(ScribbleRegion(strokes=(((0, 0),),)), 0, 4), "image with pixels, got 0 x 4"),
        (lambda: mask_to_region(np.zeros((2, 2, 2), dtype=bool)), r"must be \(H, W\)"),
        (lambda: convert_region(BoxRegion(x0=0, y0=0, x1=1, y1=1), "scribble", height=4, width=4), "becomes"),
    ],
)
def test_places_outside_are_refused_in_one_sentence(call, message):
    with pytest.raises(RegionError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_ragged_outline_stays_a_mask():
    comb = np.zeros((4, 4096), dtype=bool)
    comb[0] = comb[:, ::2] = True  # teeth that hang together at the top
    with pytest.raises(RegionError, match="keep it as a mask"):
        mask_to_polygon(comb)


@pytest.mark.parametrize(
    ("text", "size", "corners"),
    [
        ("[0, 0, 999, 999]", None, (0, 0, 1, 1)),
        ("(0.1, 0.2, 0.5, 0.6)", None, (0.1, 0.2, 0.5, 0.6)),
        ("[0.25, 0, 1, 1]", None, (0.25, 0, 1, 1)),
        ("[ 16,0,1200 , 600 ]", (1600, 1200), (0.01, 0, 0.75, 0.5)),
        ("[8.5, 0, 17, 34.0]", (34, 68), (0.25, 0, 0.5, 0.5)),
    ],
)
def test_boxes_are_read_as_steps_fractions_or_pixels(text, size, corners):
    region, frames = parse_region(text, size=size)
    assert region.corners == pytest.approx(corners, abs=1e-12)
    assert frames is None


def test_every_kind_has_its_text():
    read = {text: parse_region(text) for text in TEXTS}
    assert {text: format_region(region) for text, (region, _) in read.items()} == {t: t for t in TEXTS}
    assert [region.kind for region, _ in read.values()] == [
        "box",
        "points",
        "polygon",
        "scribble",
        "mask",
        "ref",
    ]
    assert read["points [500, 500] -[10, 20]"][0].positive == (True, False)
    assert read["mask_2 @ 3"][0].frame == 3


TEXTS = [
    "[120, 45, 600, 810]",
    "points [500, 500] -[10, 20]",
    "polygon [0, 0] [999, 0] [500, 9]",
    "scribble [1, 2] [9, 9]; [5, 5]",
    "mask 9 x 11 e0352N2O0001N2N`0",
    "mask_2 @ 3",
]


def test_frames_stand_behind_a_region_or_alone():
    assert parse_region("| 3, 7") == (None, (3, 7))
    region, frames = parse_region("[0, 0, 9, 9] @ 2 | 3, 7")
    assert (region.frame, frames) == (2, (3, 7))
    assert format_frames((3, 7)) == "| 3, 7"


def test_a_thin_box_becomes_one_step_wide():
    assert format_region(BoxRegion(x0=0.9999, y0=0, x1=1, y1=0.0001)) == "[998, 0, 999, 1]"


def test_plain_run_lengths_are_written_compressed():
    assert format_region(MaskRegion(size=(2, 2), counts=(1, 3))) == "mask 2 x 2 13"


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("", None, "needs a place, got ''"),
        ("the dog", None, "a region is a box as"),
        ("[1, 2, 3]", None, "a region is a box as"),
        ("[5, 0, 5, 9]", None, "right edge beyond the left"),
        ("[0.9, 0.8, 0.2, 0.1]", None, "right edge beyond the left"),
        ("[0, 0, 1000, 9]", None, "unless the size of the image is known"),
        ("[0, 0, 1000, 9]", (800, 600), "inside the image of 800 x 600, got '"),
        ("[-1, 0, 5, 9]", None, "must lie inside the image, got"),
        ("[0, 0, 9, 9] | 7, 3", None, "must not come before"),
        ("points", None, "points"),
        ("points [1, 2] and [3, 4]", None, "points are pairs"),
        ("polygon [0, 0] [9, 9]", None, "at least 3"),
        ("polygon [0, 0] [9, 0] -[9, 9]", None, "only points a minus"),
        ("points [0, 0]; [9, 9]", None, "only a scribble has several strokes"),
        ("points -[0, 0]", None, "must be positive"),
        ("mask 2 x 2 9", None, "add up to"),
        ("mask_0", None, "a region is a box as"),
        ("x" * 500, None, r"x\.\.\.'$"),
    ],
)
def test_text_that_is_no_region_is_refused_in_one_sentence(text, size, message):
    with pytest.raises(RegionError, match=message) as caught:
        parse_region(text, size=size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_codes_are_the_nearest_steps():
    assert [to_code(value) for value in (0, 0.5, 1, 0.0004, 0.0006)] == [0, 500, 999, 0, 1]
