# SPDX-License-Identifier: Apache-2.0
"""Signals become the vectors of a prompt, in our form and in that of NExT-GPT (check 21)."""

import pytest
import torch
from torch import nn
from vitron.model.signals import ConditionHead, PublishedConditionHead, make_condition_head


def attend(layer, asked, known):
    """Return what attention gives, head by head."""
    width = asked.shape[-1]
    parts = zip(layer.in_proj_weight.split(width), layer.in_proj_bias.split(width), strict=True)
    q, k, v = (
        each @ weight.T + bias for each, (weight, bias) in zip((asked, known, known), parts, strict=True)
    )
    size = width // layer.num_heads
    heads = list[torch.Tensor]()
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (q[:, part] @ k[:, part].T / size**0.5).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ v[:, part])
    return torch.cat(heads, 1) @ layer.out_proj.weight.T + layer.out_proj.bias


def normed(layer, value):
    """Return the layer norm of rows."""
    centred = value - value.mean(1, keepdim=True)
    return centred / ((centred**2).mean(1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def fed(layer, value):
    """Return what the two matrices behind attention make of rows."""
    hidden = (value @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
    return hidden @ layer.linear2.weight.T + layer.linear2.bias


def project(head, signals):
    """Return the vectors of one call by the formulas of a pre-norm encoder and decoder."""
    known = signals @ head.inlet.weight.T + head.inlet.bias
    for layer in head.transformer.encoder.layers:
        inner = normed(layer.norm1, known)
        known = known + attend(layer.self_attn, inner, inner)
        known = known + fed(layer, normed(layer.norm2, known))
    known = normed(head.transformer.encoder.norm, known)
    asked = head.queries
    for layer in head.transformer.decoder.layers:
        inner = normed(layer.norm1, asked)
        asked = asked + attend(layer.self_attn, inner, inner)
        asked = asked + attend(layer.multihead_attn, normed(layer.norm2, asked), known)
        asked = asked + fed(layer, normed(layer.norm3, asked))
    asked = normed(head.transformer.decoder.norm, asked)
    return asked @ head.outlet.weight.T + head.outlet.bias


def test_the_published_form_is_what_its_formulas_say():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = PublishedConditionHead(24, 5, 16)
        for name, each in head.named_parameters():  # norms and biases begin at values that hide mistakes
            if name.endswith("bias") or "norm" in name:
                nn.init.normal_(each, mean=float("norm" in name and name.endswith("weight")), std=0.3)
        signals = torch.randn(2, 8, 24)
        exact = PublishedConditionHead(24, 5, 16).double()
    exact.load_state_dict(head.state_dict())
    with torch.no_grad():
        wanted = torch.stack([project(exact, each) for each in signals.double()])
        torch.testing.assert_close(head(signals).double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "parameters"), [(768, 31_958_784), (1024, 32_090_112)])
def test_the_published_form_has_the_published_size(width, parameters):
    with torch.device("meta"):
        head = PublishedConditionHead(4096, 77, width)
    assert sum(each.numel() for each in head.parameters()) == parameters


def test_a_form_is_chosen_by_name():
    settings = {"num_vectors": 3, "width": 8}
    assert isinstance(make_condition_head(16, settings), ConditionHead)
    assert isinstance(make_condition_head(16, settings | {"form": "published"}), PublishedConditionHead)
    with pytest.raises(ValueError, match="form of a condition head must be vitron or published"):
        make_condition_head(16, settings | {"form": "qformer"})
