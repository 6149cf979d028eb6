# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from itaclip.attention import build_attention
from itaclip.attention.mixed import Term, explicit_map, fused_attention, gaussian_bias
from itaclip.config import ITACLIPConfig
from itaclip.encoder import build_encoder
from itaclip.encoder.tower import resize_positions
from itaclip.features import blur, join_branches, luma_gray, make_branches
from torch.nn import functional as F


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gray_is_the_luma_of_what_is_given():
    images = noise(2, 3, 4, 5)
    gray = luma_gray(images)
    expected = 0.2989 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    assert gray.shape == images.shape
    assert all(torch.allclose(gray[:, channel], expected, atol=1e-6) for channel in range(3))


@pytest.mark.parametrize("size", [(30, 20), (4, 30), (1, 1)], ids=str)
def test_blur_keeps_constants(size):
    images = torch.full((1, 3, *size), 0.3)
    assert torch.allclose(blur(images, 11, 5.0), images, atol=1e-6)


def test_blur_is_a_gaussian():
    # so wide that no reflection of the point is in reach
    point = torch.zeros(1, 3, 21, 21)
    point[..., 10, 10] = 1
    weights = torch.tensor([math.exp(-(d**2) / 50) for d in range(-5, 6)])
    weights = weights / weights.sum()
    blurred = blur(point, 11, 5.0)[0, 0]
    assert torch.allclose(blurred[5:16, 5:16], weights[:, None] * weights, atol=1e-6)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)


def test_maps_by_hand():
    q = torch.tensor([[1.0, 0.0], [0.0, 2.0]])[None, None]
    k = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, None]
    e = math.e
    qq = torch.tensor([[e / (e + 1), 1 / (e + 1)], [1 / (1 + e**4), e**4 / (1 + e**4)]])
    kk = torch.tensor([[e / (e + 1), 1 / (e + 1)], [1 / (e + 1), e / (e + 1)]])
    terms = [Term(q, q, 1.0, 1.0), Term(k, k, 0.5, 1.0)]
    assert torch.allclose(explicit_map(terms)[0, 0], qq + 0.5 * kk, atol=1e-6)
    for function in (explicit_map, lambda none: fused_attention(none, q)):
        with pytest.raises(ValueError, match="terms must not be empty"):
            function([])


def test_mixing_of_categories():
    parts = torch.cat([F.normalize(noise(1, 3, 2, 2, seed=i), dim=1) for i in range(5)])

    def mixed(lam, names=("identity", "gray", "blur", "vflip", "hflip")):
        config = ITACLIPConfig(branches=names, lam=lam)
        return join_branches(parts[: len(names)] if "gray" in names else parts[3:], config)[0]

    first = parts[:3].mean(0)
    second = (parts[3].flip(-2) + parts[4].flip(-1)) / 2
    for lam in (0.0, 0.25, 1.0):
        assert torch.allclose(mixed(lam), lam * first + (1 - lam) * second, atol=1e-6)
    assert torch.allclose(mixed(0.2, ("identity", "gray", "blur")), first, atol=1e-6)
    assert torch.allclose(mixed(0.2, ("vflip", "hflip")), second, atol=1e-6)


def test_branches_of_an_encoder_that_flips_along_agree():
    # every pixel a feature: flipping the input flips the output
    config = ITACLIPConfig(branches=("hflip", "identity", "vflip"), lam=0.3)
    windows = noise(2, 3, 4, 5)
    features = make_branches(windows, config)
    assert torch.equal(features[:2], windows.flip(-1))
    assert torch.equal(features[4:].flip(-2), windows)
    joined = join_branches(features, config)
    assert torch.allclose(joined, F.normalize(windows, dim=1), atol=1e-6)
    for names in (("identity",), ("vflip",), ("hflip",), ("vflip", "hflip")):
        config = ITACLIPConfig(branches=names)
        joined = join_branches(make_branches(windows, config), config)
        assert torch.equal(joined, F.normalize(windows, dim=1))


@pytest.mark.parametrize("name", ["vflip", "hflip"])
def test_a_flip_twice_is_the_image(name):
    windows = noise(2, 3, 4, 5)
    config = ITACLIPConfig(branches=(name,))
    once = make_branches(windows, config)
    assert not torch.equal(once, windows)
    assert torch.equal(make_branches(once, config), windows)


