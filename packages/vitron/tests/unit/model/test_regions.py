# SPDX-License-Identifier: Apache-2.0
"""Regions become tokens by the pooling that is stated (checks 8, 10, 11)."""

import pytest
import torch
from vitron.model.regions import RegionEncoder, mask_weights, places, pool_masks

GRID = 4


@pytest.fixture(scope="module")
def patches():
    return torch.randn(1, GRID * GRID, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RegionEncoder(6, 10).double()


def test_a_token_is_the_mlp_of_the_mean_plus_the_place(patches, encoder):
    mask = torch.zeros(1, 32, 32)
    mask[0, 8:24, 16:32] = 1  # patches of rows 1 and 2, columns 2 and 3
    mean = patches.view(1, GRID, GRID, 6)[:, 1:3, 2:4].mean((1, 2))
    box = torch.tensor([[0.5, 0.25, 1.0, 0.75]], dtype=torch.float64)
    wanted = encoder.features(mean) + encoder.location(box)
    torch.testing.assert_close(encoder(patches, mask), wanted, rtol=1e-9, atol=1e-9)


def test_a_full_mask_is_the_plain_mean_and_one_patch_is_itself(patches):
    full = mask_weights(torch.ones(1, 32, 32), GRID).double()
    torch.testing.assert_close(pool_masks(patches, full), patches.mean(1))
    one = torch.zeros(1, 32, 32)
    one[0, 8:16, 24:32] = 1
    torch.testing.assert_close(pool_masks(patches, mask_weights(one, GRID).double()), patches[:, GRID + 3])


def test_soft_weighs_by_the_covered_share_and_any_counts_whole(patches):
    mask = torch.zeros(1, 32, 32)
    mask[0, 0:8, 0:10] = 1  # the first patch, and a quarter of the next
    soft, hard = (mask_weights(mask, GRID, mode).double() for mode in ("soft", "any"))
    assert soft[0, :3].tolist() == [1, 0.25, 0]
    assert hard[0, :3].tolist() == [1, 1, 0]
    wanted = (patches[:, 0] + 0.25 * patches[:, 1]) / 1.25
    torch.testing.assert_close(pool_masks(patches, soft), wanted)


def test_an_empty_mask_is_zeros(patches):
    empty = torch.zeros(1, 32, 32)
    assert pool_masks(patches, mask_weights(empty, GRID).double()).abs().max() == 0
    assert places(empty).tolist() == [[0, 0, 0, 0]]


def test_turning_picture_and_box_together_keeps_the_features(patches):
    encoder = RegionEncoder(6, 10, location=False).double()
    mask = torch.zeros(1, 32, 32)
    mask[0, 4:20, 8:30] = 1
    turned = torch.rot90(patches.view(1, GRID, GRID, 6), 1, (1, 2)).reshape(1, -1, 6)
    torch.testing.assert_close(encoder(turned, torch.rot90(mask, 1, (1, 2))), encoder(patches, mask))


def test_places_are_left_top_right_bottom():
    mask = torch.zeros(1, 10, 10)
    mask[0, 2:5, 6:9] = 0.5
    torch.testing.assert_close(places(mask), torch.tensor([[0.6, 0.2, 0.9, 0.5]]))
