# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FluxPipeline
from PIL import Image
from pixelsmith.adapters import CallableModel, Condition, Control, ModelOptions, PatchPlace
from pixelsmith.adapters.base import BOTH, NEGATIVE, POSITIVE, Extras, Guidance, Prompts
from pixelsmith.adapters.callable import CallableDenoiser
from pixelsmith.adapters.flux import pack, position_ids, unpack
from pixelsmith.adapters.options import fingerprint
from pixelsmith.adapters.schedulers import closed_form
from tiny_models import tiny_vae


def test_guidance_by_hand():
    negative, positive = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 6.0]]]])
    guided = Guidance(scale=3.0).combine(negative, positive)
    assert guided.tolist() == [[[[4.0, 12.0]]]]
    rescaled = Guidance(scale=3.0, rescale=1.0).combine(negative, positive)
    assert rescaled.std() == pytest.approx(positive.std())
    half = Guidance(scale=3.0, rescale=0.5).combine(negative, positive)
    assert torch.allclose(half, (guided + rescaled) / 2)


@pytest.mark.parametrize(
    ("scale", "has_negative", "is_on"), [(2, True, True), (1, True, False), (2, False, False)]
)
def test_guidance_needs_both_sides_and_a_scale(scale, has_negative, is_on):
    embeds = torch.zeros(1, 2, 3)
    condition = Condition(embeds=embeds, negative_embeds=embeds if has_negative else None)
    assert Guidance(scale=scale).is_on(condition) is is_on


def prompts(choose):
    return Prompts(choose, torch.device("cpu"), torch.float32)


def test_each_patch_gets_its_prompt():
    found = prompts(lambda row, column: Condition(embeds=torch.full((1, 2, 3), row + 10.0 * column))).of(
        [(1, 2), (3, 0)]
    )
    assert found.embeds.shape == (2, 2, 3)
    assert found.embeds[:, 0, 0].tolist() == [21, 3]
    assert found.pooled is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"embeds": torch.zeros(1, 2, 3)}, "must have a negative side, or none of them"),
        ({"embeds": torch.zeros(1, 5, 3), "negative_embeds": torch.zeros(1, 2, 3)}, "must have one shape"),
    ],
)
def test_prompts_of_patches_must_agree(other, message):
    first = Condition(embeds=torch.zeros(1, 2, 3), negative_embeds=torch.zeros(1, 2, 3))
    choose = prompts(lambda row, column: Condition(**other) if row else first)
    with pytest.raises(ValueError, match=message):
        choose.of([(0, 0), (1, 0)])


def test_sides_of_image_embeddings():
    extras = Extras(guidance=Guidance(), image_embeds=[torch.tensor([[[0.0]], [[1.0]]])])
    like = torch.zeros(1)
    for side, values in ((NEGATIVE, [0, 0]), (POSITIVE, [1, 1]), (BOTH, [0, 0, 1, 1])):
        assert extras.images(2, side, like)[0].flatten().tolist() == values


