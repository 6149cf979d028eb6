# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.cli import LightningCLI, ReduceLROnPlateau
from semanir import SemanIR
from semanir.cli import app
from semanir.data import CropOptions
from semanir.degradations import GaussianNoise
from semanir.metrics import psnr
from semanir.restorer import Restorer
from semanir.training import SampleImages, SemanIRData, SemanIRModule, fit
from semanir.training.callbacks import side_by_side
from semanir.training.module import charbonnier_loss, step_factor
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .training_drill import NETWORK, train

pytestmark = [
    # Lightning 2.6 against the newest torch
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
]

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def module(**options):
    pl.seed_everything(0, verbose=False)
    return SemanIRModule("tiny", NETWORK | options.pop("network", {}), **options)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((40, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


class TestModule:
    def test_overfits_one_pair(self):
        generator = torch.Generator().manual_seed(0)
        smooth = torch.rand(1, 3, 4, 4, generator=generator)
        clean = nn.functional.interpolate(smooth, size=(16, 16), mode="bicubic").clamp(0, 1)
        noisy = clean + 0.2 * torch.randn(clean.shape, generator=generator)
        fitted = module(learning_rate=1e-2, milestones=[160, 220], gamma=0.2, warmup_steps=5)
        optimizers = fitted.configure_optimizers()
        for _ in range(260):
            optimizers["optimizer"].zero_grad()
            fitted.loss(fitted.network(noisy), clean).backward()
            optimizers["optimizer"].step()
            optimizers["lr_scheduler"]["scheduler"].step()
        assert psnr(noisy, clean).item() < 15
        assert psnr(fitted(noisy), clean).item() > 40

    def test_charbonnier_is_its_formula(self):
        restored, clean = (torch.rand(50, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
        d = (restored - clean).double()
        expected = (d**2 + 0.03**2).sqrt().mean()
        assert charbonnier_loss(restored, clean, 0.03).item() == pytest.approx(expected.item(), rel=1e-6)
        assert charbonnier_loss(clean, clean, 0.03).item() == pytest.approx(0.03)
        assert charbonnier_loss(restored.bfloat16(), clean).dtype == torch.float32

    def test_the_rate_rises_and_drops_at_milestones(self):
        def factor(step):
            return step_factor(step, milestones=[10, 20], gamma=0.5, warmup_steps=4)

        found = [factor(step) for step in (0, 1, 4, 9, 10, 19, 20, 99)]
        assert found == pytest.approx([0.2, 0.4, 1, 1, 0.5, 0.5, 0.25, 0.25])

    def test_the_same_keys_on_every_rank_and_all_of_them(self):
        one, other = module(random_k=[2, 4, 8]), module(random_k=[2, 4, 8])
        torch.manual_seed(99)
        drawn = [one.draw_k(step) for step in range(40)]
        assert drawn == [other.draw_k(step) for step in range(40)]
        assert set(drawn) == {2, 4, 8}
        assert module().draw_k(0) is None

    def test_a_drawn_k_is_a_fixed_k(self):
        batch = tuple(torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
        drawn, fixed = module(random_k=[4]), module(network={"k": 4})
        for each in (drawn, fixed):
            each.log = lambda *_, **__: None
            each.trainer = SimpleNamespace(global_step=0)
        losses = [each.loss(each.network(batch[0], k=each.draw_k(7)), batch[1]) for each in (drawn, fixed)]
        assert losses[0] == losses[1]

    def test_checkpointing_gives_the_same_gradients(self):
        x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        grads = []
        for enabled in (False, True):
            each = module(gradient_checkpointing=enabled)
            each.network(x).square().mean().backward()
            grads.append([p.grad for p in each.network.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))

    def test_validation_reports_the_mean_of_the_images(self, tmp_path):
        clean = torch.zeros(3, 3, 8, 8)
        noisy = torch.stack([torch.full((3, 8, 8), value / 255) for value in (25.4, 2.6, 0.0)])
        fitted = module()
        fitted.network.forward = lambda x, k=None: x
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
        )
        data = DataLoader(TensorDataset(noisy, clean), batch_size=2)
        [result] = trainer.validate(fitted, data, verbose=False)
        by_hand = (20 * np.log10(255 / 25) + 20 * np.log10(255 / 3) + 100) / 3
        assert result["val/psnr"] == pytest.approx(by_hand, abs=1e-4)

    def test_weights_of_another_scale_are_a_start(self, tmp_path):
        network = {"embed_dims": [8], "num_heads": [1], "depths": [1], "window_size": 4, "k": 8}
        first = SemanIRModule("sr-small", network | {"upscale": 2}).network
        first.save_pretrained(tmp_path / "x2")
        started = SemanIRModule("sr-small", network | {"upscale": 3}, weights=str(tmp_path / "x2"))
        assert torch.equal(started.network.conv_first.weight, first.conv_first.weight)

    def test_a_checkpoint_needs_its_path_alone(self, tmp_path):
        trained = module(random_k=(4, 8), optimizer=partial(torch.optim.SGD, lr=0.1))
        x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        trainer = pl.Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **QUIET)
        trainer.fit(trained, DataLoader(TensorDataset(x, 1 - x), batch_size=2))
        trainer.save_checkpoint(tmp_path / "one.ckpt")
        loaded = SemanIRModule.load_from_checkpoint(tmp_path / "one.ckpt", map_location="cpu")
        assert loaded.hparams == trained.hparams
        stored = trained.network.state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in loaded.network.state_dict().items())

    def test_optimizer_and_scheduler_can_be_given(self):
        given = module(
            optimizer=partial(torch.optim.SGD, lr=0.1),
            scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=3),
        ).configure_optimizers()
        assert type(given["optimizer"]) is torch.optim.SGD
        assert type(given["lr_scheduler"]["scheduler"]) is torch.optim.lr_scheduler.StepLR
        assert given["lr_scheduler"]["interval"] == "step"
        waiting = partial(ReduceLROnPlateau, monitor="val/psnr", mode="max")
        assert module(scheduler=waiting).configure_optimizers()["lr_scheduler"]["monitor"] == "val/psnr"
        own = module(learning_rate=3e-4).configure_optimizers()["optimizer"]
        assert (type(own), own.defaults["lr"]) == (torch.optim.AdamW, 3e-4)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": "l2"}, "loss must be"),
            ({"milestones": [3, 1]}, "milestones must ascend"),
            ({"random_k": [0]}, "random_k must be"),
            ({"network": {"depth": 3}}, "no field depth"),
        ],
    )
    def test_wrong_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            SemanIRModule("tiny", **options)


