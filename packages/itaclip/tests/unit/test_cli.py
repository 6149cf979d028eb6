# SPDX-License-Identifier: Apache-2.0
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from itaclip import ITACLIP, ITACLIPConfig
from itaclip.cli import segment as command
from itaclip.cli.options import ClassOptions, ModelOptions, apply_changes, parse_classes
from itaclip.text import ClassList
from PIL import Image

OPTIONS = {
    "--crop": 32,
    "--stride": 32,
    "--resize-short": 32,
    "--pamr-steps": 1,
    "--attention.mid-layers": "",
    "--branches": "identity",
}
SMALL = {"crop": 32, "stride": 32, "resize_short": 32, "pamr_steps": 1, "branches": ("identity",)}


@pytest.fixture
def run(invoke, tiny_folder):
    def call(*args, code=0, classes="cat, dog, sky", model=tiny_folder):
        command, *rest = args
        extra = {"--model": model, "--device": "cpu", "-c": classes, **OPTIONS}
        for name, value in extra.items() if command == "segment" and "--help" not in rest else ():
            rest += [] if name in rest else [f"{name}={value}"] if name.startswith("--") else [name, value]
        return invoke(command, *rest, code=code)

    return call


def small_config():
    config = ITACLIPConfig.preset("itaclip", **SMALL)
    return replace(config, attention=replace(config.attention, mid_layers=()))


def save(*names, size=(40, 32)):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)


def files(folder="."):
    found = (p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file())
    return sorted(str(p) for p in found if not {".cache", ".results"} & set(p.parts))


def sentence(result):
    """The one line on stderr, with nothing on stdout."""
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("itaclip: ")
    return line


def test_a_folder_gets_three_files_per_image(run, tiny_folder):
    save("a.png")
    said = run("segment", "a.png", "-o", "out").stdout
    assert said.startswith("out/a-overlay.png, out/a-labels.png, out/a.html: ")
    assert files("out") == ["a-labels.png", "a-overlay.png", "a.html"]
    model = ITACLIP.from_pretrained(tiny_folder, preset=small_config(), device="cpu")
    expected = model.set_classes(["cat", "dog", "sky"]).predict(Image.open("a.png")).labels.numpy()
    with Image.open("out/a-labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), expected)
    assert len(np.unique(expected)) > 1


def test_one_file_is_what_its_suffix_says(run):
    save("a.png")
    run("segment", "a.png", "-o", "b.png")
    run("segment", "a.png", "-o", "b.html")
    run("segment", "a.png", "-o", "b.npz")
    run("segment", "a.png", "-o", "c.png", "--write", "labels")
    assert files() == ["a.png", "b.html", "b.npz", "b.png", "c.png"]
    with Image.open("b.png") as overlay, Image.open("c.png") as labels, np.load("b.npz") as scores:
        assert overlay.width >= 360
        assert labels.size == (32, 40)
        assert scores["scores"].shape == (3, 40, 32)
        assert scores["names"].tolist() == ["cat", "dog", "sky"]
        np.testing.assert_array_equal(scores["labels"], np.asarray(labels))


CLOSED = "every pixel got one of the 3 classes"


def test_a_closed_list_of_several_classes_is_hinted_at(run):
    save("a.png", "b.png")
    said = run("segment", "a.png", "b.png", "-o", "out").stderr
    assert said.count(CLOSED) == 1
    assert "--background adds a class for the rest" in said
    # nothing was painted, so there is nothing to say
    assert CLOSED not in run("segment", "a.png", "b.png", "-o", "out").stderr


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        (["--background"], "cat, dog, sky"),
        (["--background-names", "wall, floor"], "cat, dog, sky"),
        (["--json"], "cat, dog, sky"),
        ([], "cat"),
        ([], "voc20"),
    ],
)
def test_no_hint_where_the_list_is_open_or_that_of_a_benchmark(run, arguments, classes):
    save("a.png")
    said = run("segment", "a.png", "-o", "out", "--write", "labels", *arguments, classes=classes).stderr
    assert "whatever it shows" not in said


