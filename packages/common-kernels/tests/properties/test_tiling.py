# SPDX-License-Identifier: Apache-2.0
import torch
from common_kernels.tiling import axis_weights, blend_tiles, map_tiles, plan_tiles, stream_tiles
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

quick = settings(deadline=None, derandomize=True, max_examples=60)
sizes = st.integers(1, 70)
blends = st.sampled_from(["raised_cosine", "uniform"])


@st.composite
def plans(draw: st.DrawFn):
    multiple = draw(st.integers(1, 6))
    tile = draw(st.integers(multiple, 40))
    overlap = draw(st.integers(0, tile - multiple))
    return plan_tiles(draw(sizes), draw(sizes), tile=tile, overlap=overlap, multiple=multiple)


@quick
@given(plans())
def test_every_pixel_is_covered_and_no_tile_leaves_the_image(plan):
    visits = torch.zeros(plan.height, plan.width)
    for box in plan:
        assert 0 <= box.top < box.bottom <= plan.height
        assert 0 <= box.left < box.right <= plan.width
        plan.cut(visits, box).add_(1)
    assert visits.min() >= 1


@quick
@given(plans(), blends)
def test_weights_sum_to_one(plan, blend):
    total = torch.zeros(plan.height, dtype=torch.float64)
    for (start, stop), weight in zip(plan.rows, axis_weights(plan.rows, plan.height, blend), strict=True):
        assert (weight > 0).all()
        total[start:stop] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


@quick
@given(plans(), blends, st.integers(1, 5))
def test_identity_gives_the_image_back(plan, blend, batch_size):
    image = torch.rand(2, plan.height, plan.width, dtype=torch.float64)
    out = map_tiles(lambda x: x, image, plan, blend=blend, batch_size=batch_size)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-12)


@quick
@given(plans(), st.integers(2, 3))
def test_scaling_function_gives_the_scaled_image(plan, scale):
    image = torch.rand(1, plan.height, plan.width, dtype=torch.float64)
    out = map_tiles(lambda x: F.interpolate(x, scale_factor=scale, mode="nearest"), image, plan, scale=scale)
    expected = F.interpolate(image[None], scale_factor=scale, mode="nearest")[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@quick
@given(plans(), blends, st.integers(0, 2**31))
def test_bands_are_the_whole_blend_bit_for_bit(plan, blend, seed):
    generator = torch.Generator().manual_seed(seed)
    tiles = [torch.rand(b.bottom - b.top, b.right - b.left, generator=generator) for b in plan]
    whole = blend_tiles(plan, tiles, blend=blend)
    top = 0
    for start, band in stream_tiles(plan, tiles, blend=blend):
        assert start == top
        assert torch.equal(band, whole[top : top + len(band)])
        top += len(band)
    assert top == plan.height


@quick
@given(plans(), st.integers(2, 7))
def test_batch_size_changes_no_bit(plan, batch_size):
    assume(len(plan) > 1)
    image = torch.rand(1, plan.height, plan.width)

    def square(x):
        return x * x

    one = map_tiles(square, image, plan)
    assert torch.equal(one, map_tiles(square, image, plan, batch_size=batch_size))