@pytest.mark.parametrize(("wanted", "found"), [(0, 0), (1, 1), (8, 2)])
def test_readers_stay_between_epochs_and_are_no_more_than_processors(images, monkeypatch, wanted, found):
    monkeypatch.setattr("semanir.training.datamodule.os.cpu_count", lambda: 2)
    noise = GaussianNoise(sigma=5)
    data = SemanIRData([str(images)], degradation=noise, crops=CropOptions(patch_size=8), num_workers=wanted)
    data.setup("fit")
    loader = data.train_dataloader()
    assert (loader.num_workers, loader.persistent_workers) == (found, found > 0)


def test_samples_stand_side_by_side():
    small, large = torch.zeros(1, 4, 6), torch.ones(3, 8, 12)
    strip = side_by_side(small, 0.5 * large, large)
    assert strip.shape == (8, 36, 3)
    assert [int(strip[4, x, 0]) for x in (6, 18, 30)] == [0, 128, 255]


def test_samples_go_to_the_logger(tmp_path):
    shown = []
    logger = SimpleNamespace(log_image=lambda **call: shown.append(call), experiment=None)
    trainer = SimpleNamespace(
        is_global_zero=True, sanity_checking=False, global_step=7, loggers=[logger], default_root_dir=tmp_path
    )
    batch = (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    callback = SampleImages(count=1)
    for number in (0, 1):
        callback.on_validation_batch_end(trainer, None, batch[0], batch, number)
    assert [(call["key"], call["step"]) for call in shown] == [("val/sample-0", 7)]
    assert list(tmp_path.iterdir()) == []


class TestTwoProcesses:
    def test_gradients_are_those_of_one_process_on_the_joined_batch(self, images, tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        launched = own | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        program = Path(__file__).with_name("training_drill.py")
        ranks = [
            subprocess.Popen(
                [sys.executable, str(program), str(images), str(tmp_path)],
                env=os.environ | launched | {"LOCAL_RANK": rank, "NODE_RANK": "0"},
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for rank in ("0", "1")
        ]
        one = train(images, tmp_path, devices=1, batch_size=2)
        errors = [rank.communicate(timeout=600)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], errors
        two = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
        assert one.keys == two[0]["keys"] == two[1]["keys"]
        # one k for all ranks, and not always the same
        assert len(one.steps) == len(two[0]["steps"]) == 2
        for alone, *both in zip(one.steps, two[0]["steps"], two[1]["steps"], strict=True):
            assert alone
            for name, gradient in alone.items():
                for each in both:
                    assert torch.allclose(each[name], gradient, rtol=1e-4, atol=1e-7), name


CONFIG = """
seed_everything: 1
model:
  preset: tiny
  network: {network}
  random_k: [4, 8]
data:
  train: [{images}]
  validation: [{images}]
  degradation:
    class_path: semanir.degradations.OneOf
    init_args:
      choices:
      - {{class_path: semanir.degradations.GaussianNoise, init_args: {{sigma: 5, sigma_max: 50}}}}
      - {{class_path: semanir.degradations.JPEG, init_args: {{quality: 20}}}}
  crops: {{patch_size: 16}}
  batch_size: 2
  num_workers: 0
trainer:
  accelerator: cpu
  max_steps: 7
  val_check_interval: 3
  check_val_every_n_epoch: null
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger: {{class_path: pytorch_lightning.loggers.CSVLogger, init_args: {{save_dir: "{output}"}}}}
  callbacks:
  - {{class_path: semanir.training.AverageWeights, init_args: {{decay: 0.999}}}}
  - {{class_path: semanir.training.LastCheckpoint, init_args: {{every_n_train_steps: {every}}}}}
  - class_path: semanir.training.SampleImages
  - class_path: semanir.training.SaveNetwork
"""


class TestFit:
    @pytest.fixture
    def configured(self, images, tmp_path):
        def make(output, every=2):
            path = tmp_path / f"{output.name}.yaml"
            path.write_text(CONFIG.format(network=NETWORK, images=images, output=output, every=every))
            return str(path)

        return make

    @pytest.mark.parametrize("stop", [1, 2, 5])  # in an epoch, at its end (two batches), in a later one
    def test_a_stopped_run_resumes_to_the_losses_of_an_uninterrupted_one(
        self, configured, tmp_path, stop, monkeypatch
    ):
        losses = {}
        step = SemanIRModule.training_step

        def spy(self, batch, batch_idx):
            loss = step(self, batch, batch_idx)
            losses.setdefault(current, {})[self.global_step] = loss.item()
            if current == "cut" and self.global_step == stop + 1:
                raise OSError("the power is gone")
            return loss

        monkeypatch.setattr(SemanIRModule, "training_step", spy)
        current = "whole"
        fit(configured(tmp_path / "whole", every=1), tmp_path / "whole")
        current = "cut"
        with pytest.raises(OSError, match="power"):
            fit(configured(tmp_path / "cut", every=1), tmp_path / "cut")
        shutil.rmtree(tmp_path / "cut" / "samples", ignore_errors=True)
        current = "resumed"
        fit(configured(tmp_path / "cut", every=1), tmp_path / "cut")
        due = {f"{number}-step-{step}.png" for number in range(4) for step in (3, 6) if step > stop + 1}
        assert due <= {file.name for file in (tmp_path / "cut" / "samples").glob("*")}
        assert sorted(losses["whole"]) == list(range(7))
        assert sorted(losses["resumed"]) == list(range(stop + 1, 7))
        assert losses["resumed"] == {n: losses["whole"][n] for n in losses["resumed"]}
        whole, resumed = (
            SemanIR.from_pretrained(tmp_path / name / "model", device="cpu").state_dict()
            for name in ("whole", "cut")
        )
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def test_the_command_trains_and_its_results_load(self, configured, tmp_path, capfd):
        output = tmp_path / "run"
        code = run_app(
            app, ["fit", "--config", configured(output), "-o", str(output), "--trainer.max_steps", "3"]
        )
        out, err = capfd.readouterr()
        assert code == 0, err
        assert f"model: {output / 'model'}" in out
        restorer = Restorer.from_pretrained(output / "model", device="cpu")
        assert restorer.restore(np.zeros((9, 7, 3), np.uint8)).shape == (9, 7, 3)
        loaded = SemanIRModule.load_from_checkpoint(output / "last.ckpt", map_location="cpu")
        assert loaded.network.config == restorer.model.config
        assert loaded.hparams["random_k"] == [4, 8]
        samples = sorted(file.name for file in (output / "samples").iterdir())
        assert samples == [f"{number}-step-3.png" for number in range(4)]
        stored = torch.load(output / "last.ckpt", map_location="cpu")
        weights = torch.nn.utils.parameters_to_vector(loaded.network.parameters())
        now = [stored["current_model_state"][f"network.{n}"] for n, _ in loaded.network.named_parameters()]
        now = torch.nn.utils.parameters_to_vector(now)
        pl.seed_everything(1, verbose=False)
        start = torch.nn.utils.parameters_to_vector(SemanIRModule("tiny", NETWORK).network.parameters())
        assert 0 < (weights - now).norm() < 0.5 * (start - now).norm(), "an average, and not of the start"
        [metrics] = output.rglob("metrics.csv")
        assert {"train/loss", "val/psnr"} <= set(metrics.read_text().splitlines()[0].split(","))

    def test_a_later_file_changes_values_of_the_first(self, configured, tmp_path, capfd):
        (tmp_path / "mine.yaml").write_text("model:\n  learning_rate: 0.125\n")
        words = ["fit", "--config", configured(tmp_path), "--config", str(tmp_path / "mine.yaml")]
        with pytest.raises(SystemExit, match="0"):
            run_app(app, [*words, "-o", str(tmp_path / "run"), "--print_config"])
        shown = capfd.readouterr()
        assert "learning_rate: 0.125" in shown.out, shown.err

    @pytest.mark.filterwarnings("ignore:LightningCLI's args parameter", "ignore:.*does not have many workers")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_lightning_trains_it_with_any_optimizer_logger_and_callback(
        self, configured, tmp_path, monkeypatch
    ):
        """Lightning's own command line, its subcommands, loggers and callbacks; nothing of ours around."""
        words = [
            *("--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "1e-3"),
            *("--model.scheduler", "torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size", "1"),
            *("--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"),
            *("--trainer.logger", "pytorch_lightning.loggers.TensorBoardLogger"),
            *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.name", "board"),
            *("--trainer.callbacks", "pytorch_lightning.callbacks.LearningRateMonitor"),
            *("--trainer.callbacks+", "pytorch_lightning.callbacks.ModelCheckpoint"),
            *("--trainer.callbacks.dirpath", str(tmp_path / "kept")),
            *("--trainer.callbacks.every_n_train_steps", "2"),
        ]
        config = configured(tmp_path / "run")
        recorded = []
        monkeypatch.setattr(
            LearningRateMonitor,
            "on_train_batch_start",
            lambda self, trainer, *_: recorded.append([g["lr"] for g in trainer.optimizers[0].param_groups]),
        )
        cli = LightningCLI(SemanIRModule, SemanIRData, args=["fit", "--config", config, *words])
        [optimizer] = cli.trainer.optimizers
        assert type(optimizer) is torch.optim.Adam
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-5])
        assert list((tmp_path / "board").rglob("events.out.*"))
        assert recorded == [pytest.approx([1e-3]), pytest.approx([1e-4])]
        [kept] = (tmp_path / "kept").iterdir()
        loaded = SemanIRModule.load_from_checkpoint(kept, map_location="cpu")
        assert loaded.hparams["network"] == cli.model.hparams["network"]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--config", "no-such"], "denoise-color-base"),
            (["--config", "CONFIG", "--model.nothing", "3"], "nothing"),
            (["--config", "CONFIG", "--data.batch_size", "0"], "batch_size"),
            (["--config", "CONFIG", "--data.train", "[missing]"], "missing is no folder"),
            (["--config", "CONFIG", "--data.train", "[]"], "nothing to train on"),
            (["--config", "CONFIG", "--model.loss", "l2"], "l2"),
            (["--config", "CONFIG", "--data.crops.channels", "1"], "the data have 1 channels"),
            (["--config", "CONFIG", "--data.crops.scale", "2"], "the network enlarges 1 times"),
            (["--config", "CONFIG", "--model.network.window_size", "0"], "window_size must be at least 1"),
            (["--config", "CONFIG", "--model.network.k", "0"], "k must be at least 1"),
            (["--config", "CONFIG", "--model.weights", "PICKLE"], "is a pickle"),
        ],
    )
    def test_wrong_usage_is_one_sentence(self, configured, tmp_path, capfd, arguments, named):
        output = tmp_path / "run"
        (tmp_path / "theirs.pth").write_bytes(b"")
        names = {"CONFIG": configured(output), "PICKLE": str(tmp_path / "theirs.pth")}
        words = [names.get(word, word) for word in arguments]
        code = run_app(app, ["fit", *words, "-o", str(output)])
        shown = capfd.readouterr()
        assert code == 2
        [line] = [each for each in shown.err.splitlines() if each.startswith("semanir: ")]
        assert named in line
        assert "Traceback" not in shown.err

    # on Python 3.14 the compiler looks at .grad of every tensor that it meets
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
    def test_bf16_checkpointing_and_compilation_together(self, configured, tmp_path, monkeypatch):
        compiled = nn.Module.compile
        # the default backend needs a C++ compiler, and traces of gradients take a minute
        monkeypatch.setattr(nn.Module, "compile", lambda network: compiled(network, backend="eager"))
        output, losses = tmp_path / "run", []
        step = SemanIRModule.training_step

        def spy(self, batch, batch_idx):
            losses.append(step(self, batch, batch_idx))
            return losses[-1]

        monkeypatch.setattr(SemanIRModule, "training_step", spy)
        words = ["--model.compile", "true", "--model.gradient_checkpointing", "true"]
        words += ["--model.random_k", "[]", "--trainer.precision", "bf16-mixed", "--trainer.max_steps", "2"]
        fit(configured(output), output, [*words, "--trainer.limit_val_batches", "0"])
        assert len(losses) == 2
        assert all(loss.isfinite() for loss in losses)
        weights = SemanIR.from_pretrained(output / "model", device="cpu").state_dict()
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())

    def test_a_finished_run_goes_on_when_it_is_given_more_steps(self, configured, tmp_path, monkeypatch):
        steps, step = [], SemanIRModule.training_step

        def spy(self, batch, batch_idx):
            steps.append(self.global_step)
            return step(self, batch, batch_idx)

        monkeypatch.setattr(SemanIRModule, "training_step", spy)
        for most in ("2", "3"):
            words = ["--trainer.max_steps", most, "--trainer.limit_val_batches", "0"]
            fit(configured(tmp_path / "run", every=1000), tmp_path / "run", words)
        assert steps == [0, 1, 2]

    def test_the_checkpoint_of_another_network_is_refused(self, configured, tmp_path, capfd):
        output = tmp_path / "run"
        fit(configured(output), output, ["--trainer.max_steps", "2"])
        before = (output / "last.ckpt").read_bytes()
        words = ["fit", "--config", configured(output), "-o", str(output), "--model.network.k", "4"]
        assert run_app(app, words) == 2
        [line] = [each for each in capfd.readouterr().err.splitlines() if each.startswith("semanir: ")]
        assert "the checkpoint is of another network (k 8 instead of 4)" in line
        assert (output / "last.ckpt").read_bytes() == before

    def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(
        self, configured, tmp_path, capfd, monkeypatch
    ):
        output = tmp_path / "run"
        fit(configured(output), output, ["--trainer.max_steps", "2"])
        before = (output / "last.ckpt").read_bytes()

        def full(*args, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        code = run_app(app, ["fit", "--config", configured(output), "-o", str(output)])
        [line] = [each for each in capfd.readouterr().err.splitlines() if each.startswith("semanir: ")]
        assert code == 2
        assert "No space left on device" in line
        assert (output / "last.ckpt").read_bytes() == before
