# SPDX-License-Identifier: Apache-2.0
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from itaclip import ITACLIP, ITACLIPConfig
from itaclip.cli import segment as command
from itaclip.cli.app import app
from itaclip.cli.jobs import collect_jobs
from itaclip.cli.options import change_settings, find_texts, parse_classes
from itaclip.text import ClassList
from PIL import Image
from typer.testing import CliRunner

SETTINGS = [
    "crop=32",
    "stride=32",
    "resize_short=32",
    "pamr_steps=1",
    "attention.mid_layers=",
    "branches=identity",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ITACLIP_CACHE", str(tmp_path / ".cache"))
    yield tmp_path
    assert list(tmp_path.rglob("*.part")) == []


@pytest.fixture
def run(here, tiny_folder):
    def call(*args, code=0, classes="cat, dog, sky"):
        command, *rest = args
        extra = ["--model", tiny_folder, "--device", "cpu", "-c", classes] if command == "segment" else []
        for setting in SETTINGS if extra else ():
            extra += ["--set", setting]
        # of an option given twice the last counts: a test's own come last
        result = CliRunner().invoke(app, [*map(str, [command, *extra, *rest])])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call


def save(*names, size=(40, 32)):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)


def files(folder="."):
    found = (p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file())
    return sorted(str(p) for p in found if p.parts[0] != ".cache")


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
    config = change_settings(ITACLIPConfig.preset("itaclip"), SETTINGS)
    model = ITACLIP.from_pretrained(tiny_folder, preset=config, device="cpu")
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


def test_json_is_one_object_per_image(run):
    save("in/a.png", "in/b.png")
    result = run("segment", "in", "-o", "out", "--json", "--write", "labels")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["input"] for line in lines] == [str(Path("in/a.png")), str(Path("in/b.png"))]
    for line in lines:
        assert line["status"] == "segmented"
        assert (line["width"], line["height"]) == (32, 40)
        assert sum(entry["share"] for entry in line["classes"]) == pytest.approx(1, abs=1e-4)
        assert {entry["name"] for entry in line["classes"]} <= {"cat", "dog", "sky"}
        assert Path(line["outputs"]["labels"]).is_file()
    assert "2 segmented" in result.stderr


def test_a_batch_goes_on_past_bad_files(run):
    save("in/a.png", "in/z.png")
    Path("in/broken.jpg").write_bytes(b"no image")
    Path("in/empty.png").write_bytes(b"")
    result = run("segment", "in", "-o", "out", "--json", "--write", "labels", code=1)
    status = {
        Path(line["input"]).name: line["status"] for line in map(json.loads, result.stdout.splitlines())
    }
    assert status == {
        "a.png": "segmented",
        "broken.jpg": "failed",
        "empty.png": "failed",
        "z.png": "segmented",
    }
    assert "broken.jpg is not an image" in result.stderr
    assert files("out") == ["a-labels.png", "z-labels.png"]


def test_failures_inside_the_model_name_the_image(run, monkeypatch):
    save("in/a.png", "in/b.png")

    def stream(self, images, **kwargs):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(ITACLIP, "stream", stream)
    result = run("segment", "in", "-o", "out", code=1)
    assert f"itaclip: {Path('in/a.png')}: out of memory" in result.stderr
    assert "2 failed" in result.stderr


def test_results_are_skipped_unless_overwritten(run):
    save("a.png")
    run("segment", "a.png", "-o", "out", "--write", "labels,html")
    before = Path("out/a-labels.png").stat().st_mtime_ns
    again = run("segment", "a.png", "-o", "out", "--write", "labels,html", "--json")
    assert json.loads(again.stdout)["status"] == "skipped"
    assert Path("out/a-labels.png").stat().st_mtime_ns == before
    Path("out/a.html").unlink()  # half done is not done
    assert json.loads(run("segment", "a.png", "-o", "out", "--write", "labels,html", "--json").stdout)[
        "status"
    ] == ("segmented")
    run("segment", "a.png", "-o", "out", "--write", "labels,html", "--overwrite")
    assert Path("out/a-labels.png").stat().st_mtime_ns > before


