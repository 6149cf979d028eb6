# SPDX-License-Identifier: Apache-2.0
"""The driven towers against open_clip's own forward, and the last block against its formulas."""

import copy
from dataclasses import replace

import pytest
import torch
from itaclip.attention import build_attention
from itaclip.attention.mixed import explicit_map, fused_attention
from itaclip.config import AttentionConfig
from itaclip.encoder import build_encoder
from torch.nn import functional as F

PLAIN = AttentionConfig(pairs=("qk",), mid_layers=(), ffn=True)
ITACLIP = AttentionConfig(mid_layers=(1, 2, 3))
VARIANTS = {
    "plain": {},
    "layer-scale": {"ls_init_value": 0.3},
    "custom-blocks": {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True},
    "wide-heads": {"width": 40, "head_width": 20},
}


def heads_of(block, x):
    attn = block.attn
    joint = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    return [part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1)]


def all_tokens(encoder, images, attention):
    strategy = build_attention(attention)
    return strategy.tokens(encoder.prepare(images, strategy), encoder)


def map_of(encoder, images, attention):
    return encoder.attention_map(images, build_attention(attention))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_everything_off_gives_the_tokens_of_open_clip(tools, variant):
    model = tools.native(**variant)
    visual, images = model.visual, tools.image(2, 3, 32, 32)
    tokens = all_tokens(build_encoder(model), images, PLAIN)
    x = visual.transformer(visual._embeds(images))
    assert torch.allclose(tokens, visual.ln_post(x) @ visual.proj, atol=1e-5)
    assert torch.allclose(tokens[:, 0], visual(images), atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "eva", "pe"])
def test_everything_off_gives_the_tokens_of_timm(tools, kind):
    model = tools.timm(kind)
    visual, images = model.visual, tools.image(2, 3, 32, 32)
    tokens = all_tokens(build_encoder(model), images, PLAIN)
    features = visual.trunk.forward_features(images)
    alone = [visual.head(visual.trunk.forward_head(features[:, i : i + 1])) for i in range(features.shape[1])]
    assert torch.allclose(tokens, torch.stack(alone, dim=1), atol=1e-5)
    if kind == "eva":
        assert torch.allclose(tokens[:, 0], visual(images), atol=1e-5)


@pytest.mark.parametrize("options", [{"qkv_fused": False}, {"qkv_fused": True}], ids=["separate", "fused"])
def test_both_projections_of_eva(tools, options):
    model = tools.timm("eva", **options)
    images = tools.image(2, 3, 32, 32)
    tokens = all_tokens(build_encoder(model), images, PLAIN)
    assert torch.allclose(tokens[:, 0], model.visual(images), atol=1e-5)


def test_rotary_positions_at_another_size_are_those_of_a_tower_of_any_size(tools):
    model = copy.deepcopy(tools.timm("eva", dynamic_img_size=True))
    fixed = copy.deepcopy(tools.timm("eva"))
    for each in (model, fixed):
        each.visual.trunk.pos_embed.zero_()
    fixed.load_state_dict(model.state_dict())
    images = tools.image(1, 3, 24, 48)
    before = fixed.visual.trunk.rope.get_embed().clone()
    for each in (model, fixed):
        tokens = all_tokens(build_encoder(each), images, PLAIN)
        assert torch.allclose(tokens[:, 0], model.visual(images), atol=1e-5)
    assert torch.equal(fixed.visual.trunk.rope.get_embed(), before)  # the model was left alone


def test_sclip_keeps_the_rest_of_the_block(tools):
    model = tools.native()
    visual, images = model.visual, tools.image(2, 3, 32, 32)
    attention = AttentionConfig(mid_layers=(), ffn=True)
    x = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    block = visual.transformer.resblocks[-1]
    q, k, v = heads_of(block, x)
    y = ((q @ q.mT / 4).softmax(-1) + (k @ k.mT / 4).softmax(-1)) @ v
    x = x + block.attn.out_proj(y.transpose(1, 2).flatten(2))
    x = x + block.mlp(block.ln_2(x))
    expected = visual.ln_post(x) @ visual.proj
    assert torch.allclose(all_tokens(build_encoder(model), images, attention), expected, atol=1e-5)


