# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import pytest
from pixelsmith import JobConfig
from pixelsmith.config import SamplingConfig, SizeConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patch": 20}, "patch_multiple must divide patch, got 8 and patch=20"),
        ({"plan": "spiral"}, "plan must be one of cover, jitter, grid, got 'spiral'"),
        ({"mode": "fast"}, "mode must be one of parallel, official"),
        ({"wrap": "x"}, "wrap must be one of none, vertical, horizontal, both"),
        ({"seed": -1}, "seed must lie in"),
        ({"overlap": 128}, "overlap must lie in"),
        ({"band": -1}, "band must not be negative"),
        ({"fusion_weight": 1.5}, "fusion_weight must lie in"),
        ({"slider": -1}, "slider must be a fraction in"),
        ({"slider": 1.5}, "slider must be a fraction in"),
        ({"slider": float("nan")}, "slider must be a fraction in"),
        ({"slider": ()}, "slider map must be a rectangle"),
        ({"slider": ((0.5,), (0.5, 1.0))}, "slider map must be a rectangle"),
        ({"slider": ((0.5, 3),)}, "slider map must hold fractions only"),
        ({"mode": "official", "slider": ((0.5,),)}, "slider must be one number with mode='official'"),
        ({"mode": "official", "fusion_weight": 0.3}, "fusion_weight must be 0.5"),
        ({"overhang": -1}, "overhang must not be negative, got -1"),
        ({"overhang": 3, "mode": "official"}, "overhang must be 0 with mode='official', got 3"),
        ({"colour_fix": "auto"}, "colour_fix must be one of none, wavelet, got .auto."),
        ({"grain_threshold": -1.0}, "grain_threshold must be a finite number from 0, got -1.0"),
        ({"grain_threshold": float("nan")}, "grain_threshold must be a finite number from 0, got nan"),
        (
            {"colour_fix": "wavelet", "wrap": "both"},
            "colour_fix must be .none. with wrap=.both., got .wavelet.",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JobConfig(**{"patch": 128, **settings})


@pytest.mark.parametrize("slider", [True, "many", None])
def test_a_slider_that_is_no_number_is_refused(slider):
    with pytest.raises(TypeError, match="slider must be a whole number"):
        JobConfig(patch=128, slider=slider)


@pytest.mark.parametrize("slider", ["auto", 0, 30, 0.5, ((0.0, 1.0), (0.5, 0.5)), ((3, 4),)])
def test_settings_survive_json(slider):
    config = JobConfig(patch=64, slider=slider, wrap="both", plan="jitter", seed=2**64 - 1)
    assert JobConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_settings_are_refused():
    with pytest.raises(ValueError, match="unknown settings: colour"):
        JobConfig.from_dict({"patch": 128, "colour": 1})
    with pytest.raises(ValueError, match="patch is missing"):
        JobConfig.from_dict({"seed": 1})


def test_the_digest_tells_jobs_apart_but_not_batches():
    config = JobConfig(patch=128)
    assert replace(config, batch_size=8).digest() == config.digest()
    assert replace(config, seed=1).digest() != config.digest()
    assert replace(config, slider=1).digest() != replace(config, slider=1.0).digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "wide"}, "a size is WIDTHxHEIGHT or one number of pixels, as 4096x2048, got 'wide'"),
        ({"via": ("0x40",)}, "got '0x40'"),
        ({"scale": 2.0, "height": 64}, "scale and height or width cannot both be given"),
        ({"size": "64", "scale": 2.0}, "size and scale cannot both be given"),
        ({"stages": 0}, "stages must be at least 1, got 0"),
        ({"stages": 2, "via": ("64",)}, "via and stages cannot both be given"),
        *(({"scale": scale}, "scale must be above 0") for scale in (0, -2, float("inf"), float("nan"))),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SizeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number"),
        ({"guidance_rescale": 2.0}, "guidance_rescale must lie in"),
        ({"conditioning": "all"}, "conditioning must be one of true, official, base, none"),
        ({"patch": 0}, "patch must be at least 1 latent wide"),
    ],
)
def test_sampling_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)


def test_band_and_overhang_follow_the_side_of_a_patch():
    config = JobConfig(patch=128)
    assert [config.band_of(side) for side in (128, 64, 16)] == [10, 5, 1]
    assert [config.overhang_of(side) for side in (128, 64, 16)] == [16, 8, 2]
    assert replace(config, average=False).band_of(128) == 0
    given = replace(config, band=3, overhang=20)
    assert (given.band_of(128), given.overhang_of(128), given.overhang_of(16)) == (3, 20, 4)
    assert replace(config, mode="official").overhang_of(128) == 0


def test_grain_goes_by_default_but_not_with_the_published_mode():
    assert JobConfig(patch=16).grain > 0
    assert JobConfig(patch=16, grain_threshold=0.0).grain == 0
    assert JobConfig(patch=16, mode="official").grain == 0
    assert JobConfig(patch=16, mode="official", grain_threshold=1.5).grain == 1.5