def test_large_images_are_segmented_smaller_and_labelled_in_full(run):
    save("a.png", size=(60, 90))
    run("segment", "a.png", "-o", "out", "--max-side", "45", "--write", "labels,scores")
    with Image.open("out/a-labels.png") as labels, np.load("out/a-scores.npz") as scores:
        assert labels.size == (90, 60)
        assert scores["labels"].shape == (30, 45)


def test_too_many_pixels_fail(run):
    save("a.png")
    result = run("segment", "a.png", "-o", "out", "--max-pixels", "100", code=1)
    assert "40 pixels, more than 100" in result.stderr or "claims more than 100 pixels" in result.stderr


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
        (["a.png", "-o", "out", "--write", "masks"], "cat, dog", "--write takes any of overlay, labels"),
        (["a.png", "-o", "b.png", "--write", "overlay,labels"], "cat, dog", "--write names 2: give a folder"),
        (["a.png", "-o", "b.npz", "--write", "html"], "cat, dog", "--write html is a .html file, got b.npz"),
        (["a.png", "-o", "b.jpg", "--write", "labels"], "cat, dog", "--write labels is a .png file"),
        (["a.png", "-o", "out"], "cat, Cat", "'Cat' is given twice"),
        (["a.png", "-o", "out"], " , ", "--classes is empty"),
        (["a.png", "-o", "out"], "gone.txt", "gone.txt: there is no such file of classes"),
        (["a.png", "-o", "out", "--background", "cat"], "cat, dog", "background word 'cat' is also"),
        (["a.png", "-o", "out", "--texts", "gone.txt"], "cat, dog", "gone.txt cannot be read"),
        (["a.png", "-o", "out", "--preset", "best"], "cat, dog", "preset must be one of itaclip"),
        (["a.png", "-o", "out", "--set", "speed=9"], "cat, dog", "--set takes KEY=VALUE with KEY of"),
        (["a.png", "-o", "out", "--set", "stride=fast"], "cat, dog", "--set stride=fast: the value is of"),
        (["a.png", "-o", "out", "--set", "lam=3"], "cat, dog", "lam must lie in [0, 1], got 3"),
        (["a.png", "-o", "a.png"], "cat, dog", "a.png would be overwritten"),
        (["a.png", "-o", "out.tiff"], "cat, dog", "a result is a .png, .jpg, .jpeg, .webp, .html, .npz file"),
        ([".", "-o", "out.png"], "cat, dog", "out.png is one file, but an input is"),
        (["a.png", "-o", "out", "--device", "warp"], "cat, dog", "device must be"),
    ],
)
def test_wrong_usage_is_one_sentence(run, args, classes, reason):
    save("a.png")
    assert reason in sentence(run("segment", *args, code=2, classes=classes))
    assert files() == ["a.png"]


def test_unknown_models_are_one_sentence(run):
    save("a.png")
    result = CliRunner().invoke(
        app, ["segment", "a.png", "-o", "out", "-c", "a, b", "--model", "no-such-model"]
    )
    assert result.exit_code == 2
    assert "no model 'no-such-model'" in sentence(result)


def test_log_lines_of_libraries_stay_off_the_screen(run, monkeypatch, tiny_folder):
    before = logging.root.manager.disable

    def load(*args, **kwargs):
        assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.ERROR)
        raise FileNotFoundError("no weights")

    save("a.png")
    monkeypatch.setattr("itaclip.model.load_clip", load)
    assert sentence(run("segment", "a.png", "-o", "out", code=2)) == "itaclip: no weights"
    assert logging.root.manager.disable == before


def test_a_single_image_is_told_of(run):
    save("a.png")
    said = run("segment", "a.png", "-o", "b.png").stdout
    assert said.startswith("b.png: ")
    assert "%" in said
    assert run("segment", "a.png", "-o", "b.png").stdout == ""


def test_two_sources_never_become_one_file(run):
    save("in/a.png", "in/a.bmp")
    assert "would both become" in sentence(run("segment", "in", "-o", "out", code=2))


def test_results_beside_their_sources_are_no_sources(here):
    save("a.png", "a-overlay.png", "b.png")
    jobs = collect_jobs(["."], Path())
    assert [job.source.name for job in jobs] == ["a.png", "b.png"]
    save("deep/out/old.png", "deep/c.png")
    assert [job.source.name for job in collect_jobs(["deep"], Path("deep/out"), recursive=True)] == ["c.png"]