@pytest.mark.parametrize(
    "attention",
    [
        ITACLIP,
        AttentionConfig(pairs=("qq", "kk", "vv"), mid_layers=(2, 3), mid_pairs=("qk",), mid_weight=0.3),
        AttentionConfig(pairs=("kk",), mid_layers=(2,), locality=1.5, gain=2.0),
    ],
    ids=["itaclip", "three pairs, q-k below", "local, doubled"],
)
@pytest.mark.parametrize("kind", ["native", "eva"])
def test_fused_is_explicit(tools, attention, kind):
    model = tools.native() if kind == "native" else tools.timm(kind)
    encoder, images = build_encoder(model), tools.image(3, 3, 32, 40)
    strategy = build_attention(attention)
    last = encoder.prepare(images, strategy)
    terms = strategy.terms(last, encoder)
    fused, whole = fused_attention(terms, last.qkv[2]), explicit_map(terms)
    assert torch.allclose(fused, whole @ last.qkv[2], atol=2e-5)
    assert torch.allclose(whole, encoder.attention_map(images, strategy), atol=1e-6)


def test_many_terms_stack_only_up_to_the_bound(tools, monkeypatch):
    encoder, images = build_encoder(tools.native()), tools.image(2, 3, 32, 32)
    strategy = build_attention(ITACLIP)
    last = encoder.prepare(images, strategy)
    terms = strategy.terms(last, encoder)
    stacked = fused_attention(terms, last.qkv[2])
    monkeypatch.setattr("itaclip.attention.mixed._STACKED_VALUES", 2 * last.qkv[2].numel())
    assert torch.allclose(fused_attention(terms, last.qkv[2]), stacked, atol=1e-6)


def test_the_map_is_the_formula(tools):
    model = tools.native()
    visual, images = model.visual, tools.image(1, 3, 32, 32)
    x = visual._embeds(images)
    mids = []
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        q, k, _ = heads_of(block, x)
        last = (q @ q.mT / 4).softmax(-1) + (k @ k.mT / 4).softmax(-1)
        if number < 4:
            mids.append(last)
            x = block(x)
    expected = 0.5 * last + 0.5 * sum(mids) / 3
    assert torch.allclose(map_of(build_encoder(model), images, ITACLIP), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "total"),
    [
        (AttentionConfig(pairs=("qk",), mid_layers=()), 1),
        (ITACLIP, 2),
        (AttentionConfig(mid_layers=(1, 2), mid_pairs=("qk",), mid_weight=0.25), 0.75 * 2 + 0.25),
        (replace(ITACLIP, gain=3.0), 6),
        (AttentionConfig(pairs=("kk",), mid_layers=(), locality=2.0), 1),
    ],
    ids=["q-k", "self-self", "mixed", "gain", "local"],
)
def test_rows_add_up(tools, attention, total):
    for model in (tools.native(), tools.exact()):
        whole = map_of(build_encoder(model), tools.image(1, 3, 32, 32), attention)
        assert whole.dtype == model.visual.conv1.weight.dtype
        # the sum itself in fp64: it is the map that is checked
        off = (whole.double().sum(dim=-1) / total - 1).abs().max()
        assert off < (1e-6 if model is tools.native() else 1e-12)


def test_equal_query_and_key_weights_give_twice_the_usual_map(tools):
    model = copy.deepcopy(tools.native())
    attn = model.visual.transformer.resblocks[-1].attn
    for tensor in (attn.in_proj_weight, attn.in_proj_bias):
        tensor[32:64] = tensor[:32]
    encoder, images = build_encoder(model), tools.image(1, 3, 32, 32)
    both = map_of(encoder, images, AttentionConfig(mid_layers=()))
    usual = map_of(encoder, images, AttentionConfig(pairs=("qk",), mid_layers=()))
    assert torch.allclose(both, 2 * usual, atol=1e-5)


def test_values_that_agree_come_out_twice(tools):
    model = copy.deepcopy(tools.native())
    block = model.visual.transformer.resblocks[-1]
    block.attn.in_proj_weight[64:] = 0  # values are the bias
    attention = AttentionConfig(mid_layers=(), residual=False)
    tokens = all_tokens(build_encoder(model), tools.image(1, 3, 32, 32), attention)
    branch = 2 * block.attn.out_proj.weight @ block.attn.in_proj_bias[64:] + block.attn.out_proj.bias
    expected = model.visual.ln_post(branch) @ model.visual.proj
    assert torch.allclose(tokens, expected.expand_as(tokens), atol=1e-5)


