# SPDX-License-Identifier: Apache-2.0
"""Several images of one call, embeddings and initial latents, as the pipelines of diffusers take them."""

from functools import cache

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from pixelsmith.adapters import Condition
from pixelsmith.pipelines import (
    PixelsmithFluxPipeline,
    PixelsmithSD3Pipeline,
    PixelsmithSDPipeline,
    PixelsmithXLPipeline,
)
from pixelsmith.pipelines.requests import Embeddings, choose_seeds, expand
from tiny_models import tiny_pipeline

CLASSES = {
    "sd": PixelsmithSDPipeline,
    "sdxl": PixelsmithXLPipeline,
    "sd3": PixelsmithSD3Pipeline,
    "flux": PixelsmithFluxPipeline,
}
QUICK = {"num_inference_steps": 2, "guidance_scale": 3.0, "scale": 1.5}


@cache
def shared(family):
    host = tiny_pipeline(family)
    pipe = CLASSES[family].from_pipe(host)
    if family == "flux":
        pipe.default_sample_size = host.default_sample_size
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo():
    values = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((32, 32), Image.Resampling.BICUBIC)


def arrays(output):
    return [np.asarray(image) for image in output.images]


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_prompts_times_images(output_type):
    pipe, prompts = shared("sdxl"), ["a red ball", "a cube"]
    settings = {**QUICK, "output_type": output_type}
    both = pipe(prompts, photo(), seed=5, num_images_per_prompt=2, **settings).images
    assert len(both) == 4
    for at, (prompt, seed) in enumerate([("a red ball", 5), ("a red ball", 6), ("a cube", 7), ("a cube", 8)]):
        alone = pipe(prompt, photo(), seed=seed, **settings).images[0]
        assert np.array_equal(np.asarray(both[at]), np.asarray(alone))


def test_a_generator_for_each_image():
    pipe = shared("sd")
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 3)]
    made = arrays(pipe("a ball", photo(), num_images_per_prompt=3, generator=generators, **QUICK))
    assert np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[1])


def test_negative_prompts_in_a_list():
    pipe = shared("sdxl")
    two = arrays(pipe(["a", "a"], photo(), generator=None, negative_prompt=["b", "c"], seed=1, **QUICK))
    one = arrays(pipe("a", photo(), negative_prompt="c", seed=2, **QUICK))
    assert np.array_equal(two[1], one[0])


def test_initial_latents_are_those_of_the_base_image():
    pipe = shared("sdxl")
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 64, "width": 64}
    ours = arrays(pipe("a ball", latents=latents, num_images_per_prompt=2, seed=1, **settings))
    for at in range(2):
        theirs = diffusers.StableDiffusionXLPipeline.__call__(
            pipe, "a ball", latents=latents[at : at + 1].clone(), **settings
        ).images[0]
        assert np.array_equal(ours[at], np.asarray(theirs))


@pytest.mark.parametrize("family", CLASSES)
def test_embeddings_instead_of_prompts(family):
    pipe = shared(family)
    scale = {"true_cfg_scale": 2.0} if family == "flux" else {}
    negative = {"negative_prompt": "fog"}
    expected = arrays(pipe("a ball", photo(), seed=1, **scale, **negative, **QUICK))[0]
    encoded = _encode(pipe, family)
    found = arrays(pipe(image=photo(), seed=1, **encoded, **scale, **QUICK))[0]
    assert np.array_equal(found, expected)


def _encode(pipe, family):
    """Encode with the host's own method."""
    if family == "flux":
        sides = [pipe.encode_prompt(text, None)[:2] for text in ("a ball", "fog")]
        (embeds, pooled), (negative, other) = sides
    elif family == "sd":
        embeds, negative = pipe.encode_prompt("a ball", "cpu", 1, True, "fog")
        return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    else:
        more = {"prompt_2": None, "prompt_3": None} if family == "sd3" else {}
        embeds, negative, pooled, other = pipe.encode_prompt("a ball", negative_prompt="fog", **more)
    return {
        "prompt_embeds": embeds, "pooled_prompt_embeds": pooled, "negative_prompt_embeds": negative,
        "negative_pooled_prompt_embeds": other,
    }  # fmt: skip


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_callbacks_see_and_replace_embeddings(family):
    pipe, seen = shared(family), []

    def callback(pipe, step, timestep, tensors):
        seen.append((pipe.stage, tensors["prompt_embeds"].shape[0]))
        return {"prompt_embeds": torch.zeros_like(tensors["prompt_embeds"])} if step == 0 else {}

    settings = {**QUICK, "num_inference_steps": 3, "seed": 1}
    plain = arrays(pipe("a ball", photo(), **settings))[0]
    asked = {
        "callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }  # fmt: skip
    changed = arrays(pipe("a ball", photo(), **asked, **settings))[0]
    assert seen == [(1, 2 if family == "sdxl" else 1)] * 3
    assert not np.array_equal(changed, plain)
    # and a call without the callback is as before
    assert np.array_equal(arrays(pipe("a ball", photo(), **settings))[0], plain)


def test_a_callback_may_switch_guidance_off():
    """As the recipe of diffusers does it: only the positive side is given back."""
    pipe, calls = shared("sdxl"), []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))

    def callback(pipe, step, timestep, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[-1]} if step == 0 else {}

    with hook:
        pipe(
            "a ball", photo(), seed=1, plan="grid", callback_on_step_end=callback, scale=1.0,
            callback_on_step_end_tensor_inputs=["prompt_embeds"], num_inference_steps=3, guidance_scale=3.0,
        )  # fmt: skip
    assert calls == [2, 1, 1]


def test_seeds():
    assert choose_seeds(1, 3, None) == [3]
    assert choose_seeds(3, 3, None) == [3, 4, 5]
    drawn = [choose_seeds(2, None, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert drawn[0] == drawn[1] != choose_seeds(2, None, torch.Generator().manual_seed(2))
    assert drawn[0][0] != drawn[0][1]
    assert choose_seeds(1, None, None) != choose_seeds(1, None, None)


ONE = torch.zeros(1, 3, 4)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"prompt": "a", "embeddings": Embeddings(prompt_embeds=ONE)}, ValueError, "prompt and prompt_em"),
        ({"prompt": []}, ValueError, "at least one prompt, got none"),
        ({"num_images_per_prompt": 0}, ValueError, "num_images_per_prompt must be at least 1, got 0"),
        ({"seed": 3, "generator": torch.Generator()}, ValueError, "cannot both be given"),
        ({"generator": [torch.Generator()] * 3}, ValueError, "each of 2 images, got 3"),
        ({"generator": [3, 4]}, TypeError, "must be a torch.Generator or a list of them"),
        ({"latents": torch.zeros(3, 4, 8, 8)}, ValueError, "a row for each of 2 images, got 3"),
        ({"settings": {"negative_prompt": ["x"]}}, ValueError, "an entry for each of 2 prompts, got 1"),
    ],
)  # fmt: skip
def test_wrong_calls(settings, error, said):
    given = {"prompt": ["a", "b"], "settings": {}, "embeddings": Embeddings(), **settings}
    with pytest.raises(error, match=said):
        expand(given.pop("prompt"), given.pop("settings"), **given)


def test_embeddings_give_a_prompt_for_each_row():
    found = expand(None, {}, embeddings=Embeddings(prompt_embeds=torch.zeros(2, 3, 4)), seed=1)
    assert [type(request.prompt) for request in found] == [Condition, Condition]
    assert found[1].prompt.embeds.shape == (1, 3, 4)
