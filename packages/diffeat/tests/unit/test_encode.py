# SPDX-License-Identifier: Apache-2.0
"""Prompts of any length, latents and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.denoisers.clip import encode_clip, num_chunks
from diffeat.encode import draw_noise, encode_images

# every letter is a token of the tiny tokenizers, and 14 of them fit between start and end
SHORT, EXACT, LONG = "a cat", "abcdefghijklmn", "abcdefghijklmn opqrstuvw"


def conditions(pipeline: Any, prompts: list[str]) -> dict[str, Any]:
    extractor = FeatureExtractor(pipeline)
    return extractor.adapter.conditions(pipeline, prompts, (64, 64), torch.device("cpu"), torch.float32)


@torch.no_grad()
def test_a_short_prompt_is_encoded_as_the_pipelines_do(pipelines):
    pipeline = pipelines("SD1.5")
    embeds, _ = pipeline.encode_prompt(SHORT, "cpu", 1, False)
    torch.testing.assert_close(conditions(pipeline, [SHORT])["encoder_hidden_states"], embeds)
    pipeline = pipelines("SDXL")
    embeds, _, pooled, _ = pipeline.encode_prompt(SHORT, device="cpu", do_classifier_free_guidance=False)
    found = conditions(pipeline, [SHORT])
    torch.testing.assert_close(found["encoder_hidden_states"], embeds)
    torch.testing.assert_close(found["added_cond_kwargs"]["text_embeds"], pooled)
    assert found["added_cond_kwargs"]["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
@torch.no_grad()
def test_a_long_prompt_becomes_pieces(pipelines, family):
    pipeline = pipelines(family)
    found = conditions(pipeline, [LONG, SHORT])
    embeds = found["encoder_hidden_states"]
    assert embeds.shape[:2] == (2, 32)
    first = conditions(pipeline, [EXACT])["encoder_hidden_states"]
    second = conditions(pipeline, ["opqrstuvw"])["encoder_hidden_states"]
    torch.testing.assert_close(embeds[0], torch.cat([first[0], second[0]]))
    short, empty = (conditions(pipeline, [text])["encoder_hidden_states"][0] for text in (SHORT, ""))
    torch.testing.assert_close(embeds[1], torch.cat([short, empty]))


@torch.no_grad()
def test_the_pooled_vector_is_that_of_the_beginning(pipelines):
    pipeline = pipelines("SDXL")
    pooled = conditions(pipeline, [LONG, SHORT])["added_cond_kwargs"]["text_embeds"]
    alone = [conditions(pipeline, [text])["added_cond_kwargs"]["text_embeds"][0] for text in (EXACT, SHORT)]
    torch.testing.assert_close(pooled, torch.stack(alone))


def test_how_many_pieces(pipelines):
    tokenizer = pipelines("SD1.5").tokenizer
    assert [num_chunks(tokenizer, [text]) for text in ("", SHORT, EXACT, LONG)] == [1, 1, 1, 2]
    assert num_chunks(tokenizer, [SHORT, LONG * 3]) == 5
    embeds, pooled = encode_clip(tokenizer, pipelines("SD1.5").text_encoder, [SHORT], chunks=3, hidden=None)
    assert embeds.shape == (1, 48, 16)
    assert pooled is None


def test_features_of_a_long_prompt(pipelines, images):
    extractor = FeatureExtractor(pipelines("SDXL"))
    name = "up-level1-repeat0-vit-block0-cross-map"
    assert extractor(images, name, ExtractionOptions(prompt=LONG))[name].shape[-1] == 32
    assert extractor(images, name, ExtractionOptions(prompt=SHORT))[name].shape[-1] == 16


@torch.no_grad()
def test_latents_are_those_of_the_autoencoder(pipelines, images):
    vae = pipelines("SD1.5").vae
    distribution = vae.encode(images * 2 - 1).latent_dist
    expected = distribution.mode() * vae.config.scaling_factor
    hashes = ["one", "two"]
    mode = encode_images(pipelines("SD1.5"), images, hashes, posterior="mode", seed=0)
    torch.testing.assert_close(mode, expected)
    sample = encode_images(pipelines("SD1.5"), images, hashes, posterior="sample", seed=0)
    spread = (sample - mode) / vae.config.scaling_factor / distribution.std
    assert 0.8 < float(spread.std()) < 1.2
    swapped = encode_images(pipelines("SD1.5"), images.flip(0), hashes[::-1], posterior="sample", seed=0)
    torch.testing.assert_close(swapped.flip(0), sample)


@torch.no_grad()
def test_shifted_latents(fresh, images):
    pipeline = fresh("SD3")
    plain = pipeline.vae.encode(images * 2 - 1).latent_dist.mode()
    pipeline.vae.register_to_config(shift_factor=0.5, scaling_factor=2.0)
    found = encode_images(pipeline, images, ["", ""], posterior="mode", seed=0)
    torch.testing.assert_close(found, (plain - 0.5) * 2)
    pipeline.vae.register_to_config(
        shift_factor=None, latents_mean=[1.0] * 4, latents_std=[4.0] * 4, scaling_factor=0.5
    )
    found = encode_images(pipeline, images, ["", ""], posterior="mode", seed=0)
    torch.testing.assert_close(found, (plain - 1) / 8)


def test_an_autoencoder_that_overflows_is_upcast(fresh, images):
    pipeline = fresh("SDXL")
    pipeline.vae.register_to_config(force_upcast=True)
    pipeline.vae.half()
    before = {key: value.clone() for key, value in pipeline.vae.state_dict().items()}
    latents = encode_images(pipeline, images, ["", ""], posterior="mode", seed=0)
    assert latents.dtype == torch.float32
    assert pipeline.vae.dtype == torch.float16
    assert all(torch.equal(before[key], value) for key, value in pipeline.vae.state_dict().items())


def test_noise_belongs_to_the_image():
    both = draw_noise((4, 2, 3), ["a", "b"], seed=0, draw=0)
    assert torch.equal(both[1:], draw_noise((4, 2, 3), ["b"], seed=0, draw=0))
    others = [draw_noise((4, 2, 3), ["a"], seed=s, draw=d) for s, d in ((0, 0), (1, 0), (0, 1))]
    assert torch.equal(others[0], both[:1])
    assert not torch.equal(others[0], others[1])
    assert not torch.equal(others[0], others[2])
