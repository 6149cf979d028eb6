# SPDX-License-Identifier: Apache-2.0
"""Regions and signals on whole vision language models of transformers, with weights as they are drawn."""

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    Qwen2_5_VLConfig,
)
from vitron.model.wrapping import VitronForImageTextToText, WrapConfig

TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
ADDED = WrapConfig(region_token_id=9, signal_token_ids=(20, 21, 22, 23), num_specific=2)


def llava():
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=5)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    head = [1, *[5] * 16, *[5] * 16]
    return config, head, {"pixel_values": pixels}, [(4, 4), (4, 4)]


def qwen():
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    )
    pixels = torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    head = [1, 7, *[5] * 6, 8]
    return config, head, {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 6]])}, [(2, 3)]


@pytest.fixture(scope="module", params=[llava, qwen])
def case(request):
    config, head, pictures, grids = request.param()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VitronForImageTextToText(AutoModelForImageTextToText.from_config(config), ADDED).eval()
    ids = torch.tensor([[*head, 9, 2, 3, 20, 21, 22, 23, 4]])
    if "image_grid_thw" in pictures:
        pictures["mm_token_type_ids"] = (ids == 5).int()
    return model, ids, pictures, grids


@torch.no_grad()
def test_a_region_is_its_pooled_features_in_its_place(case):
    model, ids, pictures, grids = case
    mask = torch.zeros(8, 12)
    mask[:, :4] = 1  # a third of the width
    regions = {"region_masks": [mask], "region_pictures": [0], "grids": grids}
    token = model.region_tokens([mask], [0], pictures, grids)
    features = model.backbone.get_image_features(
        **{name: each for name, each in pictures.items() if name != "mm_token_type_ids"}
    ).pooler_output[0]
    rows, columns = grids[0]
    share = torch.tensor([1.0, 0, 0] if columns == 3 else [1, 1 / 3, 0, 0]).expand(rows, -1).flatten()
    pooled = (features * share[:, None]).sum(0) / share.sum()
    box = torch.tensor([[0, 0, 1 / 3, 1.0]])
    wanted = model.region_features(pooled[None]) + model.region_location(box)
    torch.testing.assert_close(token, wanted, rtol=1e-4, atol=1e-5)
    seen = model(ids, **regions, **pictures).logits
    blind = model(ids, **pictures).logits
    place = int((ids[0] == 9).nonzero()[0])
    assert torch.equal(seen[:, :place], blind[:, :place])
    assert not torch.allclose(seen[:, place:], blind[:, place:])


@torch.no_grad()
def test_signals_and_writing(case):
    model, ids, pictures, grids = case
    mask = torch.ones(8, 12)
    regions = {"region_masks": [mask], "region_pictures": [0], "grids": grids}
    signals, rows = model.signals(model(ids, **regions, **pictures), ids)
    assert signals.shape == (1, 4, 32)
    assert rows.tolist() == [0]
    written = model.generate(
        ids, **regions, **pictures, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
    )
    first = model(ids, **regions, **pictures).logits[0, -1].argmax()
    assert int(written[0, ids.shape[1]]) == int(first)
    assert not model.backbone.get_input_embeddings()._forward_hooks


def test_what_does_not_fit_is_refused(case):
    model, ids, pictures, grids = case
    with pytest.raises(ValueError, match="placeholders of regions"):
        model(ids, region_masks=[torch.ones(8, 8)] * 2, region_pictures=[0, 0], grids=grids, **pictures)
    with pytest.raises(ValueError, match="give grids"):
        model(ids, region_masks=[torch.ones(8, 8)], region_pictures=[0], grids=[(1, 5)] * 2, **pictures)
    with pytest.raises(TypeError, match="get_image_features"):
        VitronForImageTextToText(torch.nn.Linear(2, 2), ADDED)


@torch.no_grad()
def test_written_and_read(case, tmp_path):
    model, ids, pictures, _ = case
    model.save_pretrained(tmp_path / "whole")
    other = VitronForImageTextToText.from_pretrained(tmp_path / "whole").eval()
    mask = {"region_masks": [torch.ones(8, 12)], "region_pictures": [0], "grids": case[3]}
    assert torch.equal(other(ids, **mask, **pictures).logits, model(ids, **mask, **pictures).logits)
    model.save_pretrained(tmp_path / "added", adapter_only=True)
    again = VitronForImageTextToText.from_pretrained(tmp_path / "added", backbone=tmp_path / "whole").eval()
    assert torch.equal(again(ids, **mask, **pictures).logits, model(ids, **mask, **pictures).logits)
    assert not list((tmp_path / "added").glob("model*"))
