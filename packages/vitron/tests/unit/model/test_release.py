# SPDX-License-Identifier: Apache-2.0
"""Weights of the authors' release reach their places in a LLaVA of transformers."""

import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM
from vitron.model.assembly import attach_to
from vitron.model.engine import Vitron
from vitron.model.release import load_release, load_release_weights, release_names

from .backbones import make_backbone
from .conftest import ask, make_image, square

# names of parameters of the release: https://github.com/SkyworkAI/Vitron, vitron/model
LAYOUT = {
    "model.region_extractor.region_linear.layers.0.": "region_encoder.features.0.",
    "model.region_extractor.region_linear.layers.1.": "region_encoder.features.2.",
    "model.region_extractor.region_linear.layers.2.": "region_encoder.features.4.",
    "model.region_extractor.loc_encoder.loc_encoder.0.": "region_encoder.location.0.",
    "model.region_extractor.loc_encoder.loc_encoder.2.": "region_encoder.location.2.",
    "model.mm_projector.0.": "backbone.model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "backbone.model.multi_modal_projector.linear_2.",
    "lm_head.": "backbone.lm_head.",
    "model.": "backbone.model.language_model.",
}


def attached(seed=0):
    return attach_to(
        *make_backbone("llava", seed=seed), seed=seed, settings={"region_form": "published", "mask_width": 16}
    )


def renamed(model, rows=None):
    """Return the weights of a model under the names of the release, with so many rows of tokens."""
    out = {"model.image_tower.image_tower.embeddings.class_embedding": torch.zeros(3)}
    for name, weight in model.state_dict().items():
        for theirs, ours in LAYOUT.items():
            if name.startswith(ours):
                kept = weight[:rows] if "embed_tokens" in name or "lm_head" in name else weight
                out[theirs + name.removeprefix(ours)] = kept.clone()
                break
    return out


def test_all_weights_of_the_release_find_their_place():
    source, _ = attached(1)
    model, processor = attached(0)
    rows = len(processor.tokenizer) - 15
    tokens = model.get_input_embeddings().weight.detach().clone()
    names = load_release_weights(model, renamed(source, rows))
    own = ("backbone.model.vision_tower.", "mask_head.", "signal_norm.", "condition_heads.")
    for name, weight in model.state_dict().items():
        if not name.startswith(own):
            assert name in names, name
            count = rows if "embed_tokens" in name or "lm_head" in name else len(weight)
            assert torch.equal(weight[:count], source.state_dict()[name][:count]), name
    assert torch.equal(model.get_input_embeddings().weight[rows:], tokens[rows:])
    example = ask(make_image(0), regions=(square(),), reply=None)
    with torch.no_grad():
        assert model(**Vitron(model, processor).encoder([example]).inputs()).logits.isfinite().all()


def test_what_does_not_fit_is_refused():
    model, _ = attached()
    with pytest.raises(ValueError, match=r"lm_head.weight of size \(9, 3\) does not fit"):
        load_release_weights(model, {"lm_head.weight": torch.zeros(9, 3)})
    with pytest.raises(ValueError, match=r"model.region_extractor.a.weight is no weight of the authors"):
        release_names({"model.region_extractor.a.weight": torch.zeros(4, 4)})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks transformers
def test_folders_of_checkpoint_and_adapter_give_what_peft_merges(tmp_path):
    source, _ = attached(1)
    weights = renamed(source)
    language = LlamaForCausalLM(source.config.backbone_config.text_config)
    language.load_state_dict({name: each for name, each in weights.items() if name in language.state_dict()})
    settings = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(2)
    peft = get_peft_model(language, settings)
    peft.save_pretrained(tmp_path / "lora")
    beside = (
        "model.mm_projector.0.bias"  # the release keeps what it taught beside the adapter in another file
    )
    taught = {f"base_model.model.{beside}": weights[beside] + 1}
    save_file(taught, tmp_path / "lora" / "non_lora_trainables.safetensors")
    (tmp_path / "base").mkdir()
    half = len(weights) // 2
    for part, names in enumerate((list(weights)[:half], list(weights)[half:])):
        save_file({name: weights[name] for name in names}, tmp_path / "base" / f"model-{part}.safetensors")

    model, _ = attached(0)
    load_release(model, tmp_path / "base", tmp_path / "lora")
    wanted = peft.merge_and_unload().state_dict() | {beside: weights[beside] + 1}
    found = renamed(model)
    taught = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(wanted[taught], weights[taught])
    for name, each in wanted.items():
        torch.testing.assert_close(found[name], each, msg=name)


def test_pickles_and_strange_adapters_are_refused(tmp_path):
    model, _ = attached()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="is a pickle, which can run code"):
        load_release(model, tmp_path)
    save_file({"lm_head.weight": torch.zeros(1, 3)}, tmp_path / "model.safetensors")
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"r": 1, "lora_alpha": 1}', "utf-8")
    save_file(
        {"base_model.model.model.a.lora_A.weight": torch.zeros(1, 3)}, lora / "adapter_model.safetensors"
    )
    with pytest.raises(ValueError, match=r"changes model\.a, which the checkpoint does not have"):
        load_release(model, tmp_path, lora)
