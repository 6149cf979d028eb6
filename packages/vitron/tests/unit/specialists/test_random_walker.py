# SPDX-License-Identifier: Apache-2.0
"""Segmentation of the object in a region without weights, and who is asked when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PointsRegion, PolygonRegion, ScribbleRegion
from vitron.protocol.media import Artefact
from vitron.protocol.regions import rasterise
from vitron.protocol.regions.convert import mask_to_region
from vitron.specialists import Action, Request
from vitron.specialists.mask_head import MaskHeadSpecialist, fits_region
from vitron.specialists.random_walker import RandomWalkerSegmenter, read_strokes, segment_region

HEIGHT, WIDTH = 120, 160
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
DISC = (ROWS - 60) ** 2 + (COLUMNS - 60) ** 2 <= 30**2
REGIONS = {
    "box": BoxRegion(x0=0.15, y0=0.2, x1=0.6, y1=0.8),
    "points": PointsRegion(points=((0.375, 0.5),)),
    "scribble": ScribbleRegion(strokes=(((0.3, 0.45), (0.375, 0.5), (0.45, 0.55)),)),
    "polygon": PolygonRegion(
        points=(
            (0.2, 0.5),
            (0.26, 0.32),
            (0.38, 0.25),
            (0.5, 0.33),
            (0.57, 0.5),
            (0.51, 0.69),
            (0.4, 0.76),
            (0.26, 0.67),
        )
    ),
}


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.fixture(scope="module")
def photo():
    """A red disc, and a red square beside it, on a background of soft colours, with noise."""
    rng = np.random.default_rng(0)
    image = np.stack([60 + 80 * ROWS / HEIGHT, 120 + 60 * COLUMNS / WIDTH, 90 + 0 * ROWS], axis=-1)
    image[DISC] = image[50:80, 125:150] = (200, 60, 50)
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def ask(image, region, text="the disc"):
    mask = None if region is None else rasterise(region, *image.shape[:2])
    return Request(
        module="image_segmentation",
        actions=(Action("segment", text),),
        media=Artefact("image", image),
        region=region,
        mask=mask,
    )


@pytest.mark.parametrize("name", REGIONS)
def test_every_kind_of_region_finds_the_disc_and_not_its_like(photo, name):
    found = RandomWalkerSegmenter().run(ask(photo, REGIONS[name])).artefact
    assert found.kind == "masks"
    assert found.labels == ("the disc",)
    assert iou(found.data[0, 0], DISC) > 0.85


def test_a_mask_is_an_outline(photo):
    moved = np.roll(DISC, 3, axis=1)
    assert iou(segment_region(photo, mask_to_region(moved)), DISC) > max(0.9, iou(moved, DISC))


PAINTED = {  # on the disc of radius 30 at (60, 60), by a brush of radius 4
    "point": (ROWS - 58) ** 2 + (COLUMNS - 62) ** 2 <= 4**2,
    "stroke": (np.abs(ROWS - COLUMNS) <= 5) & (np.abs(ROWS - 60) <= 14),
    "outline": np.abs(np.hypot(ROWS - 60, COLUMNS - 60) - 33) <= 4,
    "area": DISC,
}


@pytest.mark.parametrize("kind", PAINTED)
def test_what_is_painted_is_read_and_finds_the_disc(photo, kind):
    mask = PAINTED[kind]
    found, meant = read_strokes(mask)
    assert found == kind
    assert meant[60, 60]
    assert (meant == mask).all() == (kind != "outline")
    painted = mask_to_region(mask).model_copy(update={"brush": True})
    assert iou(segment_region(photo, painted), DISC) > max(0.85, iou(mask, DISC) - 0.1)


def test_clicks_beside_the_object_keep_them_out(photo):
    both = PointsRegion(points=((0.375, 0.5), (0.42, 0.5)), positive=(True, False))
    found = segment_region(photo, both)
    assert found[60, 60]
    assert not found[60, 67]


def test_the_size_of_the_image_does_not_matter(photo):
    large = photo.repeat(3, axis=0).repeat(3, axis=1)
    found = segment_region(large, REGIONS["box"])
    assert found.shape == large.shape[:2]
    assert iou(found, DISC.repeat(3, axis=0).repeat(3, axis=1)) > 0.9


def test_a_photograph():
    image = data.coffee()
    found = segment_region(image, BoxRegion(x0=0.2, y0=0.1, x1=0.95, y1=0.95))
    assert 0.1 < found.mean() < 0.6
    assert found[150, 300]  # the cup
    assert not found[10, 10]  # the table


def test_one_seed_gives_one_mask(photo):
    one, other = (segment_region(photo, REGIONS["points"], seed=3) for _ in range(2))
    assert (one == other).all()


fractions = st.floats(0, 1)
pairs = st.tuples(fractions, fractions)


@settings(max_examples=60, deadline=None)
@given(
    region=st.one_of(
        st.lists(pairs, min_size=1, max_size=4).map(lambda points: PointsRegion(points=tuple(points))),
        st.lists(pairs, min_size=2, max_size=5).map(lambda line: ScribbleRegion(strokes=(tuple(line),))),
        st.just(BoxRegion(x0=0, y0=0, x1=1, y1=1)),
    ),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 9),
    colours=st.sampled_from([1, 2, 256]),
)
def test_any_image_and_region_have_a_mask(region, size, seed, colours):
    """Images of one pixel and of one colour, and regions on the edge."""
    image = np.random.default_rng(seed).integers(0, colours, (*size, 3)).astype(np.uint8)
    found = segment_region(image, region, seed=seed)
    assert found.shape == size
    assert found.dtype == bool
    if not isinstance(region, BoxRegion) and max(size) > 1:
        assert found.any()


@pytest.mark.parametrize(("region", "text"), [(None, "the disc"), (REGIONS["box"], "all discs")])
def test_what_it_cannot_do_is_refused(photo, region, text):
    with pytest.raises(UnsupportedRequestError, match="one object in a region"):
        RandomWalkerSegmenter().run(ask(photo, region, text))


# -- the mask head beside a region


@pytest.mark.parametrize(
    ("name", "rows", "columns", "fits"),
    [
        ("box", slice(30, 90), slice(30, 90), True),
        ("box", slice(30, 90), slice(110, 150), False),  # beside it
        ("box", slice(0, 120), slice(0, 160), False),  # all of the image
        ("box", slice(58, 62), slice(58, 62), False),  # next to nothing of it
        ("points", slice(30, 90), slice(30, 90), True),
        ("points", slice(30, 90), slice(70, 90), False),
        ("scribble", slice(30, 90), slice(30, 90), True),
        ("scribble", slice(30, 90), slice(68, 90), False),
        ("polygon", slice(30, 90), slice(30, 90), True),
    ],
)
def test_a_mask_fits_what_was_drawn_or_not(photo, name, rows, columns, fits):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[rows, columns] = True
    assert fits_region(mask, ask(photo, REGIONS[name])) is fits
    assert fits_region(mask, ask(photo, None))
    assert fits_region(mask, ask(photo, REGIONS[name], "all discs"))


@pytest.mark.parametrize(("column", "fits"), [(60, True), (130, False)])
def test_a_mask_beside_the_region_leaves_it_to_the_next_specialist(photo, column, fits):
    mask = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    mask[0, 40:80, column - 20 : column + 20] = True
    head = MaskHeadSpecialist(lambda signal, module, media: mask)
    request, signal = ask(photo, REGIONS["box"]), np.ones((8, 4), dtype=np.float32)
    if fits:
        assert (head.run(request, signal=signal).artefact.data[0] == mask).all()
    else:
        with pytest.raises(UnsupportedRequestError, match="does not fit the region"):
            head.run(request, signal=signal)
