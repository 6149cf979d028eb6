# SPDX-License-Identifier: Apache-2.0
import csv
import json

import numpy as np
import open_clip
import pytest
import torch
from itaclip.cli.evaluate import DatasetOptions, EvaluationModel
from itaclip.cli.options import ModelOptions, checked_config
from itaclip.config import ITACLIPConfig
from itaclip.evaluation.datasets import LAYOUTS
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.model import ITACLIP
from itaclip.text.classes import ClassList
from PIL import Image, ImageOps
from safetensors.torch import save_file

CITY = ClassList.shipped("cityscapes").labels
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
    assert {
        "method": "ITACLIP",
        "setting": "",
        "mIoU": 40.2,
        "source": "README of ITACLIP",
    } in found["published"]


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
    labels[2].unlink()
    result = run("cityscapes", cityscapes, "--texts", "none", "--overwrite", code=1)
    assert result.stdout.splitlines()[-1].startswith("0 images (0 from an earlier run), 3 failed")
    assert "nan" not in result.stdout
    assert "mean of" not in result.stdout


def test_settings_that_no_paper_has_are_said_to_be_borrowed(run, tmp_path, make_tree, cityscapes):
    make_tree("voc20", tmp_path / "voc", 1, size=(20, 18))
    borrowed = "there are no published settings of ITACLIP for voc20: those for voc21"
    assert borrowed in run("voc20", tmp_path / "voc", "--texts", "none").stdout
    assert "no published settings" not in run("cityscapes", cityscapes, "--texts", "none").stdout
    found = json.loads(run("cityscapes", cityscapes, "--json", "--method", "sclip").stdout)
    assert found["settings"]["method"] == "sclip"
    assert not found["settings"]["published"]  # options were given


def test_limit(run, cityscapes):
    found = json.loads(run("cityscapes", cityscapes, "--json", "--texts", "none", "--limit", "2").stdout)
    assert found["images"] == 2


def test_wrong_use_is_one_sentence_before_the_model_is_loaded(run, cityscapes, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("road\nsky\n")
    for name, options, message in (
        ("kitti", (), "dataset must be one of voc21, context60"),
        ("voc21", (), "does not hold voc21: there must be JPEGImages/"),
        (
            "cityscapes",
            ("--classes", few),
            "must name the 19 classes of cityscapes, without a background, got 2",
        ),
        ("cityscapes", ("--strid", 3), "Unknown option: --strid"),
        ("cityscapes", ("--method", "best"), "method must be one of"),
        ("cityscapes", ("--images", "a"), "cityscapes needs --root, its folder, and no --images"),
        ("cityscapes", ("--template", "photo.txt"), "photo.txt cannot be read"),
        ("cityscapes", ("--split", "test"), "does not hold cityscapes"),
        ("cityscapes", ("--texts", "missing.txt"), "missing.txt cannot be read"),
    ):
        result = run(name, cityscapes, *options, code=2)
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_data_set_has_its_classes_and_configuration(layout, tmp_path):
    own = DatasetOptions(root=tmp_path)
    settings = ModelOptions(model="ViT-B-16").resolve(layout.name)
    classes = own.choose_classes(settings)
    assert (len(classes), classes.background) == (layout.num_classes, layout.background)
    config = checked_config(settings, {"stride": 56})
    assert config == ITACLIPConfig.preset("itaclip", dataset=layout.name, stride=56)
    assert (own.choose_texts(settings, classes) is None) == (layout.name == "ade20k")
    assert DatasetOptions(root=tmp_path, texts="none").choose_texts(settings, classes) is None


def test_texts_are_on_only_where_the_method_has_them(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"{name} >=a text" for name in CITY) + "\n")
    settings = ModelOptions(method="sclip").resolve("cityscapes")
    classes = ClassList.shipped("cityscapes")
    assert DatasetOptions().choose_texts(settings, classes) is None
    given = DatasetOptions(texts=str(tmp_path / "texts.txt")).choose_texts(settings, classes)
    assert given == [("a text",)] * 19


def test_a_method_runs_with_its_own_settings():
    benchmark = EvaluationModel(method="sclip").chosen(benchmark=True)
    assert (benchmark.model, benchmark.pretrained) == ("ViT-B-16-quickgelu", "openai")
    assert benchmark.resolve("voc21").config == ITACLIPConfig.preset("sclip", dataset="voc21")
    own = EvaluationModel().chosen(benchmark=False)
    assert (own.model, own.resolve().method) == ("tiny-shapes", "tiny-shapes")


@pytest.fixture
def own_images(tmp_path):
    """Images and label maps of someone's own; one image is turned by its EXIF orientation."""
    random = np.random.default_rng(0)
    for name in ("a.jpg", "below/b.png"):
        pixels = random.integers(0, 255, (18, 20, 3), dtype=np.uint8)
        exif = Image.Exif()
        if name == "a.jpg":
            exif[0x0112] = 6  # shown after a quarter turn
        shape = (20, 18) if name == "a.jpg" else (18, 20)
        truth = random.choice(np.array([0, 1, 2, 255], dtype=np.uint8), shape)
        for folder, image in (("photos", Image.fromarray(pixels)), ("masks", Image.fromarray(truth))):
            place = (tmp_path / folder / name).with_suffix(".png" if folder == "masks" else name[-4:])
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place, exif=exif) if folder == "photos" else image.save(place)
    return tmp_path


