# SPDX-License-Identifier: Apache-2.0
"""The model: what it refuses, what it shares between passes, before and after it is written."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from vitron.model import VitronForConditionalGeneration
from vitron.model.hf.features import FrameFeatures
from vitron.model.hf.media import Visual
from vitron.model.signals import mask_loss, match_loss

from .conftest import ask, make_config, make_encoder, make_image, make_model, make_video, segment, square


@pytest.fixture(scope="module")
def examples():
    return [
        ask(make_image(0), regions=(square(),), reply=("Here it is.", (segment(),))),
        ask(make_video(3), reply=("ok", (segment("a blue star"),))),
        ask(text="hello", reply=("hi", ())),
        ask(make_image(2), make_image(3), text="a green ring", reply=("ok", ())),
    ]


def test_too_many_or_too_few_features_are_refused(model, encoder, examples):
    inputs = encoder(examples[:1]).inputs()
    inputs["pixel_values"] = inputs["pixel_values"].repeat(2, 1, 1, 1)
    with pytest.raises(ValueError, match="do not match"):
        model(**inputs)
    inputs = encoder(examples[:1]).inputs()
    inputs["region_masks"], inputs["region_frames"] = torch.ones(2, 32, 32), torch.tensor([0, 0])
    with pytest.raises(ValueError, match="1 placeholders of regions, and there are 2"):
        model(**inputs)
    inputs = encoder(examples[:1]).inputs()
    for name in ("region_masks", "region_frames"):
        del inputs[name]
    with pytest.raises(ValueError, match="1 placeholders of regions, and there are 0"):
        model(**inputs)
    inputs = encoder(examples[:1]).inputs()
    del inputs["frame_rows"]
    with pytest.raises(ValueError, match="region_masks need"):
        model(**inputs)
    inputs = encoder(examples[:1]).inputs() | {"frame_rows": torch.tensor([3])}
    with pytest.raises(ValueError, match="read 1 frames, and frame_rows names 3"):
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
def test_masks_depend_on_signals_and_images(model, encoder):
    visuals = [Visual("image", make_image(0, *size).frames) for size in ((32, 32), (32, 32))]
    features = model.frame_features(encoder.visual_inputs(visuals))
    signals = torch.randn(2, 8, 48, generator=torch.Generator().manual_seed(0))
    (group,) = model.mask_groups(signals, ["image_segmentation", "video_editing"], [0, 1], features)
    assert group.logits.shape == (2, 16, 16)
    modules = ["video_editing", "image_segmentation"]
    (swapped,) = model.mask_groups(signals.flip(0), modules, [1, 0], features)
    torch.testing.assert_close(group.logits, swapped.logits.flip(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(group.logits[0], group.logits[1])


@torch.no_grad()
def test_frames_of_several_sizes_are_grouped(model):
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 4), (6, 2), (4, 4)]
    maps = [torch.randn(*size, 32, generator=generator) for size in sizes]
    views = [torch.randn(3, 8 * height, 8 * width, generator=generator) for height, width in sizes]
    signals = torch.randn(3, 8, 48, generator=generator)
    features = FrameFeatures(maps, views)
    modules = ["image_segmentation"] * 3
    groups = model.mask_groups(signals, modules, [0, 1, 2], features)
    assert [(each.places, tuple(each.logits.shape)) for each in groups] == [
        ([0, 2], (2, 16, 16)),
        ([1], (1, 24, 8)),
    ]
    for number in range(3):
        (alone,) = model.mask_groups(signals[number : number + 1], modules[:1], [number], features)
        logits = next(each.logits[each.places.index(number)] for each in groups if number in each.places)
        torch.testing.assert_close(logits, alone.logits[0], rtol=1e-4, atol=1e-4)
    targets = [
        torch.rand(mask.shape, generator=generator).round()
        for mask in (*groups[0].logits, groups[1].logits[0])
    ]
    targets = [targets[0], targets[2], targets[1]]
    alone = [
        mask_loss(model.mask_groups(signals[n : n + 1], modules[:1], [n], features), [targets[n]])
        for n in range(3)
    ]
    torch.testing.assert_close(mask_loss(groups, targets), torch.stack(alone).mean())
    assert match_loss(groups, targets, torch.arange(3)).isfinite()


def test_large_images_are_read_smaller_by_the_mask_head(processor):
    config = make_config(processor, mask_side=24)
    assert config.mask_size((32, 16)) == (12, 6)
    assert make_config(processor).mask_size((33, 32)) == (17, 16)
    model = make_model(config)
    features = FrameFeatures([torch.randn(4, 2, 32)], [torch.randn(3, 32, 16)])
    with torch.no_grad():
        (group,) = model.mask_groups(torch.randn(1, 8, 48), ["image_editing"], [0], features)
    assert group.logits.shape == (1, 12, 6)


def test_learned_places_are_used_as_they_are_or_interpolated(model):
    head = model.mask_head
    assert head.places_of((4, 4)) is head.places
    assert head.places_of((3, 8)).shape == (24, 16)


def test_gradients_reach_all_that_is_new_and_the_tower(processor):
    model = make_model(make_config(processor)).train()
    # the older name warns
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    encoder = make_encoder(processor, model.config)
    example = ask(make_image(0), regions=(square(),), reply=("ok", (segment(),)), masks={0: square()[None]})
    batch = encoder([example])
    output = model(**batch.inputs(), labels=batch.labels, use_cache=False)
    signals, _ = model.signals(output.hidden, batch.input_ids)
    groups = model.mask_groups(signals[batch.mask_calls], batch.call_modules, [0], output.features)
    (output.loss + mask_loss(groups, batch.mask_targets)).backward()
    for part in (model.region_encoder, model.feature_norm, model.signal_norm, model.mask_head.decoder):
        assert all(each.grad is not None and each.grad.any() for each in part.parameters())
    assert any(each.grad is not None and each.grad.any() for each in model.vision_tower.parameters())


def test_passes_of_several_threads_do_not_meet(model, encoder, examples):
    batches = [encoder([example]) for example in examples]

    @torch.no_grad()
    def read(batch):
        return model(**batch.inputs()).logits

    wanted = [read(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, each in zip(pool.map(read, batches), wanted, strict=True):
                torch.testing.assert_close(found, each, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_copy_is_a_model_of_its_own(model, processor, encoder, examples):
    batch = encoder(examples[:1])
    wanted = model(**batch.inputs()).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(make_model(make_config(processor))))):
        torch.testing.assert_close(other(**batch.inputs()).logits, wanted)
        other.region_encoder.features[4].weight.add_(1)
        assert not torch.allclose(other(**batch.inputs()).logits, wanted)
    torch.testing.assert_close(model(**batch.inputs()).logits, wanted)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(processor, examples, dtype):
    model = make_model(make_config(processor)).to(dtype)
    output = model(**make_encoder(processor, model.config)(examples).inputs())
    assert output.logits.isfinite().all()
    assert output.logits.dtype == dtype


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
    ("settings", "message"), [({"num_specific": 9}, "num_specific"), ({"region_form": "x"}, "region_form")]
)
def test_settings_that_do_not_fit_are_refused(processor, settings, message):
    with pytest.raises(ValueError, match=message):
        make_model(make_config(processor, **settings))
