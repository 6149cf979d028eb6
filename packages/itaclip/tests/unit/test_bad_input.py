# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one sentence each, and a batch continues past bad files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from itaclip import ITACLIP, ITACLIPConfig, Overlay
from itaclip.text import ClassList
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

OPTIONS = ("--crop", 32, "--stride", 32, "--resize-short", 32, "--pamr-steps", 1, "--attention.mid-layers=")
OPTIONS += ("--branches", "identity", "--device", "cpu", "-o", "out", "--write", "labels")
LONG_NAME = "cat " * 80


@pytest.fixture
def call(invoke, tiny_folder):
    return lambda *args, model=tiny_folder, code: invoke(
        "segment", *args, *OPTIONS, "--model", model, code=code
    )


def image(path, height=20, width=24):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["-c", "cat, CAT"], "class name 'CAT' is given twice"),
        (["-c", "cat|feline, feline"], "class name 'feline' is given twice"),
        (["-c", " ,, "], "--classes is empty"),
        (["-c", f"dog, {LONG_NAME}"], "tokens and the model reads 77: shorten the name or text"),
        (["-c", "cat, dog", "--texts", "short.txt"], "dog"),
        (["-c", "cat, dog", "--texts", "short.json"], "dog"),
        (["-c", "cat, dog", "--texts", "long.yaml"], "shorten the name or text"),
        (["-c", "cat, dog", "--background-names", "dog"], "word 'dog' is also the name of a class"),
    ],
    ids=["twice", "twice-below", "empty", "long-name", "short-list", "missing", "long-text", "background"],
)
def test_wrong_names_and_texts(call, args, reason):
    image("a.png")
    Path("short.txt").write_text("cat >=a pet with whiskers\n")
    Path("short.json").write_text('{"cat": "a pet with whiskers"}')
    Path("long.yaml").write_text(f"cat: {LONG_NAME}\ndog: a tame wolf\n")
    result = call("a.png", *args, code=2)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("itaclip: ")
    assert reason in line
    assert not Path("out").exists()


def test_a_batch_continues_past_bad_images(call):
    Path("in").mkdir()
    image("in/a.png")
    image("in/b-dot.png", 1, 1)
    image("in/c-strip.png", 2, 20_000)
    image("in/d-cut.png")
    Path("in/d-cut.png").write_bytes(Path("in/d-cut.png").read_bytes()[:200])
    Path("in/e-text.jpg").write_text("no image")
    Path("in/f-empty.png").touch()
    Image.new("F", (8, 8), 0.5).save("in/g-floats.tiff")
    image("in/h.png")
    result = call("in", "-c", "cat, dog, sky", "--json", code=1)
    rows = {Path(row["input"]).stem: row for row in map(json.loads, result.stdout.splitlines())}
    assert [stem for stem, row in rows.items() if row["status"] == "done"] == [
        "a",
        "b-dot",
        "c-strip",
        "g-floats",
        "h",
    ]
    for stem, reason in {
        "d-cut": "is damaged or cut short",
        "e-text": "is not an image that can be read",
        "f-empty": "is empty",
    }.items():
        assert reason in rows[stem]["error"]
        assert f"{stem}." in rows[stem]["error"]
        assert "\n" not in rows[stem]["error"]
    for stem, size in {"b-dot": (1, 1), "c-strip": (20_000, 2)}.items():
        with Image.open(f"out/{stem}-labels.png") as labels:
            assert labels.size == size
    assert "5 done, 3 failed" in result.stderr


def test_a_strip_of_20_000_pixels_at_its_own_size(call):
    image("strip.png", 2, 20_000)
    call("strip.png", "-c", "cat, dog", "--max-side", 0, code=0)
    with Image.open("out/strip-labels.png") as labels:
        assert labels.size == (20_000, 2)


def test_weights_that_are_no_clip(call, tmp_path):
    image("a.png")
    folder = tmp_path / "resnet"
    folder.mkdir()
    save_file({"layer1.weight": torch.zeros(2)}, folder / "open_clip_model.safetensors")
    for text, reason in {
        "{}": "describes no CLIP model of open_clip",
        "not json": "cannot be read",
        '{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}': "cannot be loaded",
    }.items():
        (folder / "open_clip_config.json").write_text(text)
        result = call("a.png", "-c", "cat, dog", model=folder, code=2)
        (line,) = result.stderr.strip().splitlines()
        assert reason in line


def test_more_classes_than_a_byte_holds_are_closed_and_written(tools, tmp_path):
    names = [f"class {number}" for number in range(300)]
    small = {"crop": 32, "stride": 32, "resize_short": 32, "pamr_steps": 0, "branches": ("identity",)}
    config = ITACLIPConfig.preset("itaclip", logit_scale=500.0, **small)
    text = F.normalize(torch.randn(300, 24, generator=torch.Generator().manual_seed(1)), dim=1)
    engine = ITACLIP(tools.native(), None, config).set_text_features(text, ClassList.build(names))
    image = Image.fromarray((tools.image(40, 40, 3) * 255).byte().numpy())
    found = engine.predict(image)
    assert found.labels.max() > 255
    Overlay(image, found).save_labels(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), found.labels.numpy())
