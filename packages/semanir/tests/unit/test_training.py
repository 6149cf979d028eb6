# SPDX-License-Identifier: Apache-2.0
import pytest
import pytorch_lightning as pl
import torch
from semanir import SemanIR, SemanIRConfig
from semanir.metrics import psnr
from semanir.training import SemanIRModule, warmup_stable_decay
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    # Lightning 2.6 against the newest torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
]


def network() -> SemanIR:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = SemanIRConfig.preset(
            "tiny", embed_dims=(16, 16), num_heads=(1, 1), depths=(1, 1, 1, 1), window_size=4, k=8
        )
        return SemanIR(config)


def fit(model: nn.Module, data: TensorDataset, tmp_path, steps: int, **options: object) -> SemanIRModule:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    module = SemanIRModule(model, optimizer, max_steps=steps, warmup_steps=5, **options)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(data, batch_size=2))
    return module


def test_overfits_one_pair(tmp_path):
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(1, 3, 4, 4, generator=generator)
    clean = nn.functional.interpolate(smooth, size=(32, 32), mode="bicubic").clamp(0, 1)
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=generator)
    model = network()
    fit(model, TensorDataset(noisy, clean), tmp_path, steps=250)
    before, after = psnr(noisy, clean).item(), psnr(model(noisy), clean).item()
    assert before < 15
    assert after > 30


def test_random_k_draws_the_same_on_every_rank(tmp_path):
    drawn: list[int] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor, *, k: int) -> torch.Tensor:
            drawn.append(k)
            return x * self.weight

    data = TensorDataset(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    fit(Spy(), data, tmp_path, steps=20, random_k=(2, 4, 8))
    first = list(drawn)
    drawn.clear()
    torch.manual_seed(99)
    fit(Spy(), data, tmp_path, steps=20, random_k=(2, 4, 8))
    assert drawn == first
    assert set(first) == {2, 4, 8}


def test_schedule_rises_holds_and_falls():
    def factor(step: int) -> float:
        return warmup_stable_decay(step, max_steps=100, warmup_steps=10, decay_fraction=0.2)

    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(50) == factor(80) == 1
    assert factor(90) == pytest.approx(0.5)
    assert factor(100) == 0


def test_validation_reports_the_mean_of_the_images(tmp_path):
    clean = torch.zeros(2, 3, 8, 8)
    noisy = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.01)])
    module = SemanIRModule(nn.Identity(), torch.optim.SGD([nn.Parameter(torch.ones(1))]), max_steps=1)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    [result] = trainer.validate(module, DataLoader(TensorDataset(noisy, clean), batch_size=2), verbose=False)
    assert result["val/psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
