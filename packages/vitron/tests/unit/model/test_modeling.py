# SPDX-License-Identifier: Apache-2.0
"""The model says the same with and without a cache, alone and in a batch, before and after it is written."""

import pytest
import torch
from transformers import DynamicCache
from vitron.model import VitronForConditionalGeneration

from .conftest import ask, make_config, make_image, make_model, make_video, segment, square


@pytest.fixture(scope="module")
def examples():
    return [
        ask(make_image(0), regions=(square(),), reply=("Here it is.", (segment(),))),
        ask(make_video(3), reply=("ok", (segment("a blue star"),))),
        ask(text="hello", reply=("hi", ())),
        ask(make_image(2), make_image(3), text="a green ring", reply=("ok", ())),
    ]


@torch.no_grad()
def test_a_cache_changes_nothing(model, encoder, examples):
    for chosen in (examples[:1], examples):
        batch = encoder(chosen, left=True)
        whole = model(**batch.inputs())
        start = int((batch.labels == -100).all(0).sum())
        start = max(start, 20) if len(chosen) == 1 else batch.input_ids.shape[1] - 6
        inputs = batch.inputs()
        ids, attention = inputs.pop("input_ids"), inputs.pop("attention_mask")
        cache = DynamicCache()
        cut = int(max((ids == model.config.image_token_id).nonzero()[:, 1])) + 3
        start = max(start, cut)
        found = model(ids[:, :start], attention[:, :start], past_key_values=cache, use_cache=True, **inputs)
        steps = [found.logits[:, -1]]
        for place in range(start, ids.shape[1]):
            found = model(
                ids[:, place : place + 1], attention[:, : place + 1], past_key_values=cache, use_cache=True
            )
            steps.append(found.logits[:, -1])
        torch.testing.assert_close(torch.stack(steps, 1), whole.logits[:, start - 1 :], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_on_either_side_and_company_change_nothing(model, encoder, examples):
    right, left = encoder(examples), encoder(examples, left=True)
    found = {side: model(**batch.inputs()).logits for side, batch in (("right", right), ("left", left))}
    for row, example in enumerate(examples):
        count = int(right.attention_mask[row].sum())
        alone = model(**encoder([example]).inputs()).logits[0]
        torch.testing.assert_close(found["right"][row, :count], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["left"][row, -count:], alone, rtol=1e-4, atol=1e-4)


def test_too_many_or_too_few_features_are_refused(model, encoder, examples):
    inputs = encoder(examples[:1]).inputs()
    inputs["pixel_values"] = inputs["pixel_values"].repeat(2, 1, 1, 1)
    inputs["frame_counts"] = torch.tensor([1, 1])
    with pytest.raises(ValueError, match="placeholders of patches"):
        model(**inputs)
    inputs = encoder(examples[:1]).inputs()
    inputs["region_masks"], inputs["region_frames"] = torch.ones(2, 32, 32), torch.tensor([0, 0])
    with pytest.raises(ValueError, match="placeholders of regions"):
        model(**inputs)


@torch.no_grad()
def test_signals_are_found_with_their_rows(model, encoder, examples):
    batch = encoder(examples)
    hidden = model(**batch.inputs()).hidden
    signals, rows = model.signals(hidden, batch.input_ids)
    assert rows.tolist() == [0, 1]
    assert signals.shape == (2, 8, 48)
    place = int((batch.input_ids[1] == model.config.signal_token_ids[0]).nonzero()[0])
    ids = torch.tensor(model.config.signal_token_ids)
    wanted = model.signal_norm(hidden[1, place : place + 8] + model.get_input_embeddings()(ids))
    torch.testing.assert_close(signals[1], wanted)
    broken = batch.input_ids.clone()
    broken[0, int((batch.input_ids[0] == ids[3]).nonzero()[0])] = 0
    assert model.signals(hidden, broken)[1].tolist() == [1]


@torch.no_grad()
def test_masks_depend_on_signals_and_images(model, processor):
    images = processor.image_processor.to_pixel_values(
        processor.image_processor.fit(make_image(0).frames)
    ).repeat(2, 1, 1, 1)
    signals = torch.randn(2, 8, 48, generator=torch.Generator().manual_seed(0))
    patches = model.get_image_features(images)
    first = model.mask_head(signals, ["image_segmentation", "video_editing"], patches, images)
    assert first.shape == (2, 16, 16)
    swapped = model.mask_head(signals.flip(0), ["video_editing", "image_segmentation"], patches, images)
    torch.testing.assert_close(first, swapped.flip(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[0], first[1])


@torch.no_grad()
def test_written_and_read_it_generates_the_same(model, encoder, examples, tmp_path):
    model.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".safetensors"]
    other = VitronForConditionalGeneration.from_pretrained(tmp_path).eval()
    weights = other.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())
    # products are rounded by where in memory a matrix lies, so what is said may differ in the last bit
    batch = encoder(examples)
    found, wanted = other(**batch.inputs()).logits, model(**batch.inputs()).logits
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "multiple of the patch size"),
        ({"spatial_merge": 3}, "spatial_merge"),
        ({"mask_stride": 3}, "mask_stride"),
        ({"num_specific": 9}, "num_specific"),
        ({"temporal_pool": "every"}, "temporal_pool"),
        ({"projector": "conv"}, "projector"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_model(make_config(tokenizer, **settings))
