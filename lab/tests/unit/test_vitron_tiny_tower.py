# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from recipes.vitron_tiny.building import tower_config
from recipes.vitron_tiny.tasks import draw_example
from recipes.vitron_tiny.tower import distil_tower, read_tower
from transformers import InternVLVisionModel


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.from_numpy(np.stack([draw_example("caption", 3, index).media[0].data for index in range(8)]))


def test_the_folded_tower_is_close_to_that_of_clip_and_distillation_brings_it_closer(frames, tmp_path):
    before = distil_tower(frames, tmp_path / "short", steps=1, batch_size=8)
    after = distil_tower(frames, tmp_path / "long", steps=25, batch_size=8)
    assert before < 0.2
    assert after < before


def test_weights_fit_the_tower(frames, tmp_path):
    distil_tower(frames, tmp_path, steps=1, batch_size=8)
    InternVLVisionModel(tower_config()).load_state_dict(read_tower(tmp_path))
    assert read_tower(tmp_path / "none") is None


def test_frames_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="64, 64"):
        distil_tower(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), tmp_path, steps=1)
