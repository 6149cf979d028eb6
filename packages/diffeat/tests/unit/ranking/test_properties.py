# SPDX-License-Identifier: Apache-2.0
import json
import math

import numpy as np
import pytest
import torch
from diffeat import FeatureExtractor
from diffeat.options import ExtractionOptions
from diffeat.ranking.properties import (
    granularity,
    high_frequency_share,
    locality,
    measure_properties,
    noise_sensitivity,
)
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F


@pytest.fixture
def noise():
    return torch.randn(2, 16, 32, 32, generator=torch.Generator().manual_seed(0))


def ramp(side=32):
    line = torch.linspace(0, 1, side)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))[None]


def test_noise_sensitivity_runs_from_nothing_to_everything(noise):
    assert noise_sensitivity(noise, noise) == pytest.approx(0)
    assert noise_sensitivity(noise[:1], noise[1:]) == pytest.approx(1, abs=0.05)
    assert noise_sensitivity(noise, -noise) == pytest.approx(2)
    # signal and noise of equal power correlate by a half
    signal = noise.flip(0)
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    assert noise_sensitivity(signal + noise, signal + other) == pytest.approx(0.5, abs=0.05)


def test_channels_without_variation_do_not_count(noise):
    flat = torch.cat([noise, torch.ones_like(noise)], dim=1)
    assert noise_sensitivity(flat, flat) == pytest.approx(0)
    assert noise_sensitivity(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4)) is None


def test_high_frequencies_of_known_waves(noise):
    x = torch.arange(32.0)
    slow, fast = (torch.cos(2 * math.pi * f * x / 32).expand(1, 1, 32, 32) for f in (4, 12))
    assert high_frequency_share(slow) == pytest.approx(0)
    assert high_frequency_share(fast) == pytest.approx(1)
    assert high_frequency_share(slow + fast + 100) == pytest.approx(0.5)
    assert high_frequency_share(noise) == pytest.approx(1 - math.pi / 16, abs=0.02)


def test_coordinates_are_local_and_noise_is_not(noise):
    assert locality(ramp()) == pytest.approx(1, abs=1e-3)
    assert abs(locality(noise)) < 0.1
    assert locality(torch.ones(1, 2, 8, 8)) is None


def test_granularity_grows_with_the_size_of_what_is_seen(noise):
    coarse = F.interpolate(noise[:, :, :8, :8], 32, mode="nearest")
    finer = F.interpolate(noise[:, :, :16, :16], 32, mode="nearest")
    sizes = [granularity(value) for value in (noise, finer, coarse)]
    # squares of side a correlate as 1 - lag / a along an axis: half of it at a / 2
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(0.5 / 32, rel=0.1)
    assert sizes[2] == pytest.approx(2 / 32, rel=0.3)
    same = F.interpolate(coarse, 64, mode="nearest")
    assert granularity(same) == pytest.approx(sizes[2], rel=0.15)


def test_few_cells_have_no_figures():
    tiny = torch.randn(1, 2, 2, 8)
    assert (high_frequency_share(tiny), locality(tiny), granularity(tiny)) == (None, None, None)


def test_a_model_is_measured_and_drawn(sd15_folder, tmp_path):
    extractor = FeatureExtractor(StableDiffusionPipeline.from_pretrained(sd15_folder), name="tiny")
    images = [np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)]
    done = []
    report = measure_properties(
        extractor,
        images,
        "up-level{1,3}-*",
        ExtractionOptions(size=64),
        names_per_pass=30,
        on_name=lambda *counts: done.append(counts),
    )
    names = [row.name for row in report.rows]
    assert not any(name.endswith("map") for name in names)
    assert done[0][0] == 30
    assert done[-1] == (len(names), len(names))
    fields = ("noise_sensitivity", "high_frequency", "locality", "granularity")
    known = [getattr(row, field) for row in report.rows for field in fields]
    assert sum(value is not None for value in known) > len(known) / 2
    # the middle levels of a tiny model have too few cells for spectra, but not for correlations
    assert all(row.noise_sensitivity is not None for row in report.rows)
    report.to_json(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["settings"]["images"] == 1
    report.chart(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000
