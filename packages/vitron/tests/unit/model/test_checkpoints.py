# SPDX-License-Identifier: Apache-2.0
"""Adapters alone take less than a tenth of the whole (check 30)."""

import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)
from vitron.model import VitronConfig, VitronForConditionalGeneration
from vitron.model.engine import Vitron
from vitron.training.adapters import add_adapters
from vitron.training.stages import LoraSettings

from .backbones import llava, save_backbone


def trained(name):
    """Whether the stages of the paper train a parameter, embeddings of old tokens apart."""
    return ".lora_" in name or not name.startswith("backbone.")


def test_adapters_alone_are_less_than_a_tenth_on_disk(tmp_path):
    config, processor = llava()
    # a fifteenth of the width of a model of 7 billion weights, with its proportions
    text = {"hidden_size": 272, "intermediate_size": 734, "num_hidden_layers": 12}
    config.text_config.update(text | {"num_key_value_heads": 4, "head_dim": 68})
    config.vision_config.update({"hidden_size": 64, "intermediate_size": 256})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    vitron = Vitron.from_pretrained(tmp_path / "base", device="cpu", dtype="float32")
    add_adapters(vitron.model, LoraSettings(rank=8, alpha=16), seed=0)
    with torch.no_grad():
        for name, weight in vitron.model.named_parameters():
            if trained(name):
                weight.add_(0.5)
        vitron.model.get_input_embeddings().weight[-15:] += 1
    vitron.save_pretrained(tmp_path / "adapters", adapters_only=True)
    vitron.save_pretrained(tmp_path / "whole")
    adapters, whole = (
        sum(each.stat().st_size for each in (tmp_path / kind).iterdir()) for kind in ("adapters", "whole")
    )
    weights = sum(weight.nbytes for name, weight in vitron.model.named_parameters() if trained(name))
    assert weights < adapters < 0.1 * whole


def test_adapters_without_their_base_model_say_what_they_need(tmp_path):
    save_backbone("llava", tmp_path / "base")
    vitron = Vitron.from_pretrained(tmp_path / "base", device="cpu", dtype="float32")
    vitron.save_pretrained(tmp_path / "adapters", adapters_only=True)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(ModelNotFoundError, match=r"holds what differs .* write its place into adapter.json"):
        Vitron.from_pretrained(tmp_path / "adapters", device="cpu")
    described = tmp_path / "adapters" / "adapter.json"
    described.write_text(described.read_text().replace(str(tmp_path / "base"), str(tmp_path / "moved")))
    Vitron.from_pretrained(tmp_path / "adapters", device="cpu")


def test_adapters_of_the_released_size_are_less_than_a_tenth():
    """LLaMA 7B, CLIP-L, adapters of rank 128, the published region encoder, three heads of generators."""
    llama = LlamaConfig(vocab_size=32016)  # the defaults are those of 7B
    clip = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    conditions = {
        name: {"num_vectors": 77, "width": width, "form": "published"}
        for name, width in (("text_to_image", 768), ("text_to_video", 1024), ("image_to_video", 1024))
    }
    config = VitronConfig(
        backbone_config=LlavaConfig(text_config=llama, vision_config=clip, image_token_id=32000),
        region_token_id=32001,
        signal_token_ids=list(range(32008, 32016)),
        num_specific=4,
        region_form="published",
        conditions=conditions,
    )
    with torch.device("meta"):
        model = VitronForConditionalGeneration(config)
        add_adapters(model, LoraSettings(), seed=0)
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    adapters = sum(size for name, size in sizes.items() if ".lora_" in name)
    assert adapters == 319_815_680  # the number of the released script
    kept = sum(size for name, size in sizes.items() if trained(name))
    assert kept < 0.1 * (sum(sizes.values()) - adapters)