def test_a_tower_that_is_not_there_is_told_before_clip_is_loaded(run, tmp_path):
    save("a.png")
    options = ["--attention.strategy", "proxyclip", "--attention.options", "tower=./nowhere"]
    # the model is not there either, and would be told of
    result = run("segment", "a.png", "-o", "out", *options, model="./no-clip", code=2)
    assert "the tower './nowhere' cannot be loaded" in sentence(result)


def test_json_is_one_object_per_image(run):
    save("in/a.png", "in/b.png")
    result = run("segment", "in", "-o", "out", "--json", "--write", "labels")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["input"] for line in lines] == [str(Path("in/a.png")), str(Path("in/b.png"))]
    for line in lines:
        assert line["status"] == "done"
        assert (line["width"], line["height"]) == (32, 40)
        assert sum(entry["share"] for entry in line["classes"]) == pytest.approx(1, abs=1e-4)
        assert {entry["name"] for entry in line["classes"]} <= {"cat", "dog", "sky"}
        assert Path(line["outputs"]["labels"]).is_file()
    assert "2 done" in result.stderr


def test_a_batch_continues_past_bad_files(run):
    save("in/a.png", "in/z.png")
    Path("in/broken.jpg").write_bytes(b"no image")
    Path("in/empty.png").write_bytes(b"")
    result = run("segment", "in", "-o", "out", "--json", "--write", "labels", code=1)
    status = {
        Path(line["input"]).name: line["status"] for line in map(json.loads, result.stdout.splitlines())
    }
    assert status == {
        "a.png": "done",
        "broken.jpg": "failed",
        "empty.png": "failed",
        "z.png": "done",
    }
    assert "broken.jpg is not an image" in result.stderr
    assert files("out") == ["a-labels.png", "z-labels.png"]


def test_failures_inside_the_model_name_the_image(run, monkeypatch):
    save("in/a.png", "in/b.png")

    def stream(self, images, **kwargs):
        raise RuntimeError("it is\ntoo much")

    monkeypatch.setattr(ITACLIP, "stream", stream)
    result = run("segment", "in", "-o", "out", code=1)
    assert f"itaclip: {Path('in/a.png')}: it is too much" in result.stderr
    assert "2 failed" in result.stderr


def test_results_are_skipped_unless_overwritten(run):
    save("a.png")
    run("segment", "a.png", "-o", "out", "--write", "labels,html")
    before = Path("out/a-labels.png").stat().st_mtime_ns
    again = run("segment", "a.png", "-o", "out", "--write", "labels,html", "--json", "--batch-size", 3)
    assert json.loads(again.stdout)["status"] == "skipped"
    assert Path("out/a-labels.png").stat().st_mtime_ns == before
    Path("out/a.html").unlink()  # half done is not done
    assert json.loads(run("segment", "a.png", "-o", "out", "--write", "labels,html", "--json").stdout)[
        "status"
    ] == ("done")
    run("segment", "a.png", "-o", "out", "--write", "labels,html", "--overwrite")
    assert Path("out/a-labels.png").stat().st_mtime_ns > before


def test_results_of_other_options_are_not_skipped(run):
    save("a.png")
    words = ("segment", "a.png", "-o", "out", "--write", "labels", "--json")
    changed = [{"classes": "cat, dog"}, {"classes": "cat, dog, fish"}]
    Path("texts.txt").write_text("cat >=a pet with whiskers\ndog >=a tame wolf\nsky >=blue air\n")
    for options in ((), ("--texts", "texts.txt"), ("--background-names", "fish"), ("--dtype", "bfloat16")):
        assert json.loads(run(*words, *options).stdout)["status"] == "done"
        assert json.loads(run(*words, *options).stdout)["status"] == "skipped"
    for classes in changed:
        assert json.loads(run(*words, **classes).stdout)["status"] == "done"
    save("b.png", "a.png")  # another image of the same name
    assert json.loads(run(*words, **changed[-1]).stdout)["status"] == "done"


