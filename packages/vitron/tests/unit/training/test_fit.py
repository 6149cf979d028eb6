# SPDX-License-Identifier: Apache-2.0
"""Stages from a plain vision language model to one that loads; loggers and checkpoints."""

import json
import logging
import subprocess
import sys

import pytest
import torch
import yaml
from common_kernels.runtime.cli import run_app
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from vitron.cli import app
from vitron.data.drawn import write_drawn_data
from vitron.model.engine import Vitron
from vitron.training import FolderData, TrainerOptions, VitronModule, fit_stage, list_stages, load_stage
from vitron.training.stages import Condition, LoraSettings, Losses, Optimisation, Stage

from ..model.backbones import (  # noqa: TID252  # builders that both folders use
    make_tokenizer,
    save_backbone,
    square_tower,
    text_settings,
)
from .test_exact_runs import write_conditions

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Models in the formats of transformers, and a data set with every task."""
    folder = tmp_path_factory.mktemp("base")
    for family in ("qwen2_5_vl", "llava"):
        save_backbone(family, folder / family)
    write_drawn_data(folder / "data", scenes=2)
    write_conditions(folder / "data")
    tokenizer = make_tokenizer("<|im_start|>")
    tokenizer.save_pretrained(folder / "words")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**text_settings(tokenizer))).save_pretrained(folder / "words")
        tower = square_tower("clip_vision_model")
        CLIPVisionModel(CLIPVisionConfig(**tower)).save_pretrained(folder / "eyes")
    (folder / "eyes" / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 32},
                "crop_size": {"height": 32, "width": 32},
            }
        )
    )
    return folder


def command(*args, devices="1"):
    return run_app(app, ["fit", *map(str, args), "--accelerator", "cpu", "--devices", devices])


def small(**changes):
    stage = {
        "name": "t",
        "train": ("lora", "heads"),
        "lora": LoraSettings(rank=4, alpha=8, dropout=0.2),
        "losses": Losses(text=1, mask=1, alignment=1),
        "optimisation": Optimisation(lr=1e-3, steps=3, batch_size=4),
    }
    return Stage(**(stage | changes))


def fit(base, out, stage, *, model="llava", data="data", seed=0, options=None, **more):
    vitron = Vitron.from_pretrained(base / model, device="cpu", dtype="float32")
    chosen = TrainerOptions(accelerator="cpu", devices="1", checkpoint_every=2, **(options or {}))
    more = {"enable_progress_bar": False, "logger": False} | more
    fit_stage(vitron.model, vitron.processor, stage, base / data, out, seed=seed, options=chosen, **more)
    return vitron


def test_all_stages_follow_each_other(base, tmp_path):
    model = base / "qwen2_5_vl"
    for stage in list_stages():
        out = tmp_path / stage
        assert command(base / "data", "-o", out, "--stage", stage, "--model", model, "--steps", 2,
                       "--batch-size", 3) == 0  # fmt: skip
        model = out / "model"
    found = Vitron.from_pretrained(model, device="cpu")
    assert not any("lora" in name for name, _ in found.model.named_parameters())
    assert found.model.config.conditions == {"text_to_image": {"num_vectors": 6, "width": 10}}
    assert not [path for path in model.iterdir() if path.suffix in (".bin", ".pt", ".ckpt")]


def test_a_run_writes_of_itself_alone(base, tmp_path):
    """In a process of its own: loggers, bars and warnings of libraries as a user has them."""
    args = [base / "data", "-o", tmp_path, "--stage", "1.2", "--model", base / "llava", "--steps", 1]
    options = ["--batch-size", 2, "--accelerator", "cpu", "--devices", 1]
    done = subprocess.run(
        [sys.executable, "-m", "vitron", "fit", *map(str, args + options)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert f"model: {tmp_path / 'model'}" in done.stdout.replace("\n", "")
    assert "they are new, and untrained until you run `vitron fit`" in done.stderr.replace("\n", " ")
    assert not [noise for noise in ("TPU", "it/s", "LeafSpec", "litlogger") if noise in done.stderr]


def test_of_several_processes_the_first_tells(base, tmp_path, monkeypatch, caplog, capsys):
    args = (base / "data", "--stage", "1.2", "--model", base / "llava", "--steps", 1, "--batch-size", 2)
    for name in ("vitron", "lightning_fabric", "pytorch_lightning"):
        caplog.set_level(logging.INFO, logger=name)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert command(*args, "-o", tmp_path) == 0
    assert "untrained until you run" not in caplog.text
    assert logging.getLogger("lightning_fabric").level == logging.WARNING  # it tells of each process
    assert command(*args, "-o", tmp_path) == 0
    assert "resuming" not in capsys.readouterr().err


def test_new_models_are_joined_from_parts_and_a_finished_run_is_left(base, tmp_path, caplog):
    stage, out = tmp_path / "stage.yaml", tmp_path / "run"
    stage.write_text(
        "name: t\ntrain: [lora, projector, mask_head]\nlora: {rank: 4, alpha: 8}\n"
        "losses: {text: 1, mask: 1}\noptimisation: {lr: 0.001, steps: 2, batch_size: 4}\n"
    )
    args = (
        base / "data",
        "-o",
        out,
        "--stage",
        stage,
        "--validation",
        base / "data",
        "--checkpoint-every",
        1,
    )
    new = ("--language-model", base / "words", "--vision-tower", base / "eyes", "--template", "chatml")
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        assert command(*args, *new) == 0
    # nothing is reported at each checkpoint
    assert "weights_only" not in caplog.text
    rows = (out / "logs" / "version_0" / "metrics.csv").read_text()
    assert "loss/text" in rows
    assert "val/mask" in rows
    before = (out / "model" / "model.safetensors").read_bytes()
    assert command(*args, *new) == 0  # there is nothing left to do
    assert (out / "model" / "model.safetensors").read_bytes() == before


def test_a_trained_model_says_nothing_of_what_it_was_trained_on_before(base, tmp_path):
    vitron = Vitron.from_pretrained("vitron-tiny", device="cpu", dtype="float32")
    assert vitron.notice is not None
    chosen = TrainerOptions(accelerator="cpu", devices="1")
    stage = small(train=("mask_head",), lora=None, losses=Losses(text=1, mask=1))
    fit_stage(vitron.model, vitron.processor, stage, base / "data", tmp_path, options=chosen,
              enable_progress_bar=False, logger=False)  # fmt: skip
    assert Vitron.from_pretrained(tmp_path / "model", device="cpu").notice is None


def test_kept_adapters_give_the_model_that_was_trained(base, tmp_path):
    trained = fit(base, tmp_path / "run", small(), options={"keep_adapters": True})
    again = Vitron.from_pretrained(tmp_path / "run" / "model", device="cpu", dtype="float32")
    assert any("lora_B" in name for name, _ in again.model.named_parameters())
    for (name, one), (other, two) in zip(
        trained.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two), name
    # a stage goes on with adapters that the model has
    module = VitronModule(again.model, small(lora=LoraSettings(rank=8)))
    assert {each.shape[0] for name, each in module.model.named_parameters() if "lora_A" in name} == {4}


def test_losses_go_to_any_logger(base, tmp_path):
    class Memory(Logger):
        name, version = "memory", 0
        rows, settings = (), None

        def log_hyperparams(self, params):
            self.settings = params

        def log_metrics(self, metrics, step=None):
            self.rows = (*self.rows, metrics)

    seen, own = [], Memory()

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(trainer.progress_bar_metrics)

    fit(base, tmp_path, small(), logger=[own, CSVLogger(tmp_path)], callbacks=Watch(), log_every_n_steps=1)
    assert own.settings["stage"]["name"] == "t"
    shown = {name for row in own.rows for name in row}
    assert {"loss/text", "gradient", "lr"} <= shown
    assert "loss/text" in seen[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning, about jsonargparse
def test_lightning_cli_trains_a_named_model_with_an_optimiser_of_its_own(base, tmp_path, monkeypatch):
    chosen, stage = small(losses=Losses(text=1, mask=1)), tmp_path / "stage.yaml"
    stage.write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    trainer = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, "enable_progress_bar": False}
    words = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    words += [f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=CSVLogger"]
    words += [f"--trainer.logger.save_dir={tmp_path}", "--trainer.callbacks+=ModelCheckpoint"]
    words += [f"--trainer.callbacks.dirpath={tmp_path / 'kept'}", "--trainer.callbacks.filename=kept"]
    words += [f"--model.model={base / 'llava'}", f"--model.stage={stage}", f"--data.data={base / 'data'}"]
    words += [
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.1",
        "--model.scheduler=ExponentialLR",
    ]
    words += ["--model.scheduler.gamma=0.5"]
    monkeypatch.setattr("sys.argv", ["train.py", "fit", *words])
    cli = LightningCLI(VitronModule, FolderData, seed_everything_default=0)
    module = cli.model
    (optimiser,), (schedule,) = (
        cli.trainer.optimizers,
        [each.scheduler for each in cli.trainer.lr_scheduler_configs],
    )
    assert type(optimiser) is SGD
    assert type(schedule) is ExponentialLR
    # the groups of the stage keep their own rates, which the schedule halves
    assert schedule.last_epoch == chosen.optimisation.steps
    assert {group["lr"] for group in optimiser.param_groups} == {1e-3 * 0.5**schedule.last_epoch}
    again = VitronModule.load_from_checkpoint(tmp_path / "kept" / "kept.ckpt", weights_only=True)
    assert again.stage == chosen
    for name, weight in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_data_of_a_folder_need_the_processor_of_the_model(base):
    with pytest.raises(ValueError, match="needs a VitronModule that was built from the name of a model"):
        FolderData(base / "data").setup("fit")


def test_a_checkpoint_loads_by_its_path(base, tmp_path):
    trained = fit(base, tmp_path, small(), seed=5)
    again = VitronModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert again.stage == small()
    assert again.seed == 5
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    assert all(torch.equal(each, state[name]) for name, each in again.state_dict().items())
    assert again.model.config.conditions == trained.model.config.conditions


@pytest.mark.parametrize("options", [{"micro_batches": 3}, {"gradient_checkpointing": True}])
def test_less_memory_makes_the_same_step(base, tmp_path, options):
    # without dropout, whose numbers depend on the parts
    stage = small(
        lora=LoraSettings(rank=4, dropout=0.0), optimisation=Optimisation(lr=1e-3, steps=1, batch_size=6)
    )
    states = []
    for number, chosen in enumerate(({}, options)):
        out = tmp_path / str(number)
        fit(base, out, stage, options=chosen)
        states.append(torch.load(out / "last.ckpt", weights_only=False)["optimizer_states"][0]["state"])
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        torch.testing.assert_close(one["exp_avg"], other["exp_avg"], rtol=1e-3, atol=1e-6)


def test_a_stage_computes_its_conditions(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("vitron.training.run.compute_conditions", lambda *args: asked.append(args))
    stage = small(conditions={"text_to_image": Condition(pipeline="some/pipeline")})
    trained = fit(base, tmp_path, stage)
    assert asked == [(base / "data", "text_to_image", "some/pipeline")]
    assert trained.model.config.conditions["text_to_image"]["width"] == 10


def test_usage_that_cannot_work_is_one_sentence(base, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    write_drawn_data(tmp_path / "data", scenes=1)
    write_conditions(tmp_path / "data", shape=(2, 4))
    fit(base, tmp_path / "first", small())
    for args, message in (
        ((base / "data", "--stage", "9"), "there is no stage 9"),
        ((base / "data", "--language-model", base / "words"), "needs both"),
        ((base / "data", "--model", tmp_path / "none"), "none"),
        ((tmp_path, "--model", base / "llava"), "does not exist"),
        (
            (tmp_path / "data", "--model", tmp_path / "first" / "model", "--stage", "1.3", "--steps", "1"),
            "gives 6 vectors of 10, and p has 2 of 4",
        ),
    ):
        assert command(*args, "-o", tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    slip = load_stage("1.1").model_copy(update={"train": ("projectr",)})
    with pytest.raises(ValueError, match="'projectr' is neither a role"):
        fit(base, tmp_path / "x", slip)


def test_a_checkpoint_is_resumed_by_its_own_run_only(base, tmp_path, capsys):
    args = ("--model", base / "llava", "--stage", "1.1", "--batch-size", 2)
    assert command(base / "data", "-o", tmp_path, *args, "--steps", 1) == 0
    (tmp_path / "more.jsonl").write_bytes((base / "data" / "data.jsonl").read_bytes() + b"\n")
    cases = [
        ((base / "data", *args, "--steps", 2), "stage optimisation steps 1 instead of 2"),
        (
            (base / "data", *args[:2], "--stage", "1.2", "--batch-size", 2, "--steps", 1),
            "stage name 1.1 instead of 1.2",
        ),
        ((base / "data", *args, "--steps", 1, "--seed", 1), "seed 0 instead of 1"),
        ((tmp_path / "more.jsonl", *args, "--steps", 1), "data set differs"),
        ((base / "data", "--model", base / "qwen2_5_vl", *args[2:], "--steps", 1), "model differs"),
    ]
    capsys.readouterr()
    for given, reason in cases:
        assert command(*given, "-o", tmp_path) == 2
        error = capsys.readouterr().err
        assert f"last.ckpt is of another run ({reason}" in error
        assert "give another output folder, or delete it to train anew" in error
    assert command(base / "data", "-o", tmp_path, *args, "--steps", 1, devices="2") == 2
    assert "another run (processes 1 instead of 2)" in capsys.readouterr().err
    assert command(base / "data", "-o", tmp_path, *args, "--steps", 1) == 0
    assert f"resuming from {tmp_path / 'last.ckpt'}" in capsys.readouterr().err


def test_a_machine_that_is_not_there_is_a_sentence(base, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = ["fit", str(base / "data"), "-o", str(tmp_path), "--model", str(base / "llava"), "--steps", "1"]
    assert run_app(app, [*given, "--accelerator", "gpu"]) == 2
    assert "No supported gpu backend found" in capsys.readouterr().err


def test_weights_have_the_permissions_of_the_files_beside_them(base, tmp_path):
    """Models are shared on disk: a colleague must be able to read them."""
    fit(base, tmp_path / "run", small(), options={"keep_adapters": True})
    Vitron.from_pretrained(base / "llava", device="cpu").save_pretrained(tmp_path / "whole")
    for folder in (tmp_path / "run" / "model", tmp_path / "whole"):
        modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert len(modes) == 1, folder
