# SPDX-License-Identifier: Apache-2.0
"""Every family of vision language models, by the same path (checks 8, 10, 22, 25, 26, 27, 30)."""

import logging
from functools import cache

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F
from transformers import AutoProcessor, DynamicCache, pipeline
from vitron.data import Example
from vitron.model.assembly import attach_to
from vitron.model.batch import IGNORED
from vitron.model.engine import Vitron
from vitron.model.hf.modeling import CACHE
from vitron.protocol.media import Artefact
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart, text_message

from .backbones import FAMILIES, make_backbone, noise, save_backbone
from .conftest import segment

SIZE = (84, 140)  # rows, columns


@cache
def attached(family):
    settings = {"mask_width": 16, "mask_grid": 4, "num_frames": 8}
    return Vitron(*attach_to(*make_backbone(family), settings=settings))


@pytest.fixture(params=list(FAMILIES))
def vitron(request):
    return attached(request.param)


def rectangle(top=42, left=14, height=28, width=42, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


IMAGE, VIDEO = Artefact("image", noise(*SIZE)), Artefact("video", noise(*SIZE, frames=3, seed=1))


def conversation(*, answered=True, text="segment the red circle"):
    """An image with a region, a video, and two turns."""
    messages = (
        Message(role="user", content=(MediaPart(media=0), RegionPart(region=0), TextPart(text=text))),
        text_message("assistant", "Here it is.", segment()),
        Message(role="user", content=(MediaPart(media=1), TextPart(text="and now?"))),
        text_message("assistant", "ok"),
    )
    return Example(
        task="a",
        messages=messages if answered else messages[:1],
        media=(IMAGE, VIDEO),
        regions=(PlacedRegion(media=0, mask=rectangle()),),
        masks={0: rectangle()[None]} if answered else {},
        mask_media={0: 0} if answered else {},
    )


HELLO = Example(task="a", messages=(text_message("user", "hello"),))


@torch.no_grad()
def test_company_and_padding_change_nothing(vitron):
    examples = [conversation(), HELLO, conversation(answered=False)]
    together = vitron.model(**vitron.encoder(examples, left=True).inputs())
    for row, example in enumerate(examples):
        alone = vitron.model(**vitron.encoder([example]).inputs()).logits[0]
        found = together.logits[row, -len(alone) :]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])  # since transformers 5.24, and before
