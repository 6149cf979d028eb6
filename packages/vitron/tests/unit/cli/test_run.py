# SPDX-License-Identifier: Apache-2.0
import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from PIL import Image
from vitron.demo.painters import ToyPainter
from vitron.demo.scripted import CIRCLE, SCENE, draw, mask_of
from vitron.protocol.media import read_media
from vitron.specialists import registry

SEGMENT = "Here. <module>B</module><instruction>segment: the red circle</instruction>"
DRAW = "<module>A</module><instruction>draw: a red star</instruction>"
TOYS = ("ToyPainter", "ToySegmenter", "ToyAnimator")


@pytest.fixture(autouse=True)
def _toys_alone(monkeypatch, tmp_path):
    """Toy specialists in the place of what is installed, and an image with an odd name."""
    points = [EntryPoint(name, f"vitron.demo.painters:{name}", registry.GROUP) for name in TOYS]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    Image.fromarray(draw(*SCENE)).save(tmp_path / "a; photo's.png")


def results(shown):
    return [json.loads(line) for line in shown.out.splitlines()]


def test_a_message_becomes_files(run, tmp_path):
    shown = run("run", "a; photo's.png", "--reply", SEGMENT)
    assert "Here." in shown.out
    assert "mask_1 from a; photo's.png: image_segmentation by ToySegmenter: " in shown.out
    files = {path.name for path in (tmp_path / "vitron-out").glob("*.png")}
    assert files == {"mask_1-overlay.png", "mask_1.png"}
    mask = read_media(tmp_path / "vitron-out" / "mask_1.png").data[..., 0] > 0
    assert np.array_equal(mask, mask_of(CIRCLE))


def test_one_object_per_result(run, tmp_path):
    reply = DRAW + SEGMENT.replace("circle", "star")
    first, second = results(run("run", "--reply", "-", "-o", "x", "--json", stdin=reply))
    assert (first["handle"], first["input"], first["status"]) == ("img_1", None, "done")
    (instance,) = second["instances"]
    assert (instance["label"], len(instance["frames"])) == ("red star", 1)
    assert 0 < instance["frames"][0]["area"] < 64 * 64
    assert instance["frames"][0]["region"]["size"] == [64, 64]
    assert second["input"] == first["outputs"]["image"]
    assert set(second["outputs"]) == {"masks", "overlay"}
    assert second["seconds"] >= 0
    paths = [*first["outputs"].values(), *second["outputs"].values()]
    assert all((tmp_path / path).is_file() for path in paths)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_a_video_goes_in_and_comes_out(run, tmp_path, mp4, suffix):
    (tmp_path / "moves.mp4").write_bytes(mp4)
    reply = "<module>E</module><instruction>track: the red circle</instruction>"
    (entry,) = results(run("run", "moves.mp4", "--reply", reply, "--json", "--video-format", suffix))
    assert entry["outputs"]["overlay"].endswith(f"overlay.{suffix}")
    masks, overlay = (read_media(tmp_path / path) for path in entry["outputs"].values())
    assert (masks.num_frames, overlay.num_frames, overlay.fps) == (4, 4, 10)
    source = read_media(tmp_path / "moves.mp4").data
    is_red = (source[..., 0] > 128) & (source[..., 1] < 128)
    found = masks.data[..., 0] > 128
    assert (found & is_red).sum() / (found | is_red).sum() > 0.9


def test_every_instance_has_its_box(run):
    reply = "<module>B</module><instruction>segment: everything</instruction>"
    (entry,) = results(run("run", "a; photo's.png", "--reply", reply, "--json"))
    boxes = [instance["frames"][0]["box"] for instance in entry["instances"]]
    assert len(boxes) == 3
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in boxes)
    # the text has the boxes as regions are written
    shown = run("run", "a; photo's.png", "--reply", reply, "--overwrite").out
    for instance, box in zip(entry["instances"], boxes, strict=True):
        assert f"  {instance['label']} {[round(each * 999) for each in box]}" in shown