def test_files_of_others_are_not_replaced(run):
    save("a.png", "mine.png")
    before = Path("mine.png").read_bytes()
    result = run("segment", "a.png", "-o", "mine.png", code=1)
    assert "is not a result of an earlier run: --overwrite replaces it" in result.stderr
    assert Path("mine.png").read_bytes() == before


def test_large_images_are_segmented_smaller_and_labelled_in_full(run):
    save("a.png", size=(60, 90))
    run("segment", "a.png", "-o", "out", "--max-side", "45", "--write", "labels,scores")
    with Image.open("out/a-labels.png") as labels, np.load("out/a-scores.npz") as scores:
        assert labels.size == (90, 60)
        assert scores["labels"].shape == (30, 45)


def test_too_many_pixels_fail(run):
    save("a.png")
    result = run("segment", "a.png", "-o", "out", "--max-pixels", "100", code=1)
    assert "more than" in result.stderr
    assert "a.png" in result.stderr


def test_one_pixel_is_an_image(run):
    save("a.png", size=(1, 1))
    run("segment", "a.png", "-o", "out")
    assert len(files("out")) == 3


def test_images_are_shared_out_among_processes(run, monkeypatch):
    save(*(f"in/{name}.png" for name in "abc"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    run("segment", "in", "-o", "out", "--write", "labels")
    assert files("out") == ["b-labels.png"]
    monkeypatch.setenv("RANK", "2")
    assert "RANK must lie in" in sentence(run("segment", "in", "-o", "out", code=2))


@pytest.mark.parametrize(
    ("args", "classes", "reason"),
    [
        (["gone*.png", "-o", "out"], "cat, dog", "no image found in gone*.png"),
        (["a.png", "-o", "out", "--write", "masks"], "cat, dog", "must be one of overlay, labels"),
        (["a.png", "-o", "b.png", "--write", "overlay,labels"], "cat, dog", "--write names 2: give a folder"),
        (["a.png", "-o", "b.npz", "--write", "html"], "cat, dog", "--write html is a .html file, got b.npz"),
        (["a.png", "-o", "b.jpg", "--write", "labels"], "cat, dog", "--write labels is a .png file"),
        (["a.png", "-o", "out"], "cat, Cat", "'Cat' is given twice"),
        (["a.png", "-o", "out"], " , ", "--classes is empty"),
        (["a.png", "-o", "out"], "gone.txt", "gone.txt: there is no such file of classes"),
        (["a.png", "-o", "out", "--background-names", "cat"], "cat, dog", "background word 'cat' is also"),
        (["a.png", "-o", "out", "--texts", "gone.txt"], "cat, dog", "gone.txt cannot be read"),
        (["a.png", "-o", "out", "--method", "best"], "cat, dog", "method must be one of itaclip"),
        (["a.png", "-o", "out", "--dataset", "kitti"], "cat, dog", "dataset must be one of voc21"),
        (["a.png", "-o", "out", "--template", "a {} of {}"], "cat", "must hold {} once"),
        (["a.png", "-o", "out", "--template", "a thing"], "cat", "of such lines, got 'a thing'"),
        (["a.png", "-o", "out", "--attention.strategy", "dino"], "cat", "must be one of mixed, value"),
        (["a.png", "-o", "out", "--attention.options", "beta"], "cat", "must read name=value"),
        (["a.png", "-o", "out", "--speed", "9"], "cat, dog", "Unknown option: --speed"),
        (["a.png", "-o", "out", "--logit-scale", "fast"], "cat, dog", 'unable to convert "fast" into float'),
        (["a.png", "-o", "out", "--attention.pairs", "qq,zz"], "cat, dog", "one of qq, kk, vv, qk, got 'zz'"),
        (["a.png", "-o", "out", "--lam", "3"], "cat, dog", "lam must lie in [0, 1], got 3"),
        (["a.png", "-o", "out", "--opacity", "3"], "cat, dog", "--opacity must lie in [0, 1], got 3"),
        (["a.png", "-o", "a.png"], "cat, dog", "a.png would be overwritten"),
        (["a.png", "-o", "out.tiff"], "cat, dog", "out.tiff"),
        ([".", "-o", "out.png"], "cat, dog", "out.png names one file, but the input is"),
        (["a.png", "-o", "out", "--device", "warp"], "cat, dog", "device must be"),
        (["a.png", "-o", "out", "--device", "cuda:7"], "cat, dog", "'cuda:7' is not present"),
    ],
)
def test_wrong_usage_is_one_sentence(run, args, classes, reason):
    save("a.png")
    assert reason in sentence(run("segment", *args, code=2, classes=classes))
    assert files() == ["a.png"]


def test_unknown_models_are_one_sentence(run):
    save("a.png")
    result = run("segment", "a.png", "-o", "out", model="no-such-model", code=2)
    assert "no model 'no-such-model'" in sentence(result)
    assert files() == ["a.png"]


def test_log_lines_of_libraries_stay_off_the_screen(run, monkeypatch, tiny_folder):
    before = logging.root.manager.disable

    def load(*args, **kwargs):
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
        raise FileNotFoundError("no weights")

    save("a.png")
    monkeypatch.setattr("itaclip.model.load_clip", load)
    assert sentence(run("segment", "a.png", "-o", "out", code=2)) == "itaclip: no weights"
    assert logging.root.manager.disable == before


def test_a_single_image_is_summarised(run):
    save("a.png")
    said = run("segment", "a.png", "-o", "b.png").stdout
    assert said.startswith("b.png: ")
    assert "%" in said
    assert run("segment", "a.png", "-o", "b.png").stdout == ""


def test_two_sources_never_become_one_file(run):
    save("in/a.png", "in/a.bmp")
    run("segment", "in", "-o", "out", "--write", "labels")
    assert files("out") == ["a-bmp-labels.png", "a-labels.png"]


def test_sub_folders_appear_again(run):
    save("in/x/a.png", "in/a.png")
    run("segment", "in", "-o", "out", "--write", "labels", "-r")
    assert files("out") == ["a-labels.png", "x/a-labels.png"]


def test_one_class_alone_is_warned_of(run):
    save("a.png")
    result = run("segment", "a.png", "-o", "out", "--write", "labels", classes="cat")
    assert "there is only one class" in result.stderr


def test_classes_are_names_files_or_data_sets(tmp_path):
    assert parse_classes("person|man, dog").classes == (("person", "man"), ("dog",))
    assert parse_classes("voc21") == ClassList.shipped("voc21")
    file = tmp_path / "list.txt"
    file.write_text("sky, wall\ncat, feline\n")
    assert parse_classes(str(file)).classes == (("sky", "wall"), ("cat", "feline"))
    assert ClassOptions(classes=str(file), background_first=True).parse().background
    mine = ClassOptions(classes="cat, dog", background_names="sky, wall").parse()
    assert (mine.labels, mine.classes[0]) == (("background", "cat", "dog"), ("sky", "wall"))
    common = ClassOptions(classes="Sky, dog", background=True).parse().classes[0]
    assert "sky" not in common
    assert len(common) == 43


def test_texts_are_files_or_shipped(tmp_path):
    def texts(classes, texts):
        return ClassOptions(classes=classes, texts=texts).setup(ModelOptions(), None, "auto").texts

    (tmp_path / "texts.txt").write_text("cat >=a pet with whiskers\ndog >=a tame wolf\n")
    assert texts("cat, dog", str(tmp_path / "texts.txt")) == [("a pet with whiskers",), ("a tame wolf",)]
    assert texts("cat", None) is None
    assert len(texts("voc21", "auto")) == 20
    assert texts("cat, unicorn", "auto") == texts("cat, unicorn", "definitions")


def test_options_change_what_is_given_and_nothing_else(invoke):
    words = "--crop 64 --stride 16 --area-threshold none --attention.pairs qq,vv --lam 1 --no-closing"
    words += " --attention.mid-layers 1,0.5 --attention.mid-pairs qk --no-attention.residual"
    words = words.replace("--no-attention.residual", "--attention.no-residual")
    shown = json.loads(invoke("presets", "itaclip", "voc21", *words.split()).stdout)
    attention = {"pairs": ["qq", "vv"], "mid_layers": [1, 0.5], "mid_pairs": ["qk"], "residual": False}
    changed = {"crop": 64, "stride": 16, "area_threshold": None, "lam": 1.0, "closing": False}
    before = ITACLIPConfig.preset("itaclip", dataset="voc21").to_dict()
    assert shown == {**before, **changed, "attention": {**before["attention"], **attention}}
    again = json.loads(invoke("presets", "resclip", "--attention.mid-pairs", "none", "--json").stdout)
    assert again["attention"]["mid_pairs"] is None
    empty = json.loads(invoke("presets", "resclip", "--attention.mid-layers=").stdout)
    assert empty["attention"]["mid_layers"] == []
    assert apply_changes(ITACLIPConfig(), None) == ITACLIPConfig()
    sentence(invoke("presets", "--stride", 3, code=2))


def test_presets_show_effective_settings(run):
    assert "maskclip" in run("presets").stdout
    shown = json.loads(run("presets", "itaclip", "voc21", "--stride", 56).stdout)
    assert (shown["stride"], shown["logit_scale"]) == (56, 60.0)
    assert ITACLIPConfig.from_dict(shown) == ITACLIPConfig.preset("itaclip", dataset="voc21", stride=56)
    assert "method must be one of" in sentence(run("presets", "none", code=2))
    assert "voc21 is a data set" in sentence(run("presets", "voc21", code=2))
    assert "no published settings of ClearCLIP" in run("presets", "clearclip", "ade20k").stderr
    assert json.loads(run("presets", "sclip", "voc21", "--json").stdout)["logit_scale"] == 65.0


def test_models_are_listed(run):
    assert isinstance(json.loads(run("models", "--json").stdout), dict)
    assert "model" in run("models").stdout


COMMANDS = ("demo", "segment", "video", "evaluate", "convert", "export", "presets", "models")


@pytest.mark.parametrize("name", [*COMMANDS, "texts make", "texts check", "texts show"])
def test_help_teaches_by_example(run, name):
    text = run(*name.split(), "--help").stdout
    assert f"itaclip {name} " in text
    assert "Examples" in text
    assert run("--version").stdout.startswith("itaclip ")


def test_options_that_are_not_given_pass_where_pydantic_is_loaded(run):
    pytest.importorskip("pydantic")  # cyclopts then checks defaults
    assert json.loads(run("presets", "itaclip", "voc21", "--stride", 56).stdout)["stride"] == 56


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom common_kernels.runtime.cli import run_app\nfrom itaclip.cli import app\n"
        "for words in (['--help'], ['segment', '--help'], ['evaluate', '--help'], ['texts', 'make', '-h']):\n"
        "    assert run_app(app, words) == 0\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_pages_do_without_scores_where_these_are_large(run, monkeypatch):
    save("a.png")
    run("segment", "a.png", "-o", "a.html")
    monkeypatch.setattr(command, "_SCORE_NUMBERS", 10)
    run("segment", "a.png", "-o", "b.html")
    assert '"ranks":[]' in Path("b.html").read_text("utf-8")
    assert '"ranks":[]' not in Path("a.html").read_text("utf-8")
