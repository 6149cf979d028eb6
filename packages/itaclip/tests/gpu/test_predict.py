# SPDX-License-Identifier: Apache-2.0
"""The engine on a CUDA device against the CPU, and half precision against full."""

import copy
from dataclasses import replace

import pytest
import torch
from itaclip import ITACLIP, ITACLIPConfig
from itaclip.demo import DemoScenes
from itaclip.shipped import SHIPPED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SMALL = {"crop": 32, "stride": 16, "resize_short": 48, "pamr_steps": 2, "pamr_dilations": (1, 3)}


@pytest.mark.parametrize("name", ["itaclip", "vanilla", "naclip", "maskclip"])
def test_scores_are_those_of_the_cpu(tools, classes, name):
    config = ITACLIPConfig.preset(name, **SMALL)
    image = tools.image(3, 53, 71)
    scores = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(tools.native()).to(device)
        engine = ITACLIP(model, None, config).set_text_features(tools.text(6), classes)
        scores.append(engine.predict(image, return_scores=True).scores)
    assert (scores[0] - scores[1]).abs().max() < 1e-3


@pytest.mark.skipif("tiny-shapes" not in SHIPPED.names(), reason="tiny-shapes is not inside this package")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_the_same_labels(dtype):
    scenes, labels = DemoScenes.load(), []
    # without closing, a pixel counts once
    config = replace(ITACLIPConfig.preset("tiny-shapes"), closing=False)
    for precision in ("float32", dtype):
        engine = ITACLIP.from_pretrained("tiny-shapes", preset=config, device="cuda", dtype=precision)
        engine.set_classes(scenes.classes, background=scenes.background)
        labels.append(torch.stack([found.labels for found in engine.predict(scenes.images)]))
    assert (labels[0] == labels[1]).float().mean() > 0.99
