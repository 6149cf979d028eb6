# SPDX-License-Identifier: Apache-2.0
"""Training of heads, and their commands, on drawn pairs and masks."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.cli import app
from diffeat.heads import load_head
from diffeat.match import SoftArgmax
from diffeat.options import TrainingOptions
from diffeat.pck import evaluate_pairs, pair_features, read_pair_list
from diffeat.ranking import MaskLabels
from PIL import Image
from torch.utils.data import DataLoader

pl = pytest.importorskip("pytorch_lightning")
# advice of Lightning and torch about machines and versions
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec:FutureWarning"),
]
from diffeat.training import HEAD_FILE, HeadModule, HeadTraining, PairData  # noqa: E402
from pytorch_lightning.callbacks import LearningRateMonitor  # noqa: E402
from pytorch_lightning.cli import LightningCLI  # noqa: E402
from pytorch_lightning.loggers import CSVLogger, Logger  # noqa: E402

NAMES = ["up-level2-repeat0-res-out", "up-level3-repeat0-res-out"]
SMALL = ExtractionOptions(size=64, timesteps=(0, 50))
QUICK = TrainingOptions(steps=6, batch_size=2, dim=8, rate=1e-2, save_every=2, mask_side=32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four images of 32 pixels, halves of two colours, with masks and the list of their pairs."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for number in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, 8 + 4 * number :] = 1
        pixels = np.random.default_rng(number).integers(0, 40, (32, 32, 3), dtype=np.uint8)
        pixels[..., 0] += 200 * mask
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    edges = [[8 + 4 * number, 16] for number in range(4)]
    pairs = [
        {
            "source_path": f"{a}.png",
            "target_path": f"{b}.png",
            "source_points": [edges[a], [2, 2]],
            "target_points": [edges[b], [2, 2]],
            "target_bounding_box": [0, 0, 32, 32],
            "category": "edge",
        }
        for a, b in ((0, 1), (1, 2), (2, 3))
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


@pytest.fixture(scope="module")
def extractor(pipelines):
    return FeatureExtractor(pipelines("SD1.5"))


class Stop(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


def training(extractor, folder, options=QUICK, **given):
    return HeadTraining(
        extractor=extractor, names=NAMES, extraction=SMALL, options=options, folder=folder, **given
    )


def equal(first, second) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_stopped_training_ends_as_one_that_was_not(place, extractor, tmp_path):
    pairs = read_pair_list(place / "pairs.json", place / "images")
    whole, losses = training(extractor, tmp_path / "whole").on_pairs(pairs)
    assert len(losses) == QUICK.steps
    with pytest.raises(RuntimeError, match="power cut"):
        training(extractor, tmp_path / "cut", callbacks=[Stop(5)]).on_pairs(pairs)
    assert not (tmp_path / "cut" / HEAD_FILE).exists()
    resumed, rest = training(extractor, tmp_path / "cut").on_pairs(pairs)
    assert rest == pytest.approx(losses)
    assert equal(whole, resumed)
    loaded = load_head(tmp_path / "cut" / HEAD_FILE, "aggregation")
    assert equal(loaded, whole)
    assert set(loaded.weights) == {f"{name}@{t}" for name in NAMES for t in (0, 50)}
    assert sum(loaded.weights.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="holds a training with other settings or data"):
        training(extractor, tmp_path / "cut", replace(QUICK, rate=1e-3)).on_pairs(pairs)


def test_a_head_learns_edges(place, extractor, tmp_path):
    pairs = read_pair_list(place / "pairs.json", place / "images")
    options = replace(QUICK, steps=30, save_every=30)
    _, losses = training(extractor, tmp_path, options).on_pairs(pairs)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_segmentation_is_learned(place, extractor, tmp_path):
    labels = MaskLabels.read(place / "images", place / "masks")
    options = replace(QUICK, steps=20, save_every=20)
    head, losses = training(extractor, tmp_path, options).on_masks(labels)
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    with torch.no_grad():
        features = extractor([labels.images[0]], NAMES, SMALL)
        found = head.predict(features, (32, 32)).argmax(0)
    assert float((found.numpy() == labels.masks[0]).mean()) > 0.8
    with pytest.raises(ValueError, match=r"batch_size must lie between 2 .* and the 4 images, got 1"):
        training(extractor, tmp_path, replace(options, batch_size=1)).on_masks(labels)


def test_two_processes_learn_what_one_does_with_both_batches(place, extractor, tmp_path):
    pairs = read_pair_list(place / "pairs.json", place / "images")
    options = replace(QUICK, batch_size=1, steps=3)
    two = {"devices": 2, "strategy": "ddp_fork", "accelerator": "cpu"}
    shared, _ = training(extractor, tmp_path / "two", options, trainer=two).on_pairs(pairs)
    alone, _ = training(extractor, tmp_path / "one", replace(options, batch_size=2)).on_pairs(pairs)
    half, _ = training(extractor, tmp_path / "half", options).on_pairs(pairs)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert not equal(half, alone)
    assert equal(shared, load_head(tmp_path / "two" / HEAD_FILE, "aggregation"))


def test_any_logger_and_callback(place, extractor, tmp_path):
    class Memory(Logger):
        name, version, rows = "memory", 0, ()

        def log_hyperparams(self, params):
            raise AssertionError

        def log_metrics(self, metrics, step=None):
            self.rows = (*self.rows, metrics)

    memory = Memory()
    given = {"logger": [memory, CSVLogger(tmp_path / "logs")], "log_every_n_steps": 1}
    labels = MaskLabels.read(place / "images", place / "masks")
    options = replace(QUICK, steps=2, save_every=2)
    head, losses = training(
        extractor, tmp_path, options, trainer=given, callbacks=[LearningRateMonitor()]
    ).on_masks(labels)
    logged = [row["loss"] for row in memory.rows if "loss" in row]
    assert logged == pytest.approx(losses)
    assert any("lr-AdamW" in row for row in memory.rows)
    again = HeadModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert (again.options, again.head.config, again.head.grids) == (options, head.config, head.grids)
    assert again.losses == losses
    assert equal(again.head, head)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning, about jsonargparse
def test_lightning_cli_builds_a_head_from_plain_values(place, extractor, tmp_path, monkeypatch):
    pairs = read_pair_list(place / "pairs.json", place / "images")
    maps = dict(extractor([pairs[0].source], NAMES, SMALL))
    features = PairData(pairs, lambda path, category: maps)

    class Features(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(features, batch_size=1, collate_fn=list)

    head = {"kind": "aggregation", "dim": 8, "channels": {key: value.shape[1] for key, value in maps.items()}}
    words = ["--model.head", json.dumps(head), "--model.options", '{"rate": 0.01, "steps": 3}']
    words += [
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.5",
        "--model.scheduler=ExponentialLR",
    ]
    words += ["--model.scheduler.gamma=0.5", "--trainer.max_steps=3", "--trainer.logger=CSVLogger"]
    words += [f"--trainer.logger.save_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["train.py", "fit", *words])
    cli = LightningCLI(HeadModule, Features, seed_everything_default=0)
    (optimiser,) = cli.trainer.optimizers
    assert type(optimiser) is torch.optim.SGD
    assert optimiser.param_groups[0]["lr"] == 0.5**4
    (file,) = tmp_path.rglob("*.ckpt")
    again = HeadModule.load_from_checkpoint(file, weights_only=True)
    assert again.options.rate == 0.01
    assert len(again.losses) == 3
    assert equal(again.head, cli.model.head)


def drive(capsys, *args: object, code: int = 0) -> list[dict]:
    capsys.readouterr()
    found = run_app(app, [str(arg) for arg in args])
    shown = capsys.readouterr()
    assert found == code, shown
    return [json.loads(line) for line in shown.out.splitlines()] if code == 0 else [{"error": shown.err}]


def test_from_pairs_to_a_drawing(place, sd15_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", place / "images", "--list", place / "pairs.json", "--model", sd15_folder]
    train += ["-n", NAMES[0], "-n", NAMES[1], "-t", 0, "-t", 50, "--size", 64, "--steps", 3, "--dim", 8]
    (report,) = drive(capsys, *train, "--save-every", 2, "-o", "head", "--json")
    assert (report["steps"], report["head"]) == (3, str(Path("head") / HEAD_FILE))
    assert sum(report["weights"].values()) == pytest.approx(1)
    match = ["match", place / "images/0.png", place / "images/1.png", "--model", sd15_folder]
    match += ["--head", report["head"], "--window", 3, "--flip", "--point", 8, 16, "--json"]
    (found,) = drive(capsys, *match)
    assert len(found["matches"]) == 1
    assert Path("matches.png").is_file()
    pck = ["pck", place / "images", "--list", place / "pairs.json", "--model", sd15_folder, "--json"]
    (trained,) = drive(capsys, *pck, "--head", report["head"], "--side", 32, "--threshold", 0.25)
    assert (trained["pairs"], trained["pck"][0]["threshold"]) == (3, 0.25)
    assert all(0 <= row["per_point"] <= 1 for row in trained["pck"])
    (error,) = drive(capsys, *match[:5], "--flip", "--head", report["head"], code=2)
    assert "--flip needs --point or --points" in error["error"]


def test_the_ways_of_finding_points_reach_the_score(place, extractor, sd15_folder, capsys):
    pairs = read_pair_list(place / "pairs.json", place / "images")
    options = ExtractionOptions(size=64, prompt="a photo of a {category}")
    features = pair_features(extractor, NAMES, options)
    expected = {
        way: evaluate_pairs(pairs, features, side=16, thresholds=(0.05,), soft=soft, is_rounded=rounded)
        for way, soft, rounded in (
            ("", None, False),
            ("--window=5", SoftArgmax(window=5), False),
            ("--rounded", None, True),
        )
    }
    pck = ["pck", place / "images", "--list", place / "pairs.json", "--model", sd15_folder, "--json"]
    pck += ["-n", NAMES[0], "-n", NAMES[1], "--size", 64, "--side", 16, "--threshold", 0.05]
    for way, scores in expected.items():
        (found,) = drive(capsys, *pck, *filter(None, [way]))
        assert [row["per_point"] for row in found["pck"]] == [each.per_point for each in scores.values()]


def test_from_masks_to_label_maps(place, sd15_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", place / "images", "--masks", place / "masks", "--model", sd15_folder, "-n", NAMES[0]]
    train += ["-n", NAMES[1], "--size", 64, "--steps", 2, "--dim", 8, "--classes", "dark", "--classes", "red"]
    lightning = logging.getLogger("pytorch_lightning")
    monkeypatch.setattr(lightning, "level", logging.INFO)  # as Lightning sets it
    (report,) = drive(capsys, *train, "--json")
    assert lightning.level > logging.INFO  # the report stands alone
    segment = ["segment", place / "images", "--model", sd15_folder, "--head", report["head"]]
    assert (
        run_app(
            app, [*map(str, segment[:1]), str(place / "images/0.png"), *map(str, segment[2:]), "-o", "one"]
        )
        == 0
    )
    assert "one/0-labels.png, one/0-overlay.png: dark " in capsys.readouterr().err
    rows = drive(capsys, *segment, "--window", 20, "--stride", 12, "--json")
    assert [set(row["shares"]) for row in rows] == [{"dark", "red"}] * 4
    with Image.open("diffeat-segments/0-labels.png") as labels:
        assert labels.size == (32, 32)
    assert [row["status"] for row in drive(capsys, *segment, "--window", 20, "--stride", 12, "--json")] == [
        "skipped"
    ] * 4
    (error,) = drive(capsys, "segment", place / "images", "-n", NAMES[0], code=2)
    assert "--labelled and --masks must say what to learn from" in error["error"]
