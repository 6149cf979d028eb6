# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import open_clip
import pytest
import torch
from itaclip.cli.evaluate import DatasetOptions, choose_config
from itaclip.cli.options import ModelOptions
from itaclip.config import ITACLIPConfig
from itaclip.evaluation.datasets import LAYOUTS
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.model import ITACLIP
from itaclip.text.classes import ClassList
from PIL import Image
from safetensors.torch import save_file

SMALL = ("--resize-short", 0, "--stride", 16, "--crop", 16, "--pamr-steps", 0, "--branches", "identity")
SMALL += ("--attention.mid-layers", 0.5)


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
def run(backbone, invoke):
    def call(name, root, *options, code=0):
        rest = list(SMALL)
        for option in options:  # of an option given twice, that of the test
            if option in rest:
                del rest[rest.index(option) : rest.index(option) + 2]
        words = ["evaluate", name, "--root", root, "--model", backbone, "-o", "out", "--device", "cpu"]
        return invoke(*words, *rest, *options, code=code)

    return call


@pytest.fixture
def cityscapes(tmp_path, make_tree):
    make_tree("cityscapes", tmp_path / "city", 3, size=(20, 18))
    return tmp_path / "city"


def test_scores_are_those_of_the_model(run, cityscapes, backbone):
    result = run("cityscapes", cityscapes, "--json", "--texts", "none")
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
    other = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--stride", 8).stdout)
    assert other["resumed"] == 0
    assert other["folder"] != first["folder"]
    fresh = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--overwrite").stdout)
    assert fresh["resumed"] == 0


def test_tables_and_failures(run, cityscapes):
    labels = sorted((cityscapes / "gtFine/val/ulm").iterdir())
    labels[0].unlink()
    labels[1].write_bytes(b"no image")
    result = run("cityscapes", cityscapes, "--texts", "none", code=1)
    assert "ulm_000000_gtFine_labelTrainIds.png does not exist" in result.stderr
    assert "ulm_000001_gtFine_labelTrainIds.png is not an image" in result.stderr
    assert "road" in result.stdout
    assert "measured here" in result.stdout
    assert "40.20" in result.stdout
    assert "1 images (0 from an earlier run), 2 failed" in result.stdout


def test_settings_that_the_paper_does_not_have_are_said_to_be_borrowed(run, tmp_path, make_tree, cityscapes):
    make_tree("voc20", tmp_path / "voc", 1, size=(20, 18))
    borrowed = "the paper does not report voc20: the preset is voc21"
    assert borrowed in run("voc20", tmp_path / "voc", "--texts", "none").stdout
    assert "does not report" not in run("cityscapes", cityscapes, "--texts", "none").stdout


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
        ("cityscapes", ("--strid", 3), "Unknown option: --strid"),
        ("cityscapes", ("--preset", "best"), "preset must be one of"),
        ("cityscapes", ("--split", "test"), "does not hold cityscapes"),
        ("cityscapes", ("--texts", "missing.txt"), "missing.txt cannot be read"),
    ):
        result = run(name, cityscapes, *options, code=2)
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_data_set_has_its_classes_and_configuration(layout, tmp_path):
    own = DatasetOptions(root=tmp_path)
    classes = own.choose_classes(layout)
    assert len(classes) == layout.num_classes
    config = choose_config(layout, ModelOptions(model="ViT-B-16"), {"stride": 56})
    assert config == ITACLIPConfig.preset(layout.preset, **{**layout.changes, "stride": 56})
    assert (own.choose_texts(layout, classes) is None) == (layout.name == "ade20k")
    assert DatasetOptions(root=tmp_path, texts="none").choose_texts(layout, classes) is None


def test_a_named_preset_is_taken_as_it_is():
    options = ModelOptions(model="ViT-B-16", preset="sclip")
    assert choose_config(LAYOUTS["voc21"], options, None) == ITACLIPConfig.preset("sclip")
    own = choose_config(LAYOUTS["voc21"], ModelOptions(model="tiny-shapes"), None)
    assert own == ITACLIPConfig.preset("tiny-shapes")


def _raw(root, numbers):
    folder = root / "annotations/val2017"
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in numbers.items():
        Image.fromarray(np.array([values], dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_convert_reports_and_skips(tmp_path, invoke):
    folder = _raw(tmp_path, {"1": [0, 181], "2": [0, 200]})
    result = invoke("convert", "coco-stuff", "--root", tmp_path, "--json", code=1)
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["done", "failed"]
    assert "2.png holds the number 200" in result.stderr
    assert (folder / "1_labelTrainIds.png").is_file()
    assert "1 skipped, 1 failed" in invoke("convert", "coco-stuff", "--root", tmp_path, code=1).stderr


def test_convert_shares_its_work(tmp_path, monkeypatch, invoke):
    folder = _raw(tmp_path, {"1": [0], "2": [0], "3": [0]})
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    invoke("convert", "coco-object", "--root", tmp_path)
    assert [file.name for file in folder.glob("*TrainIds.png")] == ["2_instanceTrainIds.png"]


def test_convert_without_maps_is_wrong_use(tmp_path, invoke):
    assert "no pixel map" in invoke("convert", "coco-stuff", "--root", tmp_path, code=2).stderr
