# SPDX-License-Identifier: Apache-2.0
"""Folders in the format of transformers against the forward of transformers."""

import json

import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from itaclip.loading import load_clip, load_tokenizer
from itaclip.model import ITACLIP
from itaclip.text.classes import ClassList
from transformers import CLIPConfig, CLIPModel

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-4}
WORDS = 49408
TEXT = {
    **TOWER,
    "hidden_size": 16,
    "vocab_size": WORDS,
    "max_position_embeddings": 20,
    "bos_token_id": WORDS - 2,
    "eos_token_id": WORDS - 1,
}


def save(folder, act="quick_gelu", *, text=None, **changes):
    config = CLIPConfig(
        vision_config={**VISION, "hidden_act": act},
        text_config={**TEXT, "hidden_act": act, **(text or {})},
        projection_dim=24,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "token_embedding" not in name:
                parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    if changes:
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**stored, **changes}))
    return model


def features(found):
    # transformers 5 gives the output of the tower, 4 the tensor
    return found if isinstance(found, torch.Tensor) else found.pooler_output


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_features_are_those_of_transformers(tools, tmp_path, act):
    expected = save(tmp_path, act)
    model, tokenizer = load_clip(tmp_path, device="cpu")
    images, tokens = tools.image(2, 3, 32, 32), tokenizer(["a cat", "two dogs on the grass"])
    assert tokens.shape == (2, 20)
    found = model.encode_image(images)
    assert torch.allclose(found, features(expected.get_image_features(images)), atol=1e-5)
    ends = tokens.argmax(dim=1, keepdim=True)
    mask = (torch.arange(20) <= ends).long()
    texts = expected.get_text_features(input_ids=tokens, attention_mask=mask)
    assert torch.allclose(model.encode_text(tokens), features(texts), atol=1e-5)
    assert torch.allclose(model.logit_scale, expected.logit_scale)


def test_a_flag_goes_before_hidden_act(tools, tmp_path):
    save(tmp_path, "quick_gelu")
    images = tools.image(1, 3, 32, 32)
    own, forced, other = (
        load_clip(tmp_path, quick_gelu=flag, device="cpu")[0].encode_image(images)
        for flag in (None, True, False)
    )
    assert torch.equal(own, forced)
    assert not torch.allclose(own, other, atol=1e-4)


def test_the_engine_runs_on_it(tools, tmp_path):
    save(tmp_path)
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    segmenter = ITACLIP.from_pretrained(tmp_path, preset="sclip", device="cpu")
    assert segmenter.windows.normalizer.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    tokens = load_tokenizer(str(tmp_path))(["a cat"])
    text = segmenter.model.encode_text(tokens, normalize=True)
    segmenter.set_text_features(text.expand(2, -1), ClassList.build(["cat", "dog"]))
    assert segmenter.predict(tools.image(3, 40, 30)).labels.shape == (40, 30)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model_type": "siglip"}, "describes no CLIP model of transformers, but one of the kind 'siglip'"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act must be quick_gelu or gelu in both towers"),
        ({"text_config": {"hidden_act": "gelu"}}, "in both towers, got gelu, quick_gelu"),
    ],
    ids=["another model", "another activation", "two activations"],
)
def test_what_cannot_be_built_is_refused(tmp_path, changes, rule):
    save(tmp_path, **changes)
    with pytest.raises(ModelNotFoundError, match=rule):
        load_clip(tmp_path, device="cpu")


def test_a_folder_without_safetensors_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="cannot be loaded") as caught:
        load_clip(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_its_own_needs_its_tokenizer(tmp_path):
    save(tmp_path, text={"vocab_size": 300, "bos_token_id": 298, "eos_token_id": 299})
    with pytest.raises(ModelNotFoundError, match=r"has no tokenizer\.json, and its vocabulary of 300 words"):
        load_clip(tmp_path, device="cpu")
    save(tmp_path, text={"vocab_size": 300, "bos_token_id": 298, "eos_token_id": 5})
    with pytest.raises(ModelNotFoundError, match="the end of a text must have the largest number"):
        load_clip(tmp_path, device="cpu")
