# SPDX-License-Identifier: Apache-2.0
import pytest
from pixelsmith import JobConfig
from pixelsmith.config import SizeConfig
from pixelsmith.job.plan import plan_job, plan_stages

CONFIG = JobConfig(patch=16, patch_multiple=2)


def plan(dummies, image_size=None, *, sliders=(), base=None, **sizes):
    """Plan for a model of 32 pixels native, 2 pixels per latent, patches of multiples of 4 pixels."""
    return plan_job(
        dummies.Dummy(), CONFIG, SizeConfig(**sizes), image_size=image_size, sliders=sliders, base=base
    )


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ({}, None, (64, 64)),
        ({}, (24, 30), (48, 60)),
        ({"scale": 4}, (33, 51), (132, 204)),
        ({"scale": 0.1}, (10, 10), (2, 2)),
        ({"size": "60x44"}, None, (44, 60)),
        ({"size": " 640X480 "}, (24, 32), (480, 640)),
        ({"size": "60"}, None, (60, 60)),
        ({"size": "100"}, (30, 60), (50, 100)),
        ({"size": "100"}, (60, 30), (100, 50)),
        ({"height": 100}, (37, 51), (100, 138)),
        ({"width": 100}, (37, 51), (72, 100)),
    ],
)
def test_the_size_of_the_result(dummies, sizes, image_size, expected):
    spec = plan(dummies, image_size, **sizes)
    assert spec.size == expected
    assert image_size is None or spec.source_size == image_size


def test_base_images_have_the_aspect_of_the_result_and_the_area_of_the_training(dummies):
    bases = {size: plan(dummies, size=size).source_size for size in ("64", "32x128", "28x32", "25x30")}
    assert bases == {"64": (32, 32), "32x128": (64, 16), "28x32": (32, 28), "25x30": (32, 24)}
    assert plan(dummies, size="64x56", base="32x28").source_size == (28, 32)
    assert plan(dummies, size="128x64", base="48").source_size == (24, 48)


def test_stages_go_through_the_sizes_on_the_way(dummies):
    assert plan(dummies, size="32").sizes == ()  # native: the model generates the result itself
    assert plan(dummies, (32, 32), size="32").sizes == ((32, 32),)
    assert plan(dummies, (32, 32), scale=4, stages=2).sizes == ((64, 64), (128, 128))
    assert plan(dummies, (24, 30), size="240", via=("60", "120x96")).sizes == (
        (48, 60),
        (96, 120),
        (192, 240),
    )
    assert plan(dummies, size="128x64", via=("64",)).sizes == ((32, 64), (64, 128))
    assert plan_stages((10, 10), (80, 80), 8, 3) == [(24, 24), (40, 40), (80, 80)]


def test_sliders_are_one_for_all_or_one_for_each_stage(dummies):
    assert plan(dummies, scale=4, stages=2, sliders=[3]).sliders == (3, 3)
    assert plan(dummies, scale=4, stages=2, sliders=[2, 0.5]).sliders == (2, 0.5)
    assert plan(dummies, size="32", sliders=[0.5]).config.slider == 0.5
    with pytest.raises(ValueError, match="one for each of the 1 stages, got 2"):
        plan(dummies, sliders=[1, 2])


@pytest.mark.parametrize(
    ("fit", "image_size", "source"),
    [
        ("crop", (30, 60), (30, 40)),
        ("pad", (30, 60), (45, 60)),
        ("crop", (60, 30), (22, 30)),
        ("pad", (60, 30), (60, 80)),
        ("pad", (45, 60), (45, 60)),
    ],
)
def test_an_image_of_another_shape_is_cropped_or_padded(dummies, fit, image_size, source):
    spec = plan(dummies, image_size, size="160x120", fit=fit)
    assert (spec.source_size, spec.size) == (source, (120, 160))
    assert spec.fit == (None if source == image_size else fit)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {"size": "160x120"},
            r"the image is 60 x 30 pixels, and 160 x 120 is of another shape; add --fit crop",
        ),
        ({"height": 120, "width": 120}, "is of another shape; add --fit crop or --fit pad, or name one side"),
        (
            {"size": "120x60", "via": ("80x60",)},
            "via must have the shape of the result, 120 x 60, got 80 x 60",
        ),
        ({"fit": "stretch"}, "fit must be one of crop, pad, got 'stretch'"),
    ],
)
def test_nothing_is_stretched_unasked(dummies, sizes, said):
    with pytest.raises(ValueError, match=said):
        plan(dummies, (30, 60), **sizes)


def test_rounding_to_whole_latents_is_no_other_shape(dummies):
    assert plan(dummies, (37, 51), size="102x74").size == (74, 102)
    assert plan(dummies, (37, 51), height=76, width=104).fit is None