def test_no_mid_layers_is_full_weight_on_the_last_map(tools):
    encoder, images = build_encoder(tools.native()), tools.image(1, 3, 32, 32)
    none = map_of(encoder, images, replace(ITACLIP, mid_layers=()))
    assert torch.equal(none, map_of(encoder, images, replace(ITACLIP, mid_weight=0.0)))
    once = map_of(encoder, images, replace(ITACLIP, mid_layers=(2,)))
    twice = map_of(encoder, images, replace(ITACLIP, mid_layers=(2, 2)))
    # a quarter of a map added twice rounds otherwise than its half added once
    assert torch.allclose(once, twice, atol=1e-6, rtol=0)
    assert not torch.allclose(once, none, atol=1e-3)


def test_without_output_projection_the_input_goes_straight_into_text_space(tools):
    images = tools.image(1, 3, 32, 32)
    for built in (tools.native(), tools.exact()):
        model = copy.deepcopy(built)
        visual = model.visual
        attn = visual.transformer.resblocks[-1].attn
        attn.out_proj.weight.zero_()
        attn.out_proj.bias.zero_()
        encoder, strategy = build_encoder(model), build_attention(ITACLIP)
        last = encoder.prepare(images, strategy)
        tokens = strategy.tokens(last, encoder)
        assert torch.allclose(tokens, visual.ln_post(last.x) @ visual.proj, atol=1e-6, rtol=0)
    # the blocks below round otherwise in fp32; in fp64 they are open_clip's
    x = visual._embeds(images.double())
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    assert torch.allclose(tokens, visual.ln_post(x) @ visual.proj, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["native", "siglip", "eva", "pe"])
def test_value_path_only(tools, kind):
    model = tools.native() if kind == "native" else tools.timm(kind)
    encoder, images = build_encoder(model), tools.image(1, 3, 32, 32)
    attention = build_attention(AttentionConfig(strategy="value", residual=False, mid_layers=(99,)))
    last = encoder.prepare(images, attention)
    assert last.earlier == ()
    block = encoder.tower.num_blocks - 1
    expected = encoder.tower.to_text_space(encoder.tower.project(block, last.qkv[2], last.x))
    assert torch.equal(attention.tokens(last, encoder), expected)
    with pytest.raises(ValueError, match="ValueAttention has no attention map"):
        encoder.attention_map(images, attention)


@pytest.mark.parametrize("kind", ["native", "siglip", "eva", "pe"])
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (37, 50), (8, 8)], ids=str)
def test_a_batch_is_its_images_one_by_one(tools, kind, size):
    model = tools.native() if kind == "native" else tools.timm(kind)
    encoder, images = build_encoder(model), tools.image(3, 3, *size)
    strategy = build_attention(ITACLIP)
    together = encoder(images, strategy)
    assert together.shape[-2:] == (size[0] // 8, size[1] // 8)
    alone = torch.cat([encoder(image[None], strategy) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_model_is_left_as_it_was(tools):
    model = copy.deepcopy(tools.native())
    before = copy.deepcopy(model.state_dict())
    expected = model.encode_image(tools.image(1, 3, 32, 32))
    build_encoder(model)(tools.image(1, 3, 40, 48), build_attention(ITACLIP))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model.encode_image(tools.image(1, 3, 32, 32)), expected)


def test_towers_that_cannot_be_taken_apart_are_refused(tools):
    from open_clip.model import CLIP

    text = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    resnet = CLIP(24, {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}, text)
    with pytest.raises(NotImplementedError, match="vision transformer"):
        build_encoder(resnet)
    vision = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
    with pytest.raises(NotImplementedError, match="attentional pooler"):
        build_encoder(CLIP(24, {**vision, "attentional_pool": True, "attn_pooler_heads": 2}, text))
    with pytest.raises(NotImplementedError, match="scaled cosine"):
        build_encoder(CLIP(24, {**vision, "scaled_cosine_attn": True}, text))
