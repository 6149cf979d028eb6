# SPDX-License-Identifier: Apache-2.0
"""Fused norms: the same as those they replace, and none replaced that computes something else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.gemma.modeling_gemma import GemmaForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM, Qwen3RMSNorm
from vitron.model.norms import fuse_norms

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


def with_uneven_norms(model: nn.Module) -> nn.Module:
    """Give norms weights other than one, so that a lost weight is seen."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "config", "norms"),
    [
        (LlamaForCausalLM, LlamaConfig, 5),
        (MistralForCausalLM, MistralConfig, 5),
        (Qwen2ForCausalLM, Qwen2Config, 5),
        (Qwen3ForCausalLM, Qwen3Config, 9),
    ],
)
def test_fuse_norms_changes_no_output(kind: Any, config: Any, norms: int) -> None:
    torch.manual_seed(0)
    before = with_uneven_norms(kind(config(**SIZES)))
    after = copy.deepcopy(before)

    assert fuse_norms(after) == norms

    ids = torch.randint(40, (2, 7))
    torch.testing.assert_close(after(ids).logits, before(ids).logits, rtol=1e-5, atol=1e-5)
    assert list(after.state_dict()) == list(before.state_dict())
    assert {type(each).__name__ for name, each in after.named_modules() if "norm" in name} == {"RMSNorm"}


def test_fuse_norms_leaves_other_formulas() -> None:
    model = GemmaForCausalLM(GemmaConfig(**SIZES))
    assert fuse_norms(model) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_norm_rounds_no_worse(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(Qwen3RMSNorm(64))
    nn.init.uniform_(model[0].weight, 0.5, 2.0)
    model.to(dtype)
    states = (3 * torch.randn(200, 64)).to(dtype)
    exact = states.double()
    exact = exact / (exact.square().mean(-1, keepdim=True) + 1e-6).sqrt() * model[0].weight.double()

    before = (model(states).double() - exact).abs().mean()
    fuse_norms(model)

    assert model(states).dtype == dtype
    assert (model(states).double() - exact).abs().mean() <= before