def test_a_named_specialist_is_checked(run, sentence):
    named = ["run", "--reply", DRAW, "--dry-run", "--specialist"]
    assert "no specialist 'sam'" in sentence(run(*named, "sam", code=2))
    assert "does not serve 'B'" in sentence(run(*named, "B=ToyPainter", code=2))
    assert "by ToyPainter" in run(*named, "A=ToyPainter").out


def test_a_dry_run_writes_nothing(run, tmp_path):
    calls = results(run("run", "--reply", DRAW + SEGMENT, "--dry-run", "--json"))
    assert [call["after"] for call in calls] == [[], [0]]
    assert calls[1]["specialists"] == ["ToySegmenter"]
    assert "mask_1 from img_1" in run("run", "--reply", DRAW + SEGMENT, "--dry-run").out
    assert not (tmp_path / "vitron-out").exists()


def test_some_calls_may_fail(run, tmp_path):
    shown = run("run", "--reply", DRAW + SEGMENT, "--json", code=1)
    assert [result["status"] for result in results(shown)] == ["done", "failed"]
    assert [result["handle"] for result in results(shown)] == ["img_1", None]
    assert "finds nothing like 'the red circle'" in results(shown)[1]["error"]
    assert (tmp_path / "vitron-out" / "img_1.png").is_file()
    # what failed is tried again, and the files of the first run are known
    assert "finds nothing" in run("run", "--reply", DRAW + SEGMENT, code=1).err


def test_results_are_made_once_for_the_same_settings(run, tmp_path):
    file = tmp_path / "vitron-out" / "img_1.png"

    def status(*more):
        (result,) = results(run("run", "--reply", DRAW, "--json", *more))
        return result["status"]

    assert status() == "done"
    before = file.read_bytes()
    assert status() == "skipped"
    assert status("--seed", "5") == "done"
    assert file.read_bytes() != before
    assert status("--seed", "5", "--overwrite") == "done"
    file.unlink()
    assert status("--seed", "5") == "done"
    assert "skipped" in run("run", "--reply", DRAW, "--seed", "5").err


def test_a_killed_run_is_run_again(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vitron.cli.run._Record.complete", lambda self, entries: None)
        run("run", "--reply", DRAW)
    (result,) = results(run("run", "--reply", DRAW, "--json"))
    assert result["status"] == "done"


def test_files_of_others_are_kept(run, tmp_path, sentence):
    file = tmp_path / "vitron-out" / "img_1.png"
    file.parent.mkdir()
    file.write_bytes(b"mine")
    assert "is not a result of an earlier run" in sentence(run("run", "--reply", DRAW, code=2))
    assert file.read_bytes() == b"mine"
    run("run", "--reply", DRAW, "--overwrite")
    assert file.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.png", "--reply", SEGMENT], "none.png does not exist"),
        (["--reply", "Just text."], "has no call that can run"),
        (["--reply", DRAW, "-o", "a; photo's.png"], "a; photo's.png"),
        (["--reply", DRAW, "--device", "cuda:7"], "cuda:7"),
        (["--reply", DRAW, "--timeout", "-1"], "timeout must be at least 0"),
        (["--colour"], "--colour"),
    ],
)
def test_wrong_usage_is_one_sentence(run, sentence, args, message):
    assert message in sentence(run("run", *args, code=2))


def test_issues_are_named(run):
    assert "there is no module 'Z'" in run("run", "--reply", f"<module>Z</module>{DRAW}").err


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--dry-run",), 0)])
def test_a_faulty_region_is_named_once(run, options, code):
    shown = run("run", "a; photo's.png", *options, "--reply", f"{SEGMENT}<region>all</region>", code=code)
    assert (shown.out + shown.err).count("a region is a box as") == 1


def test_a_budget_that_is_too_small(run, monkeypatch):
    spec = ToyPainter().spec.model_copy(update={"memory_bytes": 3_000_000})
    monkeypatch.setattr(ToyPainter, "spec", spec)
    shown = run("run", "--reply", DRAW, "--memory", "2", code=1)
    assert "ToyPainter needs 3000000 bytes" in shown.err


def test_a_user_without_a_specialist_is_told(run, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    shown = run("run", "--reply", DRAW, code=1)
    assert "no specialist serves text_to_image: `vitron specialists` lists" in shown.err
    assert not (tmp_path / "vitron-out").exists()