def test_sub_folders_come_again(here):
    save("in/x/a.png", "in/a.png")
    jobs = collect_jobs(["in"], Path("out"), kinds=("labels",), recursive=True)
    assert [job.outputs["labels"] for job in jobs] == [Path("out/a-labels.png"), Path("out/x/a-labels.png")]
    assert len(collect_jobs(["in"], Path("out"))) == 1
    assert len(collect_jobs(["in/*.png", "in/a.png"], Path("out"))) == 1


def test_one_class_alone_is_warned_of(run):
    save("a.png")
    result = run("segment", "a.png", "-o", "out", "--write", "labels", classes="cat")
    assert "there is only one class" in result.stderr


def test_classes_are_names_files_or_data_sets(here):
    assert parse_classes("person|man, dog").classes == (("person", "man"), ("dog",))
    assert parse_classes("voc21") == ClassList.shipped("voc21")
    Path("list.txt").write_text("sky, wall\ncat, feline\n")
    assert parse_classes("list.txt").classes == (("sky", "wall"), ("cat", "feline"))
    assert parse_classes("list.txt", background_first=True).background
    mine = parse_classes("cat, dog", background="sky, wall")
    assert (mine.labels, mine.classes[0]) == (("background", "cat", "dog"), ("sky", "wall"))
    common = parse_classes("Sky, dog", background="auto").classes[0]
    assert "sky" not in common
    assert len(common) == 43


def test_texts_are_files_or_shipped(here):
    Path("texts.txt").write_text("cat >=a pet with whiskers\ndog >=a tame wolf\n")
    assert [*find_texts("texts.txt", "cat, dog").aux(["cat", "dog"])] == [
        ("a pet with whiskers",),
        ("a tame wolf",),
    ]
    assert find_texts(None, "cat") is None
    assert len(find_texts("auto", "voc21").aux(ClassList.shipped("voc21").foreground)) == 20


def test_settings_change_together_and_keep_their_kinds():
    config = change_settings(
        ITACLIPConfig.preset("voc21"),
        [
            "crop=64",
            "stride=16",
            "area_threshold=null",
            "attention.pairs=qq,vv",
            "lam=1",
            "attention.mid_layers=1,0.5",
        ],
    )
    assert (config.crop, config.stride, config.area_threshold, config.lam) == (64, 16, None, 1)
    assert config.attention.pairs == ("qq", "vv")
    assert config.attention.mid_layers == (1, 0.5)
    assert change_settings(config, ["attention.mid_layers=[]"]).attention.mid_layers == ()
    assert change_settings(config, ["attention.residual=false"]).attention.residual is False
    for wrong in (
        "attention.residual=1",
        "lam=null",
        "positions=3",
        "closing=yes",
        "attention.pairs=zz",
        "attention=1",
    ):
        with pytest.raises(ValueError, match=r"wrong kind|must be|--set takes"):
            change_settings(config, [wrong])


def test_presets_show_effective_settings(run):
    assert "maskclip" in run("presets").stdout
    shown = json.loads(run("presets", "voc21", "--set", "stride=56").stdout)
    assert (shown["stride"], shown["logit_scale"]) == (56, 60.0)
    assert ITACLIPConfig.from_dict(shown) == ITACLIPConfig.preset("voc21", stride=56)
    assert "preset must be one of" in sentence(run("presets", "none", code=2))


def test_models_are_listed(run):
    assert isinstance(json.loads(run("models", "--json").stdout), dict)
    assert "model" in run("models").stdout


def test_help_teaches_by_example(run):
    for name in ("demo", "segment", "video", "evaluate", "convert", "export"):
        text = run(name, "--help").stdout
        assert f"itaclip {name} " in text
        assert "Exit code" in text
    assert "itaclip models --json" in run("models", "--help").stdout
    assert "itaclip presets voc21" in run("presets", "--help").stdout
    assert run("--version").stdout.startswith("itaclip ")


def test_pages_do_without_scores_where_these_are_large(run, monkeypatch):
    save("a.png")
    run("segment", "a.png", "-o", "a.html")
    monkeypatch.setattr(command, "_SCORE_NUMBERS", 10)
    run("segment", "a.png", "-o", "b.html")
    assert '"ranks":[]' in Path("b.html").read_text("utf-8")
    assert '"ranks":[]' not in Path("a.html").read_text("utf-8")
