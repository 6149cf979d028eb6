# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from pixelsmith.adapters.conditioning import Placement

SIZES = {"size": (4096, 2048), "base_size": (1024, 1024), "patch_size": (1024, 1024), "vae_scale_factor": 8}


@pytest.mark.parametrize(
    ("policy", "ids"),
    [
        ("true", [4096, 2048, 80, 16, 4096, 2048]),
        ("official", [4096, 2048, 16, 16, 4096, 2048]),
        ("base", [1024, 1024, 20, 8, 1024, 1024]),
        ("none", [1024, 1024, 0, 0, 1024, 1024]),
    ],
)
def test_time_ids(policy, ids):
    found = Placement(policy=policy, **SIZES).time_ids([(10, 2), (0, 0)])
    assert found[0].tolist() == ids
    assert found.shape == (2, 6)
    assert found.dtype == torch.float32


def test_large_images_keep_their_size():
    ids = Placement(**{**SIZES, "size": (99_999, 70_001)}).time_ids([(12_345, 6)])
    assert ids.tolist() == [[99_999, 70_001, 98_760, 48, 99_999, 70_001]]
