# SPDX-License-Identifier: Apache-2.0
"""Prompts of patches by the cross-attention of the network."""

import numpy as np
import pytest
import torch
from pixelsmith import load_model
from pixelsmith.adapters import Condition, PatchPlace, from_pipeline
from pixelsmith.adapters.phrases import PhraseMaps, split_phrases
from pixelsmith.job import Job, MemoryStore, assist
from pixelsmith.store.rows import ArrayRows
from tiny_models import tiny_pipeline

PROMPT = "a red circle and a blue square"


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a red circle and a star on waves", ["a red circle", "and a star", "on waves"]),
        ("a harbour, at dawn, with boats.", ["a harbour", ", at dawn", ", with boats ."]),
        ("hills", ["hills"]),
        ("", []),
    ],
)
def test_prompts_are_split_where_phrases_join(prompt, phrases):
    assert [" ".join(words) for words in split_phrases(prompt)] == phrases


def test_a_patch_gets_the_phrases_that_it_touches():
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, :2], maps[1, 0, 3], maps[2, 2:] = 1, 0.6, 0.4
    found = PhraseMaps(split_phrases("a sky, and a gull on waves"), maps)

    def choose(top, left, side=100):
        return found.choose(PatchPlace(top=top, left=left, height=side, width=side, size=(400, 400)))

    assert choose(0, 0) == "a sky"
    assert choose(0, 201, 199) == "a sky, and a gull"
    assert choose(0, 50, 200) == "a sky"
    assert choose(390, 310, 50) == "a sky, and a gull"  # goes on at the other side
    assert choose(250, 0) == ""
    maps[0] = 0
    assert choose(0, 300) == "a gull"


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-sdxl", PROMPT, device="cpu", num_inference_steps=10, guidance_scale=4.0,
                      patch_prompts="auto")  # fmt: skip


def two_things():
    """A red circle at the left and a blue square at the right, on grey."""
    image = np.full((64, 64, 3), 128, np.uint8)
    rows, columns = np.mgrid[:64, :64]
    image[(rows - 30) ** 2 + (columns - 16) ** 2 < 100] = (210, 30, 40)
    image[22:40, 40:58] = (30, 50, 220)
    return image


def test_the_network_tells_where_each_thing_is(model):
    def prompts():
        choose = model._phrases.choose
        return [
            choose(PatchPlace(top=88, left=left, height=64, width=64, size=(256, 256))) for left in (32, 164)
        ]

    model.look(ArrayRows(two_things()))
    assert prompts() == ["a red circle", "a blue square"]
    model.look(ArrayRows(two_things()[:, ::-1].copy()))
    assert prompts() == ["a blue square", "a red circle"]
    assert not any(layer._forward_pre_hooks for layer in model.network.modules())


def test_the_denoiser_gets_the_prompt_of_each_patch(model):
    model.look(ArrayRows(two_things()))
    condition = model.conditions((256, 256), (16, 16))
    red, blue = condition(22, 8), condition(22, 41)
    plain = load_model("tiny-sdxl", "a red circle", device="cpu", guidance_scale=4.0)
    torch.testing.assert_close(red.embeds, plain.condition().embeds)
    assert not torch.equal(red.embeds, blue.embeds)
    assert model.describe()["patch_prompts"] == "auto"


def test_a_stage_looks_at_the_image_that_it_enlarges(dummies):
    seen = []
    model = dummies.Dummy()
    model.look = lambda rows: seen.append((rows.height, rows.width))
    Job(model, dummies.spec(sizes=((48, 56), (72, 84))), MemoryStore()).run()
    assert seen == [(24, 28), (48, 56)]


def test_what_cannot_be_told_is_refused(dummies):
    flow = tiny_pipeline("sd3")
    with pytest.raises(ValueError, match="patch_prompts='auto' needs SD or SDXL, and a prompt as text"):
        from_pipeline(flow, "a boat", patch_prompts="auto")
    embeds = Condition(embeds=torch.zeros(1, 4, 8))
    with pytest.raises(ValueError, match="needs SD or SDXL, and a prompt as text"):
        from_pipeline(tiny_pipeline("sd"), embeds, patch_prompts="auto")
    with pytest.raises(ValueError, match="patch_prompt and patch_prompts cannot both be given"):
        from_pipeline(flow, "a boat", patch_prompts="auto", patch_prompt=lambda place: "")
    several = dummies.Dummy()
    several.chooses_prompts = True
    with pytest.raises(ValueError, match="patch_prompts='auto' works in one process only"):
        assist(several, dummies.spec(), None)
    with pytest.raises(ValueError, match="works in one process only"):
        Job(several, dummies.spec(), MemoryStore(), ranks=object())
