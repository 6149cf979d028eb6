# SPDX-License-Identifier: Apache-2.0
"""Frames are pooled and patches joined as stated (check 22)."""

import pytest
import torch
from torch import nn
from vitron.model.vision import make_projector, merge_patches, pool_frames


@pytest.fixture
def frames():
    return torch.randn(6, 16, 3, generator=torch.Generator().manual_seed(0))


def test_a_video_of_one_frame_or_of_equal_frames_is_the_image(frames):
    one = frames[:1]
    torch.testing.assert_close(pool_frames(one, torch.tensor([1]), "mean"), one)
    torch.testing.assert_close(pool_frames(one.expand(4, -1, -1), torch.tensor([4]), "mean"), one)


def test_the_mean_does_not_mind_the_order_and_frames_do(frames):
    counts, mixed = torch.tensor([2, 4]), frames[[1, 0, 5, 3, 2, 4]]
    torch.testing.assert_close(pool_frames(frames, counts, "mean"), pool_frames(mixed, counts, "mean"))
    assert not torch.equal(pool_frames(frames, counts, "none"), pool_frames(mixed, counts, "none"))
    assert not torch.allclose(pool_frames(frames, counts, "every-2"), pool_frames(mixed, counts, "every-2"))


def test_every_k_keeps_media_apart_and_takes_what_is_left(frames):
    found = pool_frames(frames, torch.tensor([1, 5]), "every-2")
    wanted = [frames[:1], frames[1:3], frames[3:5], frames[5:]]
    torch.testing.assert_close(found, torch.stack([part.mean(0) for part in wanted]))


def test_merging_loses_nothing(frames):
    merged = merge_patches(frames, 2)
    assert merged.shape == (6, 4, 12)
    grid = frames.view(6, 4, 4, 3)
    torch.testing.assert_close(merged[:, 1].view(6, 2, 2, 3), grid[:, 0:2, 2:4])


def test_projectors_by_name():
    assert isinstance(make_projector("identity", 4, 4), nn.Identity)
    layers = make_projector("mlp3x_gelu", 4, 8)
    assert [type(each) for each in layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    for name, width in (("identity", 5), ("mlp", 4), ("mlp0x_gelu", 4), ("conv", 4)):
        with pytest.raises(ValueError, match="projector"):
            make_projector(name, width, 4)
