# SPDX-License-Identifier: Apache-2.0
"""Regions become tokens by the pooling that is stated (checks 8, 9, 10, 11)."""

import numpy as np
import pytest
import torch
from vitron.model.regions import (
    PublishedRegionEncoder,
    RegionEncoder,
    make_region_encoder,
    mask_boxes,
    mask_weights,
    pool_masks,
)

GRID = 4
SQUARE = (GRID, GRID)


@pytest.fixture(scope="module")
def patches():
    return torch.randn(1, GRID, GRID, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RegionEncoder(6, 10).double()


def test_a_token_is_the_mlp_of_the_mean_plus_the_place(patches, encoder):
    mask = torch.zeros(1, 32, 32)
    mask[0, 8:24, 16:32] = 1  # patches of rows 1 and 2, columns 2 and 3
    mean = patches[:, 1:3, 2:4].mean((1, 2))
    box = torch.tensor([[0.5, 0.25, 1.0, 0.75]], dtype=torch.float64)
    wanted = encoder.features(mean) + encoder.location(box)
    torch.testing.assert_close(encoder(patches, mask), wanted, rtol=1e-9, atol=1e-9)


def test_a_full_mask_is_the_plain_mean_and_one_patch_is_itself(patches):
    full = mask_weights(torch.ones(1, 32, 32), SQUARE).double()
    torch.testing.assert_close(pool_masks(patches.flatten(1, 2), full), patches.mean((1, 2)))
    one = torch.zeros(1, 32, 32)
    one[0, 8:16, 24:32] = 1
    found = pool_masks(patches.flatten(1, 2), mask_weights(one, SQUARE).double())
    torch.testing.assert_close(found, patches[:, 1, 3])


def test_soft_weighs_by_the_covered_share_and_any_counts_whole(patches):
    mask = torch.zeros(1, 32, 32)
    mask[0, 0:8, 0:10] = 1  # the first patch, and a quarter of the next
    soft, hard = (mask_weights(mask, SQUARE, mode).double() for mode in ("soft", "any"))
    assert soft[0, :3].tolist() == [1, 0.25, 0]
    assert hard[0, :3].tolist() == [1, 1, 0]
    wanted = (patches[:, 0, 0] + 0.25 * patches[:, 0, 1]) / 1.25
    torch.testing.assert_close(pool_masks(patches.flatten(1, 2), soft), wanted)


def test_an_empty_mask_is_zeros(patches):
    empty = torch.zeros(1, 32, 32)
    assert pool_masks(patches.flatten(1, 2), mask_weights(empty, SQUARE).double()).abs().max() == 0
    assert mask_boxes(empty).tolist() == [[0, 0, 0, 0]]


def test_turning_image_and_box_together_keeps_the_features(patches):
    encoder = RegionEncoder(6, 10, location=False).double()
    mask = torch.zeros(1, 32, 32)
    mask[0, 4:20, 8:30] = 1
    turned = torch.rot90(patches, 1, (1, 2))
    torch.testing.assert_close(encoder(turned, torch.rot90(mask, 1, (1, 2))), encoder(patches, mask))


def test_places_are_left_top_right_bottom():
    mask = torch.zeros(1, 10, 10)
    mask[0, 2:5, 6:9] = 0.5
    torch.testing.assert_close(mask_boxes(mask), torch.tensor([[0.6, 0.2, 0.9, 0.5]]))


def test_the_published_encoder_takes_corners_between_pixels(patches):
    encoder = PublishedRegionEncoder(6, 10).double()
    mask = torch.zeros(2, 32, 32)
    mask[:, 4:20, 8:30] = 1
    unknown, box = [float("nan")] * 4, [0.26, 0.13, 0.94, 0.63]
    found = encoder(patches.repeat(2, 1, 1, 1), mask, torch.tensor([unknown, box]))
    torch.testing.assert_close(found[0], encoder(patches, mask[:1])[0])
    around, given = (
        encoder.location(each.double() * 32) for each in (mask_boxes(mask[:1]), torch.tensor([box]))
    )
    torch.testing.assert_close(found[1] - found[0], (given - around)[0], rtol=1e-6, atol=1e-6)


def test_maps_need_not_be_square(encoder):
    maps = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    mask = torch.zeros(1, 16, 40)
    mask[0, 8:, 24:32] = 1
    box = torch.tensor([[0.6, 0.5, 0.8, 1.0]], dtype=torch.float64)
    wanted = encoder.features(maps[:, 1, 3]) + encoder.location(box)
    torch.testing.assert_close(encoder(maps, mask), wanted, rtol=1e-6, atol=1e-6)


def read_at_centres(mask, grid):
    """Return which centres of patches meet any of a mask, by bilinear reading, cell by cell."""
    side = mask.shape[0]
    found = np.zeros((grid, grid), dtype=bool)
    for row in range(grid):
        for column in range(grid):
            y, x = ((place + 0.5) * side / grid - 0.5 for place in (row, column))
            rows = {int(np.floor(y)), int(np.ceil(y))}
            columns = {int(np.floor(x)), int(np.ceil(x))}
            found[row, column] = any(mask[i, j] > 0 for i in rows for j in columns)
    return found


def mlp(layers, value):
    """Return what linear layers with ReLUs between them make of a vector."""
    matrices = [each for each in layers if isinstance(each, torch.nn.Linear)]
    for number, layer in enumerate(matrices):
        value = layer.weight.detach().numpy() @ (np.maximum(value, 0) if number else value)
        value = value + layer.bias.detach().numpy()
    return value


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("box", [(8, 4, 30, 20), (0, 0, 32, 32), (3, 20, 31, 25)])
def test_the_published_encoder_in_both_orders_of_axes(patches, box, mirrored):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = PublishedRegionEncoder(6, 10, mirrored=mirrored).double()
    left, top, right, bottom = box
    mask = torch.zeros(1, 32, 32)
    mask[0, top:bottom, left:right] = 1
    seen = read_at_centres(mask[0].T.numpy() if mirrored else mask[0].numpy(), GRID).ravel()
    mean = patches[0].flatten(0, 1).numpy()[seen].sum(0) / (seen.sum() + 1e-8)
    wanted = mlp(encoder.features, mean) + mlp(encoder.location, np.array(box, dtype=np.float64))
    np.testing.assert_allclose(encoder(patches, mask)[0].detach().numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_the_published_encoder_has_the_published_size_and_misses_thin_masks():
    with torch.device("meta"):
        encoder = PublishedRegionEncoder(1024, 4096)
    assert sum(each.numel() for each in encoder.parameters()) == 46_163_968
    thin = torch.zeros(1, 32, 32)
    thin[0, :, 8] = 1  # between two centres, which read columns 3, 4 and 11, 12
    assert mask_weights(thin, SQUARE, "sampled").sum() == 0
    assert mask_weights(thin, SQUARE, "any").sum() == GRID


def test_an_unknown_form_is_told():
    assert isinstance(make_region_encoder("vitron", 6, 10), RegionEncoder)
    assert make_region_encoder("published-mirrored", 6, 10).mirrored
    with pytest.raises(ValueError, match="region_form must be vitron, published"):
        make_region_encoder("osprey", 6, 10)
