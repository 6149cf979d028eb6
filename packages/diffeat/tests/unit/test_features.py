# SPDX-License-Identifier: Apache-2.0
"""The mapping of features."""

import pytest
import torch
from diffeat import ActivationName, ExtractionOptions, Features
from diffeat.features import FeaturesMeta
from diffeat.schedule import NoiseLevel


def features(**tensors):
    meta = FeaturesMeta(
        options=ExtractionOptions(size=(64, 64)),
        noise_levels=(NoiseLevel(timestep=50, effective=51.0, signal=0.9, noise=0.2),),
        image_hashes=("",),
        model="tiny",
    )
    return Features({name.replace("_", "-"): tensor for name, tensor in tensors.items()}, meta)


def test_a_mapping_by_text_and_by_name():
    found = features(unet_in=torch.rand(1, 4, 8, 8), unet_out=torch.rand(1, 4, 8, 8))
    assert list(found) == ["unet-in", "unet-out"]
    assert len(found) == 2
    assert found[ActivationName("unet", "in")] is found["unet-in"]
    assert found.at(50) is found
    with pytest.raises(KeyError):
        found["vae-out"]


def test_one_size_for_all():
    found = features(unet_in=torch.ones(1, 4, 8, 8), unet_out=torch.ones(1, 2, 3, 5))
    resized = found.resize((6, 4))
    assert [tuple(tensor.shape) for tensor in resized.values()] == [(1, 4, 6, 4), (1, 2, 6, 4)]
    assert found.resize(8)["unet-in"] is found["unet-in"]
    with pytest.raises(ValueError, match=r"unet-in must be \(batch, channels, height, width\) here"):
        features(unet_in=torch.ones(1, 2, 3)).resize(4)


def test_channels_side_by_side():
    small, large = torch.rand(2, 3, 2, 4), torch.rand(2, 5, 4, 8)
    found = features(unet_in=small, unet_out=large)
    whole = found.concat()
    assert whole.shape == (2, 8, 4, 8)
    assert torch.equal(whole[:, 3:], large)
    assert torch.equal(found.concat(["unet-out", "unet-in"])[:, :5], large)
    assert found.concat(side=6).shape == (2, 8, 6, 12)
    with pytest.raises(KeyError):
        found.concat(["vae-out"])
    with pytest.raises(ValueError, match="at least one activation"):
        found.concat([])


def test_moving_and_casting():
    assert features(unet_in=torch.rand(1, 4, 8, 8)).to(dtype=torch.float16)["unet-in"].dtype == torch.float16
