# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from itaclip import ITACLIP, ITACLIPConfig, demo
from itaclip.config import AttentionConfig
from itaclip.demo import SCENES, DemoScenes, demo_configs, run_demo
from itaclip.shipped import SHIPPED
from PIL import Image

FILES = ["comparison.png", *(f"scene-{n}.{kind}" for n in range(1, 7) for kind in ("html", "png"))]


@pytest.fixture
def quick(monkeypatch):
    """One window per scene, one branch, no refinement; two blocks have no layer in between."""
    small = {"crop": 0, "branches": ("identity",), "pamr_steps": 0}
    configs = {
        "vanilla": ITACLIPConfig(
            attention=AttentionConfig(pairs=("qk",), mid_layers=(), ffn=True), resize_short=0, **small
        ),
        "itaclip": ITACLIPConfig(attention=AttentionConfig(mid_layers=()), resize_short=0, **small),
        "default": ITACLIPConfig(attention=AttentionConfig(strategy="value"), resize_short=0, **small),
    }
    monkeypatch.setattr(demo, "demo_configs", lambda: configs)
    return configs


def test_the_scenes_are_small_and_whole():
    assert sum(file.stat().st_size for file in SCENES.iterdir()) < 300_000
    scenes = DemoScenes.load()
    assert len(scenes.images) == len(scenes.truth) == 6
    assert len(scenes.colours) == len(scenes.classes) + 1 == 11
    seen = torch.zeros(11, dtype=torch.int64)
    for image, truth in zip(scenes.images, scenes.truth, strict=True):
        assert (image.height, image.width) == truth.shape
        seen[truth.unique()] += 1
        # part of each thing is in about the colour of its class, which patterns mix with a second tone
        for number in truth.unique().tolist()[1:]:
            pixels = np.asarray(image)[(truth == number).numpy()].astype(float)
            assert np.abs(pixels - scenes.colours[number]).max(1).min() < 30
    assert seen.min() >= 2


def test_configurations_differ_in_the_method_only():
    configs = demo_configs()
    own = ITACLIPConfig.preset("tiny-shapes")
    assert configs["default"] == own
    for name in ("vanilla", "itaclip"):
        assert configs[name].attention == ITACLIPConfig.preset(name).attention
        assert configs[name].branches == ITACLIPConfig.preset(name).branches
        assert (configs[name].crop, configs[name].stride) == (own.crop, own.stride)
        assert configs[name].templates == own.templates


def test_figures_are_those_of_the_comparison(quick, tiny_folder, tmp_path):
    segmenter = ITACLIP.from_pretrained(tiny_folder, preset=quick["vanilla"], device="cpu")
    calls = []
    figures = run_demo(segmenter, tmp_path, name="tiny", progress=lambda *done: calls.append(done))
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert calls[-1] == (18, 18)
    scenes = DemoScenes.load()
    with Image.open(tmp_path / "comparison.png") as image:
        sheet = np.asarray(image)
    gap, head, side = 14, 50, 256
    hits = total = 0
    for row, truth in enumerate(scenes.truth):
        # the last column; titles stand over the first row only, and rows keep their gaps
        top = gap + head + row * (side + 2 * gap) if row == 0 else head + row * (side + 2 * gap) + gap
        corner = (top, gap + 4 * (side + gap))
        tile = sheet[corner[0] : corner[0] + side : 2, corner[1] : corner[1] + side : 2]
        hits += int((tile == scenes.colours[truth.numpy()]).all(-1).sum())
        total += truth.numel()
    assert figures.to_dict()["accuracy"] == pytest.approx(100 * hits / total, abs=0.01)
    assert len({figures.miou_vanilla, figures.miou_itaclip, figures.miou}) == 3


def test_the_command_shows_and_writes(quick, tiny_folder, tmp_path, invoke):
    shown = invoke("demo", "--model", tiny_folder, "--device", "cpu")
    assert "plain CLIP" in shown.stdout
    assert "comparison.png" in shown.stdout
    assert sorted(file.name for file in (tmp_path / "itaclip-demo").iterdir()) == FILES
    plain = invoke("demo", "--json", "--model", tiny_folder, "--device", "cpu", "-o", "x")
    figures = json.loads(plain.stdout)
    assert {"miou_vanilla", "miou_itaclip", "miou", "seconds", "scenes", "model"} <= figures.keys()
    assert (figures["scenes"], figures["classes"]) == (6, 10)


@pytest.mark.skipif("tiny-shapes" not in SHIPPED.names(), reason="tiny-shapes is not inside this package")
def test_the_shipped_model_shows_what_the_method_adds(tmp_path):
    segmenter = ITACLIP.from_pretrained("tiny-shapes", device="cpu")
    figures = run_demo(segmenter, tmp_path, name="tiny-shapes")
    assert figures.miou_itaclip >= 2 * figures.miou_vanilla
    assert figures.miou >= max(30, figures.miou_itaclip - 0.01)
