# SPDX-License-Identifier: Apache-2.0
"""Folders whose weights are another model's, or not all there."""

import pytest
from itaclip.attention.regions import RegionModel
from itaclip.attention.towers import PatchTower, SamTower
from itaclip.pretrained import load_complete
from itaclip.text.llm import LLMSource
from itaclip.transformers_clip import load_transformers_clip
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    EomtImageProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
)


@pytest.fixture
def gpt2(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=16))
    model.save_pretrained(tmp_path)
    return tmp_path


def _drop(folder, key):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights[key]
    save_file(weights, file, {"format": "pt"})


def test_what_is_tied_is_not_missing_and_what_is_missing_is_named(gpt2):
    assert load_complete(GPT2LMHeadModel, gpt2).config.n_embd == 8
    _drop(gpt2, "transformer.h.0.ln_1.bias")
    with pytest.raises(ValueError, match=r"lack 1 of \d+ weights of a GPT2Model, such as h\.0\.ln_1\.bias"):
        load_complete(GPT2Model, gpt2)


def test_weights_of_another_model_are_refused_wherever_transformers_loads(gpt2):
    for load in (SamTower, RegionModel, PatchTower):
        EomtImageProcessor().save_pretrained(gpt2)
        with pytest.raises(FileNotFoundError, match="cannot be loaded: it must be"):
            load(str(gpt2))
    with pytest.raises(FileNotFoundError, match="'architecture' is missing in its configuration"):
        PatchTower(str(gpt2))
    with pytest.raises(FileNotFoundError, match=r"lack .* weights of a SamModel"):
        SamTower(str(gpt2))


def test_a_language_model_that_is_not_whole_is_refused(gpt2):
    _drop(gpt2, "transformer.h.0.ln_1.bias")
    with pytest.raises(FileNotFoundError, match="lack 1 of"):
        LLMSource(str(gpt2), tokenizer=object(), device="cpu", cache=None).aux(["cat"])


def test_a_clip_that_is_not_whole_is_refused(tmp_path):
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=small, vision_config=small, projection_dim=8)).save_pretrained(tmp_path)
    load_transformers_clip(tmp_path)
    _drop(tmp_path, "visual_projection.weight")
    with pytest.raises(
        FileNotFoundError, match=r"lack 1 of \d+ weights of a CLIPModel, such as visual_projection"
    ):
        load_transformers_clip(tmp_path)
