# SPDX-License-Identifier: Apache-2.0
"""The engine on each device against double precision, half precision against full, and its memory."""

import copy
from dataclasses import replace

import pytest
import torch
from itaclip import ITACLIP, ITACLIPConfig
from itaclip.demo import DemoScenes
from itaclip.shipped import SHIPPED

SMALL = {"crop": 32, "stride": 16, "resize_short": 48, "pamr_steps": 2, "pamr_dilations": (1, 3)}


@pytest.mark.parametrize("name", ["itaclip", "vanilla", "naclip", "maskclip"])
def test_scores_are_those_of_double_precision(tools, classes, device, name):
    config = ITACLIPConfig.preset(name, **SMALL)
    image = tools.image(3, 53, 71)
    scores = []
    for model, where in ((tools.exact(), "cpu"), (tools.native(), device)):
        engine = ITACLIP(copy.deepcopy(model).to(where), None, config)
        engine.set_text_features(tools.text(6), classes)
        scores.append(engine.predict(image, return_scores=True).scores.cpu().double())
    assert (scores[0] - scores[1]).abs().max() < 1e-3


@pytest.mark.skipif("tiny-shapes" not in SHIPPED.names(), reason="tiny-shapes is not inside this package")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_the_same_labels(device, dtype):
    scenes, labels = DemoScenes.load(), []
    # without closing, a pixel counts once
    config = replace(ITACLIPConfig.preset("tiny-shapes"), closing=False)
    for precision in ("float32", dtype):
        engine = ITACLIP.from_pretrained("tiny-shapes", preset=config, device=device, dtype=precision)
        engine.set_classes(scenes.classes, background=scenes.background)
        labels.append(torch.stack([found.labels for found in engine.predict(scenes.images[:1])]))
    assert (labels[0] == labels[1]).float().mean() > 0.99


def test_a_compiled_tower_gives_the_same_scores(tools, classes, device, compiler):
    torch.compiler.reset()
    image, scores = tools.image(3, 48, 64), []
    for compiled in (False, True):
        model = copy.deepcopy(tools.native()).to(device)
        if compiled:
            model.visual.compile(backend=compiler)
        engine = ITACLIP(model, None, ITACLIPConfig.preset("itaclip", **SMALL))
        engine.set_text_features(tools.text(6), classes)
        scores.append(engine.predict(image, return_scores=True).scores)
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_memory_follows_the_batch_of_windows_and_not_the_image(tools, classes):
    config = ITACLIPConfig.preset("vanilla", **{**SMALL, "resize_short": None}, batch_size=4)
    engine = ITACLIP(copy.deepcopy(tools.native()).to("cuda"), None, config)
    engine.set_text_features(tools.text(6), classes)
    peaks = []
    for side in (64, 64, 192):
        image = tools.image(3, side, side)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        engine.predict(image)
        torch.cuda.synchronize()
        peaks.append((torch.cuda.max_memory_allocated() - before) / side**2)
    assert peaks[2] < peaks[1]  # per pixel: what grows are scores, not activations
