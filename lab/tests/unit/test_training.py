# SPDX-License-Identifier: Apache-2.0
import csv

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from recipes.training import CHECKPOINT, Run, ScheduledModule, fit
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec.:FutureWarning"
)  # Lightning 2.6


class Line(ScheduledModule):
    """Learns a line from numbered points; remembers what it was shown and at which rate."""

    def __init__(self, steps):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.steps, self.seen, self.rates, self.judged = nn.Linear(2, 1), steps, [], [], []

    def rate(self, step):
        return 0.1 * (1 - step / self.steps)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1.0)

    def training_step(self, batch, _):
        self.seen.append(int(batch[0, 0]))
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        loss = F.mse_loss(self.layer(torch.sin(batch)), batch[:, :1] / 10)
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch, _):
        self.judged.append((self.global_step, self.layer.weight.clone()))
        self.log("figure", self.layer(batch).mean(), batch_size=1)


def batch_of(step):
    return torch.tensor([[step, 1.0], [step, -1.0]])


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def ema():
    return EMAWeightAveraging(decay=0.5)


@pytest.mark.parametrize("mean", [ema, lambda: None])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, mean):
    whole = Line(8)
    fit(whole, batch_of, tmp_path / "whole", Run(steps=8, save_every=2, device="cpu"), mean=mean())

    def dying(step):
        if step == 5:
            raise OSError("killed")
        return batch_of(step)

    first, second = Line(8), Line(8)
    run = Run(steps=8, save_every=2, device="cpu")
    with pytest.raises(OSError, match="killed"):
        fit(first, dying, tmp_path / "parts", run, mean=mean())
    fit(second, batch_of, tmp_path / "parts", run, mean=mean())
    assert whole.seen == list(range(8))
    assert (first.seen[:4], second.seen) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert whole.rates[4:] == second.rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])
    assert torch.equal(weights(whole), weights(second))


def test_a_stopped_run_goes_on_and_may_be_made_longer(tmp_path):
    first, second = Line(6), Line(6)
    fit(first, batch_of, tmp_path, Run(steps=6, stop_at=3, save_every=2, device="cpu"))
    fit(second, batch_of, tmp_path, Run(steps=6, save_every=2, device="cpu"))
    assert (first.seen, second.seen) == ([0, 1, 2], [3, 4, 5])
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["global_step"] == 6
    assert state["callbacks"]["Timer"]["time_elapsed"]["train"] > 0


def test_a_finished_run_gives_its_mean_again(tmp_path):
    run = Run(steps=4, save_every=4, device="cpu")
    done, again = Line(4), Line(4)
    fit(done, batch_of, tmp_path, run, mean=ema())
    fit(again, batch_of, tmp_path, run, mean=ema())
    assert again.seen == []
    assert torch.equal(weights(done), weights(again))
    stored = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert not torch.equal(stored["current_model_state"]["layer.weight"], done.layer.weight)


def test_validation_uses_the_mean_and_is_logged_beside_the_loss(tmp_path):
    module = Line(4)
    run = Run(steps=4, save_every=2, log_every=1, device="cpu")
    fit(module, batch_of, tmp_path, run, mean=ema(), examples=[torch.ones(1, 2)])
    assert [step for step, _ in module.judged] == [2, 4]
    assert torch.equal(module.judged[-1][1], module.layer.weight)
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["figure"]) for row in rows) == 2
    assert sum(bool(row["loss_step"]) for row in rows) == 4


def test_workers_keep_the_order(tmp_path):
    module = Line(5)
    fit(module, batch_of, tmp_path, Run(steps=5, save_every=3, device="cpu", workers=2))
    assert module.seen == [0, 1, 2, 3, 4]