@pytest.fixture
def run_own(backbone, invoke, own_images):
    def call(*options, code=0, masks="masks"):
        words = ["evaluate", "--images", own_images / "photos", "--labels", own_images / masks]
        words += ["--model", backbone, "-o", "out", "--device", "cpu", "-c", "cat, dog, sky"]
        return invoke(*words, *SMALL, *options, code=code)

    return call


def test_own_images_give_scores_files_and_the_worst(run_own, own_images, backbone):
    found = json.loads(run_own("--json", "--save", "predictions,overlays", "--worst", 5).stdout)
    assert (found["images"], found["published"], found["failed"]) == (2, [], [])
    folder = own_images / found["folder"]
    config = ITACLIPConfig.from_dict(found["config"])
    segmenter = ITACLIP.from_pretrained(backbone, preset=config, device="cpu").set_classes(
        ["cat", "dog", "sky"]
    )
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    for name, photo in (("a", "a.jpg"), ("below/b", "below/b.png")):
        shown = ImageOps.exif_transpose(Image.open(own_images / "photos" / photo))
        labels = segmenter.predict(shown).labels
        with (
            Image.open(folder / "predictions" / f"{name}.png") as saved,
            Image.open(folder / "overlays" / f"{name}.png") as overlay,
        ):
            assert np.array_equal(np.asarray(saved), labels)
            assert overlay.width >= 360
        truth = torch.from_numpy(np.array(Image.open(own_images / "masks" / f"{name}.png")))
        matrix += confusion(labels, truth, 3)
    assert found["mIoU"] == Scores(matrix, ("cat", "dog", "sky")).to_dict()["mIoU"]
    with (folder / "images.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["image", "mIoU", "aAcc"]
    scores = [float(row["mIoU"]) for row in table]
    assert scores == sorted(scores)
    assert len(scores) == 2
    worst = sorted((folder / "worst").iterdir())
    assert [str(path.relative_to(own_images)) for path in worst] == found["worst"]
    assert [path.name[4:-4] for path in worst] == [row["image"][-1] for row in table]
    with Image.open(worst[0]) as drawn:
        assert drawn.width > 3 * 480


def test_any_name_of_a_file_is_one_cell_of_the_table(run_own, own_images):
    for folder, suffix in (("photos", "jpg"), ("masks", "png")):
        (own_images / folder / f"a.{suffix}").rename(own_images / folder / f'12" disc, new.{suffix}')
    found = json.loads(run_own("--json").stdout)
    with (own_images / found["folder"] / "images.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {'12" disc, new', "below/b"}


def test_own_images_resume_and_missing_files_are_made_up_for(run_own, own_images):
    first = json.loads(run_own("--json").stdout)
    again = json.loads(run_own("--json", "--batch-size", 1).stdout)
    assert (first["resumed"], again["resumed"], again["mIoU"]) == (0, 2, first["mIoU"])
    saved = json.loads(run_own("--json", "--save", "predictions").stdout)
    assert (saved["resumed"], saved["mIoU"]) == (0, first["mIoU"])
    other = json.loads(run_own("--json", "--template", "a map of {}").stdout)
    assert (other["resumed"], other["folder"] == first["folder"]) == (0, False)


def test_label_maps_that_begin_at_one(run_own, own_images):
    plain = json.loads(run_own("--json").stdout)
    for file in (own_images / "masks").rglob("*.png"):
        numbers = np.array(Image.open(file)).astype(int)
        place = own_images / "moved" / file.relative_to(own_images / "masks")
        place.parent.mkdir(parents=True, exist_ok=True)
        place = place.with_name(f"{place.stem}-labels.png")  # as "itaclip segment" names them
        Image.fromarray(np.where(numbers == 255, 0, numbers + 1).astype(np.uint8)).save(place)
    moved = json.loads(run_own("--json", "--ignore-zero", masks="moved").stdout)
    assert moved["per_class"] == plain["per_class"]


def test_wrong_folders_are_one_sentence(run_own, own_images, invoke):
    (own_images / "empty").mkdir()
    assert "2 images in" in run_own(masks="empty", code=2).stderr
    assert "--labels must be a folder" in run_own(masks="none", code=2).stderr
    assert "name a benchmark, or give --images" in invoke("evaluate", code=2).stderr
    need = invoke("evaluate", "--images", own_images / "photos", "--labels", own_images / "masks", code=2)
    assert "need --classes" in need.stderr
    assert "name a benchmark, or give --images" in invoke("evaluate", "-c", "cat", code=2).stderr
    Image.new("RGB", (4, 4)).save(own_images / "photos" / "a.png")
    assert "would share a label map" in run_own(code=2).stderr


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