@torch.no_grad()
def test_a_cache_changes_nothing(vitron, name):
    batch = vitron.encoder([conversation(answered=False), HELLO], left=True)
    more = torch.tensor([[5, 9, 12], [7, 7, 20]])
    cache, inputs = DynamicCache(), batch.inputs()
    positions, offsets = vitron.model.positions(inputs)
    found = vitron.model(**inputs, position_ids=positions, use_cache=True, **{name: cache})
    steps, mask = [found.logits[:, -1]], batch.attention_mask
    lengths = mask.sum(1)
    for step in range(more.shape[1]):
        mask = F.pad(mask, (0, 1), value=1)
        at = (lengths + offsets + step)[:, None]
        at = at.expand(3, -1, -1) if vitron.model.uses_3d_positions else at
        ids = more[:, step : step + 1]
        found = vitron.model(ids, mask, at, use_cache=True, **{name: cache})
        assert found[CACHE] is cache
        steps.append(found.logits[:, -1])
    whole = {**inputs, "input_ids": torch.cat([batch.input_ids, more], 1), "attention_mask": mask}
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in whole:
            whole[name] = F.pad(whole[name], (0, more.shape[1]))
    wanted = vitron.model(**whole).logits[:, -1 - more.shape[1] :]
    torch.testing.assert_close(torch.stack(steps, 1), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_decoder_reads_regions_at_their_placeholders(vitron):
    model, seen = vitron.model, list[torch.Tensor]()
    batch = vitron.encoder([conversation(answered=False)])
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    output = model(**batch.inputs())
    hook.remove()
    maps, mask = output.features.maps[0], batch.region_masks[0]
    weights = F.adaptive_avg_pool2d(mask[None], maps.shape[:2])[0]
    mean = (maps * weights[..., None]).sum((0, 1)) / weights.sum()
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    height, width = mask.shape
    box = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    encoder = model.region_encoder
    wanted = encoder.features(mean) + encoder.location(torch.tensor(box))
    place = batch.input_ids[0] == model.config.region_token_id
    torch.testing.assert_close(seen[0][0, place][0], wanted, rtol=1e-4, atol=1e-5)
    top, left = 42 / SIZE[0], 14 / SIZE[1]  # filters reach two pixels beyond an edge
    assert abs(box[1] - top) * height <= 2
    assert abs(box[0] - left) * width <= 2


@torch.no_grad()
@pytest.mark.parametrize("shown", ["image", "video"])
def test_features_lie_where_their_pixels_lie(vitron, shown):
    """Noise in a rectangle changes the features under it most: in any order of tiles, windows and patches."""
    mask = rectangle()
    plain = np.full((3, *SIZE, 3), 128, np.uint8)
    changed = plain.copy()
    changed[1, mask] = noise(*SIZE)[mask]
    number = 0 if shown == "image" else 1
    features = list[torch.Tensor]()
    for frames in (plain, changed):
        artefact = Artefact("image", frames[1]) if shown == "image" else Artefact("video", frames)
        visuals = vitron.encoder.media.visuals(shown, artefact.frames)
        inputs = vitron.encoder.visual_inputs(visuals)
        found = vitron.model.frame_features(inputs)
        features.append(found.maps[number])
        views = found.views[number]
    masks = np.broadcast_to(mask, (visuals[0].size.frames, *SIZE))
    view = torch.from_numpy(vitron.encoder.media.to_view(masks, visuals[0].size)[0]).float() / 255
    assert view.shape == views.shape[1:]
    weights = F.adaptive_avg_pool2d(view[None], features[0].shape[:2])[0]
    difference = (features[1] - features[0]).square().sum(-1)
    assert weights.flatten()[difference.argmax()] > 0.2
    inner, outer = view > 0.99, view == 0
    assert views[:, outer].std(1).max() < 0.05 < views[:, inner].std(1).min()


@pytest.mark.parametrize("shown", ["image", "video"])
def test_masks_come_back_in_pixels_of_the_image(vitron, shown):
    media = vitron.encoder.media
    artefact = IMAGE if shown == "image" else VIDEO
    size = media.visuals(shown, artefact.frames)[0].size
    mask = rectangle()
    view = media.to_view(np.broadcast_to(mask, (size.frames, *SIZE)), size)
    back = media.to_image(torch.from_numpy(view[:1]).float() - 127.5, size)[0]
    assert back.shape == SIZE
    assert (back & mask).sum() / (back | mask).sum() > 0.85
    box = media.box_to_view((14, 42, 56, 70), size)
    np.testing.assert_allclose(box, (0.1, 0.5, 0.4, 5 / 6), atol=0.02)
    signal = np.random.default_rng(0).standard_normal((8, 48)).astype(np.float32)
    found = vitron.mask(signal, "image_segmentation", artefact)
    assert found.shape == (artefact.num_frames, *SIZE)


def test_prompts_are_those_of_the_processor(vitron):
    """The tokens of a first turn are those of the processor's own call on the rendered text."""
    example = conversation(answered=False)
    encoder = vitron.encoder
    shown = encoder._show(example.messages, example.media)
    (message,) = [
        encoder._template_message(each, [m.kind for m in example.media], shown) for each in example.messages
    ]
    (segment_,) = encoder.chat.segments([message])
    found = vitron.processor(text=[segment_.text], images=[[IMAGE.frames[0]]], return_tensors="pt")
    assert found["input_ids"][0].tolist() == encoder.encode(example).ids


def test_what_is_learnt_is_what_is_generated(vitron):
    encoder, example = vitron.encoder, conversation()
    encoded = encoder.encode(example)
    learnt = [label for label in encoded.labels if label != IGNORED]
    text = encoder.decode(learnt, keep_end=True)
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.end_id)
    first, second, rest = text.split(end)
    assert first.strip() == encoder.assistant_text(example.messages[1])
    assert (second.strip(), rest) == ("ok", "")
    for count in (1, 3):
        prompt = encoder.encode(
            Example(
                task="",
                messages=example.messages[:count],
                media=example.media,
                regions=example.regions,
            )
        )
        assert encoded.ids[: len(prompt.ids)] == prompt.ids
        assert encoded.labels[len(prompt.ids)] != IGNORED


