# SPDX-License-Identifier: Apache-2.0
import json

import pytest


@pytest.fixture
def converted(run, layout, tmp_path):
    run("data", "convert", "refcoco", layout("refcoco"), "-o", tmp_path / "out")
    return tmp_path / "out"


def test_convert_check_and_show(run, converted):
    assert json.loads(run("data", "check", converted, "--json").out) == {
        "samples": 3,
        "tasks": {"referring_segmentation": 3},
        "problems": [],
    }
    rows = [json.loads(line) for line in run("data", "show", converted, "--json").out.splitlines()]
    assert rows == [
        {"task": "referring_segmentation", "split": "test", "samples": 2},
        {"task": "referring_segmentation", "split": "val", "samples": 1},
    ]
    text = run("data", "show", converted, "--id", "5-0").out
    assert "Segment red box." in text
    assert "<module>image_segmentation</module>" in text
    assert "truth: masks, boxes" in text


def test_problems_are_named(run, converted, layout, tmp_path):
    lines = (converted / "data.jsonl").read_text("utf-8").splitlines()
    (converted / "data.jsonl").write_text("\n".join([lines[0], "{}", lines[1], lines[2]]), "utf-8")
    next((converted / "images").glob("*")).unlink()
    result = run("data", "check", converted, code=1)
    assert "line 2: id: Field required" in result.err
    assert "3 samples can be read, 4 problems" in result.out
    assert "exists" in run("data", "convert", "vqa", layout("vqa"), "-o", converted, code=2).err
    assert "layout must be one of" in run("data", "convert", "x", tmp_path, "-o", tmp_path / "y", code=2).err


def test_an_unknown_sample_is_one_sentence(run, converted):
    result = run("data", "show", converted, "--id", "zz", code=2)
    assert result.err.strip().endswith("holds no sample 'zz'")


def test_a_missing_image_costs_its_sample_alone(run, layout, tmp_path):
    source, out = layout("llava"), tmp_path / "out"
    (file,) = source.glob("*.json")
    items = json.loads(file.read_text("utf-8"))
    gone = next(each for each in items if "image" in each) | {"id": "gone", "image": "gone.jpg"}
    file.write_text(json.dumps([*items, gone]), "utf-8")
    result = run("data", "convert", "llava", source, "-o", out, code=1)
    assert "gone.jpg does not exist" in result.err
    assert f"{len(items)} samples in" in result.out
    assert "1 skipped" in result.out
    run("data", "check", out, "--json")
    file.write_text(json.dumps([gone]), "utf-8")
    assert (
        "gone.jpg does not exist"
        in run("data", "convert", "llava", source, "-o", tmp_path / "none", code=2).err
    )