def noise_image(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_patch_is_shown_its_part_of_the_image():
    image = noise_image(40, 56)
    parts = Control(model=None, image=image).crop([(1, 2), (6, 11)], (4, 3), (40, 56), 4)
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert parts.shape == (2, 3, 16, 12)
    assert torch.equal(parts[0], whole[:, 4:20, 8:20])
    assert torch.equal(parts[1], whole[:, 24:40, 44:56])


def test_parts_run_over_the_border_of_an_image_that_wraps():
    image = noise_image(40, 56)
    part = Control(model=None, image=image).crop([(8, 12)], (4, 4), (40, 56), 4)[0]
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.equal(part, whole.roll((-32, -48), dims=(1, 2))[:, :16, :16])


def test_small_control_images_are_enlarged_part_by_part():
    image = noise_image(20, 28)
    whole = np.asarray(image.resize((56, 40), Image.Resampling.LANCZOS)).astype(float)
    part = Control(model=None, image=image).crop([(3, 5)], (4, 3), (40, 56), 4)[0]
    difference = part.permute(1, 2, 0).numpy() * 255 - whole[12:28, 20:32]
    assert np.abs(difference).max() <= 1.01


def test_controls_have_their_time():
    control = Control(model=None, image=noise_image(2, 2), start=0.25, end=0.75)
    assert [control.is_on(step, 8) for step in range(8)] == [False] * 2 + [True] * 4 + [False] * 2
    with pytest.raises(ValueError, match=r"0 <= start < end <= 1, got 0\.5 and 0\.5"):
        Control(model=None, image=noise_image(2, 2), start=0.5, end=0.5)


def test_grey_control_images_become_rgb():
    grey = noise_image(4, 4).convert("L")
    assert Control(model=None, image=grey).crop([(0, 0)], (1, 1), (4, 4), 4).shape == (1, 3, 4, 4)


def test_tokens_of_flux_are_those_of_the_host():
    x = torch.randn(2, 16, 6, 10)
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 16, 6, 10))
    assert torch.equal(unpack(pack(x), 6, 10), x)
    host = FluxPipeline._prepare_latent_image_ids(2, 3, 5, "cpu", torch.float32)
    assert torch.equal(position_ids(3, 5), host)
    assert torch.equal(position_ids(3, 5, (4, 6)), host + torch.tensor([0, 2, 3]))
    with pytest.raises(ValueError, match="even sides, got 5 x 4"):
        pack(torch.zeros(1, 16, 5, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conditioning": "no"}, "conditioning must be one of true, official, base, none, got 'no'"),
        ({"positions": "left"}, "positions must be one of patch, canvas, got 'left'"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, got 0"),
        ({"guidance_rescale": 1.5}, r"guidance_rescale must lie in \[0, 1\], got 1.5"),
        ({"timesteps": [1], "sigmas": [1.0]}, "cannot both be given"),
        ({"patch": 0}, "patch must be at least 1 latent wide, got 0"),
    ],
)
def test_wrong_options(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelOptions(**settings)


def test_the_centre_of_a_patch():
    place = PatchPlace(top=80, left=20, height=40, width=40, size=(100, 200))
    assert place.center == (0.0, 0.2)  # it runs over the lower border


def test_fingerprints_tell_inputs_apart():
    tensor = torch.arange(4.0)
    values = {"a": [1, "b", None], "t": tensor, "i": noise_image(3, 3), "c": Condition(embeds=tensor)}
    found = fingerprint(values)
    assert json.loads(json.dumps(found)) == found
    assert fingerprint({**values, "t": tensor + 1}) != found
    assert fingerprint({**values, "i": noise_image(3, 2)}) != found
    assert fingerprint(test_the_centre_of_a_patch) == "test_the_centre_of_a_patch"


def model(**changes):
    given = {
        "predict": lambda x, timestep, origins: 0.5 * x,
        "vae": tiny_vae(),
        "scheduler": DDIMScheduler(clip_sample=False),
        "num_inference_steps": 4,
        "patch": 16,
    }
    return CallableModel(**{**given, **changes})


def test_a_function_as_a_model():
    made = model(
        about={"prompt": "sea"}, generate=lambda size, seed: np.full((*size, 3), seed, dtype=np.uint8)
    )
    assert (made.channels, made.vae_scale_factor, made.patch, made.patch_multiple) == (4, 4, 16, 1)
    denoiser = made.denoiser((64, 64), (16, 16))
    x = torch.randn(2, 4, 16, 16)
    assert torch.equal(denoiser.predict(x, 0, [(0, 0), (4, 4)]), 0.5 * x)
    assert (made.base_image((6, 8), 3) == np.full((6, 8, 3), 3)).all()
    about = made.describe()
    assert json.loads(json.dumps(about)) == about
    assert (about["prompt"], about["scheduler"]["class"]) == ("sea", "DDIMScheduler")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae": None}, "vae must be an autoencoder, got None"),
        ({"num_inference_steps": 0}, "must be at least 1, got 0 and 16"),
        ({"patch_multiple": 3}, "patch_multiple must divide patch=16, got 3"),
        ({"about": {"x": torch.zeros(1)}}, "about must hold JSON values"),
        ({"about": {"x": float("inf")}}, "about must hold JSON values"),
    ],
)
def test_wrong_functions(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_a_function_need_not_generate():
    with pytest.raises(NotImplementedError, match="generates no base image"):
        model().base_image((8, 8), 0)
    with pytest.raises(ValueError, match=r"generate must return \(8, 8, 3\) uint8, got \(4, 8, 3\) uint8"):
        model(generate=lambda size, seed: np.zeros((4, 8, 3), dtype=np.uint8)).base_image((8, 8), 0)


def test_outputs_of_another_shape():
    solver = closed_form(DDIMScheduler(clip_sample=False), 4)
    denoiser = CallableDenoiser(lambda x, timestep, origins: x[:, :2], solver)
    with pytest.raises(ValueError, match=r"predict must return \(1, 4, 8, 8\), got \(1, 2, 8, 8\)"):
        denoiser.predict(torch.zeros(1, 4, 8, 8), 0, [(0, 0)])


def test_a_setting_read_from_a_file_is_the_default_if_it_says_the_same():
    read = json.loads('{"conditioning": "true", "guidance_rescale": 0.0}')
    assert ModelOptions(**read).changed(tuple(read)) == {}
    assert ModelOptions(conditioning="none").changed(("conditioning",)) == {"conditioning": "none"}
