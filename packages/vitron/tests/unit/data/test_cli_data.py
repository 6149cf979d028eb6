# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from typer.testing import CliRunner
from vitron.cli.app import app


def run(*args, code=0):
    result = CliRunner().invoke(app, ["data", *map(str, args)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def converted(layout, tmp_path):
    run("convert", "refcoco", layout("refcoco"), "-o", tmp_path / "out")
    return tmp_path / "out"


def test_convert_check_and_show(converted):
    assert json.loads(run("check", converted, "--json").stdout) == {
        "samples": 3,
        "tasks": {"referring_segmentation": 3},
        "problems": [],
    }
    rows = [json.loads(line) for line in run("show", converted, "--json").stdout.splitlines()]
    assert rows == [
        {"task": "referring_segmentation", "split": "test", "samples": 2},
        {"task": "referring_segmentation", "split": "val", "samples": 1},
    ]
    told = run("show", converted, "--id", "5-0").stdout
    assert "Segment red box." in told
    assert "<module>image_segmentation</module>" in told
    assert "truth: masks, boxes" in told


def test_what_is_wrong_is_said(converted, layout, tmp_path):
    lines = (converted / "data.jsonl").read_text("utf-8").splitlines()
    (converted / "data.jsonl").write_text("\n".join([lines[0], "{}", lines[1], lines[2]]), "utf-8")
    next((converted / "images").glob("*")).unlink()
    result = run("check", converted, code=1)
    assert "line 2: id: Field required" in result.stderr
    assert "3 samples can be read, 4 problems" in result.stdout
    assert "is there already" in run("convert", "vqa", layout("vqa"), "-o", converted, code=2).stderr
    assert "layout must be one of" in run("convert", "x", tmp_path, "-o", tmp_path / "y", code=2).stderr


def test_an_unknown_sample_is_one_sentence(converted):
    result = run("show", converted, "--id", "zz", code=2)
    assert result.stderr.strip().endswith("holds no sample 'zz'")


def test_a_missing_picture_costs_its_sample_alone(layout, tmp_path):
    source, out = layout("llava"), tmp_path / "out"
    (file,) = source.glob("*.json")
    items = json.loads(file.read_text("utf-8"))
    gone = next(each for each in items if "image" in each) | {"id": "gone", "image": "gone.jpg"}
    file.write_text(json.dumps([*items, gone]), "utf-8")
    result = run("convert", "llava", source, "-o", out, code=1)
    assert "gone.jpg does not exist" in result.stderr
    assert f"{len(items)} samples in" in result.stdout
    assert "1 left out" in result.stdout
    assert run("check", out, "--json").exit_code == 0
    file.write_text(json.dumps([gone]), "utf-8")
    assert (
        "gone.jpg does not exist" in run("convert", "llava", source, "-o", tmp_path / "none", code=2).stderr
    )