def test_first_category_is_averaged_without_normalising_again():
    config = ITACLIPConfig(branches=("identity", "gray", "blur"))
    parts = [F.normalize(noise(1, 3, 4, 4, seed=i), dim=1) for i in range(3)]
    joined = join_branches(torch.cat(parts), config)
    assert torch.allclose(joined, sum(parts) / 3, atol=1e-6)
    assert joined.norm(dim=1).max() < 1


@pytest.mark.parametrize("mode", ["legacy", "size"])
def test_positions_of_the_native_grid_stay(mode):
    table = noise(17, 8)
    assert resize_positions(table, (4, 4), (4, 4), num_prefix=1, mode=mode) is table


def test_legacy_positions_ignore_the_shape_when_the_count_agrees():
    table = noise(17, 8)
    assert resize_positions(table, (4, 4), (2, 8), num_prefix=1) is table
    assert resize_positions(table, (4, 4), (2, 8), num_prefix=1, mode="size").shape == (17, 8)


@pytest.mark.parametrize("grid", [(3, 7), (14, 5), (5, 5), (40, 29)], ids=str)
def test_legacy_positions_go_by_the_factor(grid):
    table = noise(17, 8)
    image = table[1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    factors = tuple((n + 0.1) / 4 for n in grid)
    expected = F.interpolate(image, scale_factor=factors, mode="bicubic", align_corners=False)
    found = resize_positions(table, (4, 4), grid, num_prefix=1)
    assert torch.equal(found[:1], table[:1])
    assert torch.allclose(found[1:].T.reshape(8, *grid), expected[0], atol=1e-6)
    plain = resize_positions(table, (4, 4), grid, num_prefix=1, mode="size")
    assert not torch.allclose(plain, found, atol=1e-3)


def test_transposed_image_and_positions_give_transposed_features(tools):
    import copy

    # in fp32 the blocks alone differ by more, as their sums run in another order
    model = tools.exact()
    turned = copy.deepcopy(model)
    visual = turned.visual
    visual.conv1.weight.copy_(model.visual.conv1.weight.mT)
    table = model.visual.positional_embedding
    visual.positional_embedding[1:] = table[1:].unflatten(0, (4, 4)).transpose(0, 1).flatten(0, 1)
    images = tools.image(1, 3, 40, 24)
    attention = build_attention(ITACLIPConfig.preset("itaclip").attention)
    upright = build_encoder(model)(images, attention, positions="size")
    across = build_encoder(turned)(images.mT, attention, positions="size")
    assert torch.allclose(across, upright.mT, atol=1e-6, rtol=0)


def test_transposed_positions_are_positions_of_a_transposed_grid():
    table = noise(17, 8)
    turned = torch.cat([table[:1], table[1:].unflatten(0, (4, 4)).transpose(0, 1).flatten(0, 1)])
    upright = resize_positions(table, (4, 4), (5, 3), num_prefix=1, mode="size")
    across = resize_positions(turned, (4, 4), (3, 5), num_prefix=1, mode="size")
    expected = upright[1:].unflatten(0, (5, 3)).transpose(0, 1).flatten(0, 1)
    assert torch.allclose(across[1:], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["legacy", "size"])
def test_positions_keep_their_dtype(mode):
    table = noise(17, 8).double()
    exact = resize_positions(table, (4, 4), (5, 3), num_prefix=1, mode=mode)
    assert exact.dtype == torch.float64
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.05)):
        found = resize_positions(table.to(dtype), (4, 4), (5, 3), num_prefix=1, mode=mode)
        assert found.dtype == dtype
        assert torch.allclose(found.double(), exact, atol=tolerance)


def test_gaussian_bias():
    bias = gaussian_bias((4, 5), 1, 5.0)
    assert bias.shape == (21, 21)
    assert not bias[0].any()
    assert not bias[:, 0].any()
    assert torch.equal(bias[1:, 1:].diagonal(), torch.ones(20))
    # from the first to the last patch: 3 down, 4 across
    assert bias[1, 20].item() == pytest.approx(math.exp(-0.5))
