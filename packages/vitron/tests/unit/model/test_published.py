# SPDX-License-Identifier: Apache-2.0
"""The release's region encoder and choice of frames against its formulas (checks 9 and 23)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vitron.model.hf.media import MediaProcessor
from vitron.model.regions import PublishedRegionEncoder
from vitron.protocol.contract import BoxRegion
from vitron.protocol.regions import rasterise

GRID, SIDE, WIDTH, OUT = 4, 32, 6, 10
MAPS = np.random.default_rng(0).standard_normal((GRID, GRID, WIDTH))


def linear(layer, value):
    return layer.weight.detach().numpy() @ value + layer.bias.detach().numpy()


def mlp(sequence, value):
    """Apply linear layers with ReLUs between them."""
    for number, layer in enumerate(each for each in sequence if isinstance(each, torch.nn.Linear)):
        value = linear(layer, np.maximum(value, 0) if number else value)
    return value


def bilinear(mask):
    """Read a square mask at the centres of patches, without aligned corners, cell by cell."""
    out, step = np.zeros((GRID, GRID)), SIDE / GRID
    for row in range(GRID):
        for column in range(GRID):
            y, x = (row + 0.5) * step - 0.5, (column + 0.5) * step - 0.5
            top, left = int(y), int(x)
            for i, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for j, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    out[row, column] += share_y * share_x * mask[min(i, SIDE - 1), min(j, SIDE - 1)]
    return out


def wanted(encoder, box, *, mirrored):
    """The token of a box in pixels by the release's formulas, in float64.

    The mask covers the truncated corners; patches that it touches at their centre are averaged; the location
    is that of the box itself.
    """
    mask = np.zeros((SIDE, SIDE))
    left, top, right, bottom = (int(each) for each in box)
    # the release takes the first axis of the mask for x
    rows, columns = ((left, right), (top, bottom)) if mirrored else ((top, bottom), (left, right))
    mask[slice(*rows), slice(*columns)] = 1
    touched = (bilinear(mask) > 0).astype(np.float64)
    pooled = (MAPS * touched[..., None]).sum((0, 1)) / (touched.sum() + 1e-8)
    return mlp(encoder.features, pooled) + mlp(encoder.location, np.array(box))


def encode(encoder, box):
    corners = [each / SIDE for each in box]
    region = BoxRegion(**dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)))
    # as conversations draw it: a pixel belongs to a box if its centre does
    mask = torch.from_numpy(rasterise(region, SIDE, SIDE))[None].double()
    given = torch.tensor([corners], dtype=torch.float64)
    return encoder(torch.from_numpy(MAPS)[None], mask, given)[0].detach().numpy()


def encoder_of(*, mirrored):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return PublishedRegionEncoder(WIDTH, OUT, mirrored=mirrored).double()


CORNERS = st.tuples(*[st.floats(0, SIDE)] * 4).filter(
    # the truncated box must not be empty: the release then pools nothing
    lambda four: (
        int(four[0]) < int(four[2])
        and int(four[1]) < int(four[3])
        # what lies this near below a whole number is taken for it
        and max(each % 1 for each in four) < 0.999
    )
)


@pytest.mark.parametrize("mirrored", [False, True])
def test_fractional_boxes_are_encoded_as_by_the_release(mirrored):
    encoder = encoder_of(mirrored=mirrored)

    @settings(max_examples=100, deadline=None)
    @given(CORNERS)
    def check(box):
        expected = wanted(encoder, box, mirrored=mirrored)
        np.testing.assert_allclose(encode(encoder, box), expected, rtol=1e-5, atol=1e-5)

    check()


def test_rounding_the_box_would_be_seen():
    encoder = encoder_of(mirrored=False)
    exact, rounded = (8.7, 4.4, 30.6, 20.9), (8.0, 4.0, 30.0, 20.0)
    difference = wanted(encoder, exact, mirrored=False) - wanted(encoder, rounded, mirrored=False)
    assert np.abs(difference).max() > 1e-2


def frames_of(count, num_frames=8):
    config = SimpleNamespace(num_frames=num_frames)
    return MediaProcessor.sample_frames(SimpleNamespace(config=config, reads_videos=False), count)


def test_frames_are_those_of_the_release():
    for count in range(8, 302):
        # equal steps from the first to the last frame, in integers
        assert frames_of(count) == [at * (count - 1) // 7 for at in range(8)], count
    assert frames_of(100) == [0, 14, 28, 42, 56, 70, 84, 99]


def test_short_videos_are_shown_once():
    for count in range(1, 9):
        assert frames_of(count) == list(range(count))


@given(st.integers(1, 100_000), st.integers(1, 64))
def test_frames_are_in_order_and_never_outside(count, num_frames):
    chosen = frames_of(count, num_frames)
    assert len(chosen) == min(count, num_frames)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < count
