# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.philox import Stream, Use

WORDS = [16912399398596105240, 7154974698294097278]
NORMALS = [-0.11262, -0.40125, -0.67034]


def test_words_are_those_of_philox():
    """Known answers: a change of numpy, of the key or of the counter would change every image."""
    stream = Stream(7, Use.NOISE, 0, (2, 3))
    assert stream.words(2).tolist() == WORDS
    assert [round(float(x), 5) for x in Stream(7, Use.NOISE, 0, (2, 3)).normals(3)] == NORMALS


def test_noise_is_standard_normal():
    noise = CellNoise(0, 4, 256, 256).read(0, 0, 256, 256)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs(noise.pow(4).mean() - 3) < 0.1
    flat = noise.flatten()
    assert abs((flat[:-1] * flat[1:]).mean()) < 0.01
    assert abs((noise[0] * noise[1]).mean()) < 0.02


def test_any_region_reads_the_same_noise():
    whole = CellNoise(3, 2, 150, 200).read(0, 0, 150, 200)
    region = CellNoise(3, 2, 150, 200).read(40, 63, 70, 130)
    assert torch.equal(region, whole[:, 40:110, 63:193])


def test_regions_go_on_at_the_opposite_side():
    source = CellNoise(3, 2, 100, 90)
    whole = source.read(0, 0, 100, 90)
    assert torch.equal(source.read(95, 80, 20, 30), whole.roll((-95, -80), (1, 2))[:, :20, :30])


def test_a_larger_canvas_begins_with_the_same_noise():
    small, large = CellNoise(1, 1, 64, 70), CellNoise(1, 1, 200, 300)
    assert torch.equal(small.read(0, 0, 64, 70), large.read(0, 0, 64, 70))


def test_forgotten_cells_come_back(monkeypatch):
    monkeypatch.setattr("pixelsmith.core.noise._CACHE_BYTES", 0)
    source = CellNoise(1, 1, 640, 640)
    first = source.read(0, 0, 640, 640)
    assert len(source._cells) == 16
    assert torch.equal(first, source.read(0, 0, 640, 640))


def test_seed_stage_and_use_are_streams_of_their_own():
    found = [
        Stream(seed, use, stage, place).words(4).tolist()
        for seed in (0, 1)
        for use in Use
        for stage in (0, 1)
        for place in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(words) for words in found}) == len(found)


def test_draws_below_a_limit_are_even():
    stream = Stream(5, Use.PATCHES, 0, (0, 0))
    found = np.bincount([stream.below(5) for _ in range(5000)], minlength=5)
    assert len(found) == 5
    assert found.min() > 900
    assert sorted(stream.order(9).tolist()) == list(range(9))