def test_generate_of_transformers_takes_a_padded_batch(vitron):
    examples = [conversation(answered=False), HELLO]
    batch = vitron.encoder(examples, left=True)
    together = vitron.model.generate(**batch.inputs(), do_sample=False, max_new_tokens=4)
    for row, example in enumerate(examples):
        inputs = vitron.encoder([example]).inputs()
        alone = vitron.model.generate(**inputs, do_sample=False, max_new_tokens=4)
        start = inputs["input_ids"].shape[1]
        assert together[row, batch.input_ids.shape[1] :].tolist() == alone[0, start:].tolist()


def test_the_wrong_number_of_regions_is_refused(vitron):
    inputs = vitron.encoder([conversation(answered=False)]).inputs()
    inputs["input_ids"] = inputs["input_ids"].where(
        inputs["input_ids"] != vitron.model.config.region_token_id, 5
    )
    with pytest.raises(ValueError, match="0 placeholders of regions, and there are 1"):
        vitron.model(**inputs)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "internvl", "smolvlm"])
def test_saved_and_loaded_it_is_the_same(family, tmp_path, caplog):
    folder = save_backbone(family, tmp_path / "plain")
    with caplog.at_level(logging.WARNING, "vitron"):
        vitron = Vitron.from_pretrained(folder, device="cpu")
    assert "untrained until you run `vitron fit`" in caplog.text
    caplog.clear()
    vitron.save_pretrained(tmp_path / "whole")
    other = Vitron.from_pretrained(tmp_path / "whole", device="cpu")
    assert not caplog.text
    assert_same(vitron.model, other.model)
    assert type(AutoProcessor.from_pretrained(tmp_path / "whole")) is type(vitron.processor)
    example = conversation()
    assert other.encoder.encode(example).ids == vitron.encoder.encode(example).ids
    with torch.no_grad():
        batch = vitron.encoder([example])
        found, wanted = (each.model(**batch.inputs()).logits for each in (other, vitron))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "gemma3"])
def test_adapters_alone_give_the_same_model(family, tmp_path):
    from peft import LoraConfig, inject_adapter_in_model

    vitron = Vitron.from_pretrained(save_backbone(family, tmp_path / "plain"), device="cpu")
    model = vitron.model
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), model.get_decoder())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name or name.startswith(("mask_head.", "region_encoder.")):
                weight.add_(torch.randn(weight.shape, generator=generator))
        model.get_input_embeddings().weight[-3:] += 1
    vitron.save_pretrained(tmp_path / "adapters", adapters_only=True)
    assert {each.suffix for each in (tmp_path / "adapters").iterdir()} <= {".json", ".safetensors", ".jinja"}
    with safe_open(tmp_path / "adapters" / "adapter.safetensors", "pt") as file:
        names = set(file.keys())
    base = [name for name in names if name.startswith("backbone.") and ".lora_" not in name]
    assert all("embed_tokens" in name for name in base)  # the rows that differ
    other = Vitron.from_pretrained(tmp_path / "adapters", device="cpu")
    assert_same(model, other.model)


def assert_same(one, other):
    weights = other.state_dict()
    assert weights.keys() == one.state_dict().keys()
    assert all(torch.equal(weights[name], each) for name, each in one.state_dict().items())


def test_the_pipeline_of_transformers_runs(tmp_path):
    vitron = attached("internvl")
    vitron.save_pretrained(tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path), device="cpu")
    content = [{"type": "image", "image": IMAGE.frames[0]}, {"type": "text", "text": "hello"}]
    found = pipe(text=[{"role": "user", "content": content}], max_new_tokens=3, do_sample=False)
    assert isinstance(found[0]["generated_text"][-1]["content"], str)
