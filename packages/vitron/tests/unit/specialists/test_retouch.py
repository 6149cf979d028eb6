# SPDX-License-Identifier: Apache-2.0
"""Edits without a model: the pixels, the instructions, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PolygonRegion
from vitron.protocol.media import Artefact
from vitron.protocol.regions import rasterise
from vitron.protocol.regions.convert import mask_to_region
from vitron.protocol.regions.raster import dilate
from vitron.specialists import Action, Request, SpecialistRegistry
from vitron.specialists.pixels import fill, move, recolour, zoom
from vitron.specialists.retouch import Retouch
from vitron.specialists.words import COLOURS

HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
DISC = (ROWS - 40) ** 2 + (COLUMNS - 40) ** 2 <= 20**2
AROUND = BoxRegion(x0=0.1, y0=0.12, x1=0.55, y1=0.75)


@pytest.fixture(scope="module")
def ground():
    """A plane of soft colours."""
    return np.stack([60 + ROWS, 200 - COLUMNS, 90 + 0 * ROWS], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo(ground):
    """A shaded red disc on it."""
    image = ground.copy()
    image[DISC] = (np.array([200, 40, 40]) + (ROWS - 40)[DISC, None]).clip(0, 255)
    return image


def ask(image, name, text, *, module="image_editing", region=AROUND, **more):
    return Request(
        module=module,
        actions=(Action(name, text, name),),
        media=image if isinstance(image, Artefact) else Artefact("image", image),
        region=region,
        **({"mask": None if region is None else rasterise(region, HEIGHT, WIDTH)} | more),
    )


def edited(*args, **kwargs):
    return Retouch().run(ask(*args, **kwargs)).artefact.frames


def error(one, other):
    return np.abs(one.astype(float) - other).mean()


def test_what_is_removed_leaves_the_ground(photo, ground):
    assert error(edited(photo, "remove", "the disc")[0], ground) < 0.5 < error(photo, ground)


def test_a_plane_goes_on_in_a_hole(photo, ground):
    """A plane is harmonic; what the detail adds is that of the filter at the edges of the image."""
    assert np.abs(fill(photo, DISC).astype(int) - ground).max() <= 3


def test_the_grain_of_the_ground_goes_on_in_a_hole(ground):
    rng = np.random.default_rng(0)
    noisy = (ground + rng.normal(0, 20, ground.shape)).clip(0, 255).astype(np.uint8)
    filled = fill(np.where(DISC[..., None], 0, noisy).astype(np.uint8), DISC)
    grain = (filled.astype(float) - ground)[DISC].std() / (noisy.astype(float) - ground)[DISC].std()
    assert 0.7 < grain < 1.3


def test_large_holes_are_solved_on_a_coarser_grid(ground):
    large = ground.repeat(4, axis=0).repeat(4, axis=1)
    hole = DISC.repeat(4, axis=0).repeat(4, axis=1)  # 20,000 pixels are solved as they are
    filled = fill(np.where(hole[..., None], 0, large).astype(np.uint8), hole)
    assert hole.sum() > 20_000
    assert np.abs(filled.astype(int) - large).max() <= 6


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_any_hole_is_filled_and_nothing_else_changes(size, seed, share):
    rng = np.random.default_rng(seed)
    image, hole = rng.integers(0, 256, (*size, 3)).astype(np.uint8), rng.random(size) < share
    filled = fill(image, hole)
    assert filled.shape == image.shape
    assert (filled[~hole] == image[~hole]).all()


def test_a_new_colour_keeps_the_shading(photo):
    found = edited(photo, "recolour", "the disc to blue")[0]
    inner = (ROWS - 40) ** 2 + (COLUMNS - 40) ** 2 <= 16**2
    assert np.abs(found[inner].mean(axis=0) - COLOURS["blue"]).max() < 4
    assert np.polyfit(ROWS[inner], found[inner][:, 2], 1)[0] == pytest.approx(1, abs=0.1)
    assert (found[~rasterise(AROUND, HEIGHT, WIDTH)] == photo[~rasterise(AROUND, HEIGHT, WIDTH)]).all()


def test_moving_by_pixels_and_by_a_quarter(photo, ground):
    for text, right in (("the disc to the right by 30", 30), ("the disc to the right", WIDTH // 4)):
        found = edited(photo, "move", text)[0]
        want = ground.copy()
        there = np.roll(DISC, right, axis=1)
        want[there] = photo[DISC]
        assert error(found, want) < 1


def test_what_leaves_the_image_is_cut_off(photo, ground):
    assert error(move(photo, DISC, 0, 1000, DISC), ground) < 0.5


@pytest.mark.parametrize("region", [None, AROUND])
def test_a_style_is_for_the_image_unless_a_region_is_drawn(photo, region):
    found = edited(photo, "restyle", "in greyscale", region=region)[0]
    grey = (found.max(axis=-1) == found.min(axis=-1)).mean()
    assert grey == 1 if region is None else 0.08 < grey < 0.3


def test_a_mask_by_hand_is_taken_as_it_is(photo):
    square = PolygonRegion(points=((0.5, 0.5), (0.9, 0.5), (0.9, 0.9), (0.5, 0.9)))
    found = edited(photo, "recolour", "to yellow", region=square)[0]
    assert np.abs(found[60:80, 75:105].mean(axis=(0, 1)) - COLOURS["yellow"]).max() < 5


def test_a_brush_stroke_on_the_object_means_all_of_it(photo, ground):
    stroke = (np.abs(ROWS - COLUMNS) <= 3) & (np.abs(ROWS - 40) <= 10)
    painted = mask_to_region(stroke).model_copy(update={"brush": True})
    found = edited(photo, "remove", "this", region=painted, mask=stroke)[0]
    assert error(found, ground) < 0.5 < error(photo, ground)


@pytest.mark.parametrize("inner", [0, 14])
def test_a_mask_that_is_no_brush_is_taken_as_it_is(photo, inner):
    """A speck, which a brush would mean as a point, and a ring, which it would mean as a line around."""
    distance = np.hypot(ROWS - 40, COLUMNS - 40)
    mask = (distance <= 3) if inner == 0 else (distance <= 17) & (distance >= inner)
    found = edited(photo, "recolour", "to blue", region=mask_to_region(mask), mask=mask)[0]
    changed = (found != photo).any(axis=-1)
    assert changed[mask].all()
    assert not changed[~dilate(mask, 1)].any()


def test_animation_moves_the_object_and_zoom_the_image(photo):
    frames = edited(photo, "animate", "it moves down", module="image_to_video", args={"length": 4})
    assert len(frames) == 4
    assert (frames[0] == photo).all()
    rows = [ROWS[(frame[..., 0].astype(int) - frame[..., 1] > 90)].mean() for frame in frames]
    assert np.diff(rows) == pytest.approx([HEIGHT // 16] * 3, abs=1)
    zoomed = edited(photo, "animate", "zoom in", module="image_to_video", region=None, args={"length": 3})
    assert (zoom(photo, out=True, length=3)[::-1] == zoomed).all()
    assert (zoomed[0] == photo).all()


def test_a_video_is_edited_by_the_masks_of_its_frames(photo):
    clip = Artefact("video", np.stack([photo, np.roll(photo, 10, axis=1), photo]), fps=8)
    track = np.stack([DISC, np.roll(DISC, 10, axis=1), np.zeros_like(DISC)])
    result = (
        Retouch()
        .run(ask(clip, "recolour", "the disc to green", module="video_editing", region=None, track=track))
        .artefact
    )
    assert result.fps == 8
    assert (result.frames[2] == photo).all()  # where it is not seen, nothing changes
    for frame, source, mask in zip(result.frames[:2], clip.frames, track, strict=False):
        assert (frame == recolour(source, mask, COLOURS["green"])).all()
    every = Retouch().run(ask(clip, "restyle", "negative", module="video_editing", region=None, track=track))
    assert (every.artefact.frames == 255 - clip.frames).all()  # a style is not of the object
    grey = Retouch().run(ask(clip, "restyle", "sepia", module="video_editing", region=None, frames=(1, 1)))
    assert [(one != other).any() for one, other in zip(grey.artefact.frames, clip.frames, strict=True)] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "text", "more", "message"),
    [
        ("add", "a hat", {}, "cannot add: an image generation model"),
        ("replace", "the disc with a cat", {}, "cannot replace"),
        ("remove", "the disc", {"region": None}, "nothing to remove: draw a region"),
        ("recolour", "the disc to mauve", {}, "retouch knows red, green"),
        ("move", "the disc", {}, "needs a direction"),
        ("restyle", "in oil", {}, "the known styles are grey"),
        ("animate", "it moves", {"module": "image_to_video", "args": {"length": 10**6}}, "frames"),
    ],
)
def test_what_it_cannot_do_is_refused(photo, name, text, more, message):
    with pytest.raises(UnsupportedRequestError, match=message):
        edited(photo, name, text, **more)


def test_the_registry_gives_it_the_mask_of_every_frame(photo):
    """Without a region of the user, masks come from the signals of the call."""
    asked = []

    def locate(module, media, signal):
        asked.append((module, media.num_frames))
        found = media.frames[0][..., 0].astype(int) - media.frames[0][..., 1] > 90
        return found if found.any() else None

    registry = SpecialistRegistry(locate=locate)
    registry.register("retouch", Retouch)
    empty = np.zeros_like(photo)
    clip = Artefact("video", np.stack([photo, empty, np.roll(photo, 10, axis=1)]))
    request = ask(clip, "recolour", "the disc to green", module="video_editing", region=None)
    result = registry.run(request, signal=np.ones((4, 8), dtype=np.float32)).result.artefact
    assert asked == [("video_editing", 1)] * 3
    assert (result.frames[1] == empty).all()
    assert (result.frames[2] != clip.frames[2]).any()
    still = ask(
        Artefact("video", photo[None]), "recolour", "the disc to green", module="video_editing", region=None
    )
    found = registry.run(still, signal=np.ones((4, 8), dtype=np.float32)).result.artefact
    assert (found.frames[0] == result.frames[0]).all()
