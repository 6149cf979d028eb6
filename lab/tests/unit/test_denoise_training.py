# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from recipes.tiny_denoise import training
from recipes.tiny_denoise.conv_unet import ConvUNet
from recipes.tiny_denoise.module import warmup_stable_decay
from recipes.tiny_denoise.training import NoisyCrops, train
from recipes.training import Run
from safetensors.torch import load_file


@pytest.fixture
def pool(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    np.save(tmp_path / "pool.npy", images)
    return tmp_path / "pool.npy"


def test_a_batch_holds_the_samples_of_its_step(pool):
    crops = NoisyCrops(pool, 16, 4, seed=2)
    noisy, clean = crops(3)
    assert noisy.shape == clean.shape == (4, 3, 16, 16)
    assert torch.equal(noisy[1], crops.sample(13)[0])
    assert torch.equal(clean[1], crops.sample(13)[1])
    assert not torch.equal(noisy, crops(4)[0])


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
def test_a_killed_run_resumes_to_the_same_network(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Run", lambda **o: Run(**o | {"save_every": 2, "device": "cpu"}))
    monkeypatch.setattr(training, "build", lambda network: ConvUNet())
    options = {"max_steps": 4, "batch_size": 2, "crop": 32}
    draw = NoisyCrops.__call__

    def dying(self, step):
        if step == 3:
            raise OSError("killed")
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(NoisyCrops, "__call__", dying)
        with pytest.raises(OSError, match="killed"):
            train("conv", pool=pool, output=tmp_path / "parts", **options)
    for name in ("whole", "parts"):
        train("conv", pool=pool, output=tmp_path / name, **options)
    whole, parts = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_schedule_rises_holds_and_falls():
    def factor(step: int) -> float:
        return warmup_stable_decay(step, max_steps=100, warmup_steps=10, decay_fraction=0.2)

    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(50) == factor(80) == 1
    assert factor(90) == pytest.approx(0.5)
    assert factor(100) == 0
