# SPDX-License-Identifier: Apache-2.0
"""The world does not change unnoticed: what models were trained on can be drawn again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from shapeworld import SceneConfig, draw_scene, render, scene_rng
from shapeworld.captions import caption
from shapeworld.edits import draw_edit
from shapeworld.questions import ask
from shapeworld.referring import refer
from shapeworld.videos import draw_video

GOLDEN = Path(__file__).with_name("golden.json")
SPLITS = ("train", "val", "test", "novel")


def digest(index: int) -> str:
    """Hash image, masks and words of a sample; levels are coarse so that a last bit seldom counts."""
    split = SPLITS[index % 4]
    config = SceneConfig.preset("simple" if index % 3 == 0 else "full")
    scene, rng = draw_scene(11, index, split=split, config=config), scene_rng(11, index, 5)
    rendering = render(scene, (32, 64, 96)[index % 3])
    edit, reference, question = draw_edit(scene, rng), refer(scene, rng), ask(scene, rng)
    words = [caption(scene, rng, length=length) for length in ("short", "medium", "long")]
    words += [edit.instruction, reference.text if reference else "", question.text, question.answer]
    words.append(draw_video(11, index, split=split).caption)
    levels = np.rint(rendering.image / 8).astype(np.uint8)
    parts = [
        levels.tobytes(),
        rendering.instances.tobytes(),
        rendering.full.tobytes(),
        "\n".join(words).encode(),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@pytest.mark.parametrize("index", range(64))
def test_sample_is_what_it_was(index: int) -> None:
    assert digest(index) == json.loads(GOLDEN.read_text("utf-8"))[index]
