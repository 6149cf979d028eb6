# SPDX-License-Identifier: Apache-2.0
import json
import re

import numpy as np
import open_clip
import pytest
import torch
import typer
from itaclip.cli.convert import convert
from itaclip.cli.evaluate import choose_classes, choose_config, choose_texts, evaluate
from itaclip.cli.options import ModelOptions
from itaclip.config import ITACLIPConfig
from itaclip.evaluation.datasets import LAYOUTS
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.model import ITACLIP
from itaclip.text.classes import ClassList
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

SMALL = (
    "resize_short=0",
    "stride=16",
    "crop=16",
    "pamr_steps=0",
    "branches=identity",
    "attention.mid_layers=0.5",
)
CHANGES = [part for setting in SMALL for part in ("--set", setting)]

app = typer.Typer()
app.command()(evaluate)
app.command()(convert)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A folder with a random CLIP of 16 pixels."""
    folder = tmp_path_factory.mktemp("clip")
    vision = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    settings = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**settings)
        # far from the initial values, so that pixels differ
        torch.nn.init.normal_(model.visual.positional_embedding)
        torch.nn.init.normal_(model.token_embedding.weight)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    return folder


@pytest.fixture
def run(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("ITACLIP_CACHE", str(backbone / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(name, root, *options):
        words = ["evaluate", name, "--root", root, "--model", backbone, "--out", tmp_path / "out", *CHANGES]
        return CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu", *options)])

    return call


@pytest.fixture
def cityscapes(tmp_path, make_tree):
    make_tree("cityscapes", tmp_path / "city", 3, size=(20, 18))
    return tmp_path / "city"


def test_scores_are_those_of_the_model(run, cityscapes, backbone):
    result = run("cityscapes", cityscapes, "--json", "--texts", "none")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)

    config = ITACLIPConfig.from_dict(found["config"])
    assert (config.crop, config.lam, config.attention.mid_layers) == (16, 0.7, (0.5,))
    segmenter = ITACLIP.from_pretrained(backbone, preset=config, device="cpu")
    segmenter.set_classes(ClassList.shipped("cityscapes"))
    matrix = torch.zeros(19, 19, dtype=torch.int64)
    for image in sorted(cityscapes.rglob("*_leftImg8bit.png")):
        label = cityscapes / "gtFine/val/ulm" / image.name.replace("leftImg8bit", "gtFine_labelTrainIds")
        truth = torch.from_numpy(np.array(Image.open(label)))
        matrix += confusion(segmenter.predict(Image.open(image)).labels, truth, 19)
    assert matrix.sum() > 0
    expected = Scores(matrix, segmenter.class_names).to_dict()
    assert {key: found[key] for key in expected} == expected
    assert found["published"][-1] == {
        "method": "ITACLIP",
        "setting": "",
        "mIoU": 40.2,
        "source": "README of ITACLIP",
    }


def test_second_run_has_nothing_to_do_and_other_settings_start_anew(run, cityscapes):
    first = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none").stdout)
    again = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none").stdout)
    assert (first["resumed"], again["resumed"]) == (0, 3)
    assert again["mIoU"] == first["mIoU"]
    assert again["per_class"] == first["per_class"]
    batches = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--batch-size", 7).stdout)
    assert batches["resumed"] == 3  # changes the speed only
    other = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--set", "stride=8").stdout)
    assert other["resumed"] == 0
    assert other["folder"] != first["folder"]
    fresh = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--overwrite").stdout)
    assert fresh["resumed"] == 0


def test_tables_and_failures(run, cityscapes):
    labels = sorted((cityscapes / "gtFine/val/ulm").iterdir())
    labels[0].unlink()
    labels[1].write_bytes(b"no picture")
    result = run("cityscapes", cityscapes, "--texts", "none")
    assert result.exit_code == 1
    assert "ulm_000000_gtFine_labelTrainIds.png is missing" in result.stderr
    assert "ulm_000001_gtFine_labelTrainIds.png is not an image" in result.stderr
    assert "road" in result.stdout
    assert "measured here" in result.stdout
    assert "40.20" in result.stdout
    assert "1 images (0 from an earlier run), 2 left out" in result.stdout


def test_settings_that_the_paper_does_not_have_are_said_to_be_borrowed(run, tmp_path, make_tree, cityscapes):
    make_tree("voc20", tmp_path / "voc", 1, size=(20, 18))
    borrowed = "the paper does not treat voc20: the settings are those of voc21"
    assert borrowed in run("voc20", tmp_path / "voc", "--texts", "none").stdout
    assert "does not treat" not in run("cityscapes", cityscapes, "--texts", "none").stdout


def test_limit(run, cityscapes):
    found = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--limit", "2").stdout)
    assert found["images"] == 2


def test_wrong_use_is_one_sentence_before_the_model_is_loaded(run, cityscapes, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("road\nsky\n")
    for name, options, message in (
        ("kitti", (), "no data set 'kitti': choose one of voc21"),
        ("voc21", (), "does not hold voc21: there must be JPEGImages/"),
        (
            "cityscapes",
            ("--classes", few),
            "must name the 19 classes of cityscapes, without a background, got 2",
        ),
        ("cityscapes", ("--set", "strid=3"), "--set takes KEY=VALUE"),
        ("cityscapes", ("--preset", "best"), "preset must be one of"),
        ("cityscapes", ("--split", "test"), "does not hold cityscapes"),
        ("cityscapes", ("--texts", "missing.txt"), "missing.txt cannot be read"),
    ):
        result = run(name, cityscapes, *options)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_data_set_has_its_classes_and_settings(layout):
    assert len(choose_classes(layout, None)) == layout.num_classes
    config = choose_config(layout, ModelOptions(model="ViT-B-16", settings=("stride=56",)))
    assert config == ITACLIPConfig.preset(layout.preset, **{**layout.changes, "stride": 56})
    assert (choose_texts(layout, "auto") is None) == (layout.name == "ade20k")
    assert choose_texts(layout, "none") is None


def test_a_named_preset_is_taken_as_it_is():
    options = ModelOptions(model="ViT-B-16", preset="sclip")
    assert choose_config(LAYOUTS["voc21"], options) == ITACLIPConfig.preset("sclip")
    own = choose_config(LAYOUTS["voc21"], ModelOptions(model="tiny-shapes"))
    assert own == ITACLIPConfig.preset("tiny-shapes")


def _raw(root, numbers):
    folder = root / "annotations/val2017"
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in numbers.items():
        Image.fromarray(np.array([values], dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_convert_says_what_it_did(tmp_path):
    folder = _raw(tmp_path, {"1": [0, 181], "2": [0, 200]})
    words = ["convert", "coco-stuff", "--root", str(tmp_path)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 1
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["written", "failed"]
    assert "2.png holds the number 200" in result.stderr
    assert (folder / "1_labelTrainIds.png").is_file()
    again = CliRunner().invoke(app, words)
    assert "1 skipped, 1 failed" in again.stdout


def test_convert_shares_its_work(tmp_path, monkeypatch):
    _raw(tmp_path, {"1": [0], "2": [0], "3": [0]})
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, ["convert", "coco-object", "--root", str(tmp_path)])
    assert re.fullmatch(r"1 written, in \S+/annotations/val2017", result.stdout.strip())


def test_convert_without_maps_is_wrong_use(tmp_path):
    result = CliRunner().invoke(app, ["convert", "coco-stuff", "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert "no pixel map" in result.stderr
