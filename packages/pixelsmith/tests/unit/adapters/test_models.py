# SPDX-License-Identifier: Apache-2.0
import json
from functools import cache
from types import SimpleNamespace

import diffusers
import pytest
import torch
from PIL import Image
from pixelsmith.adapters import (
    Condition,
    Control,
    from_pipeline,
    load_model,
    load_pipeline,
    shipped_models,
)
from pixelsmith.adapters.assets import SHIPPED, locate_model, model_name
from pixelsmith.adapters.choosing import set_scheduler
from pixelsmith.config import JobConfig, SizeConfig
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job import FolderStore, Job, plan_job
from pixelsmith.job.spec import check_sizes
from tiny_models import tiny_pipeline

FAMILIES = ("sd", "sdxl", "sd3", "flux")


@cache
def shared(family):
    """A pipeline that no test changes."""
    return tiny_pipeline(family)


def noise(count, channels):
    return torch.randn(count, channels, 16, 16, generator=torch.Generator().manual_seed(0))


def recorded(model):
    """Return the list that will hold the keyword arguments of all calls of the network."""
    calls = []
    network = model.network

    def hook(module, args, kwargs):
        calls.append(kwargs)

    return calls, network.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize(
    ("family", "channels", "multiple"), [("sd", 4, 2), ("sdxl", 4, 2), ("sd3", 16, 2), ("flux", 16, 2)]
)
def test_what_a_job_asks(family, channels, multiple):
    model = from_pipeline(shared(family), "a red ball", name="mine")
    assert (model.name, model.channels, model.vae_scale_factor) == ("mine", channels, 4)
    assert (model.patch, model.patch_multiple, model.device) == (16, multiple, torch.device("cpu"))
    assert model.vae is shared(family).vae
    about = model.describe()
    assert json.loads(json.dumps(about)) == about
    assert about["prompt"] == "a red ball"
    assert about["family"] == family


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue ball"},
        {"negative_prompt": "red"},
        {"num_inference_steps": 7},
        {"guidance_scale": 3.0},
        {"guidance_rescale": 0.5},
        {"conditioning": "none"},
        {"clip_skip": 1},
        {"patch": 8},
        {"patch_prompt": lambda place: "x"},
        {"attention_kwargs": {"scale": 0.5}},
        {"controls": [Control(model=None, image=Image.new("RGB", (4, 4)))]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_is_part_of_the_job(change):
    before = from_pipeline(shared("sdxl"), "a red ball").describe()
    given = {"prompt": "a red ball", **change}
    assert from_pipeline(shared("sdxl"), **given).describe() != before


def test_the_scheduler_is_part_of_the_job():
    pipe = tiny_pipeline("sdxl")
    before = from_pipeline(pipe).describe()
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    assert from_pipeline(pipe).describe() != before


@pytest.mark.parametrize(
    ("family", "name"), [("sd", "ddim"), ("sdxl", "euler"), ("sdxl", "dpm++"), ("sd3", "flow-euler")]
)
def test_a_job_in_a_folder_runs_with_each_scheduler(tmp_path, family, name):
    """Some have limits without a bound among their settings, which JSON cannot hold."""
    pipe = tiny_pipeline(family)
    set_scheduler(pipe, name)
    model = from_pipeline(pipe, "x", num_inference_steps=2)
    config = JobConfig(patch=model.patch, patch_multiple=model.patch_multiple)
    Job(model, plan_job(model, config, SizeConfig(scale=1.25)), FolderStore(tmp_path)).run(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as made:
        about = json.loads(made.text["pixelsmith"], parse_constant=pytest.fail)
    assert about["settings"]["model"]["scheduler"]["class"] == type(pipe.scheduler).__name__


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("true", [96, 160, 16, 40, 96, 160]),
        ("official", [96, 160, 40, 40, 96, 160]),
        ("base", [64, 64, 11, 16, 64, 64]),
        ("none", [64, 64, 0, 0, 64, 64]),
    ],
)
def test_what_sdxl_is_told_of_the_place(policy, expected):
    model = from_pipeline(shared("sdxl"), "a red ball", conditioning=policy, num_inference_steps=4)
    calls, hook = recorded(model)
    with torch.no_grad(), hook:
        model.denoiser((96, 160), (16, 16)).predict(torch.zeros(2, 4, 16, 16), 0, [(0, 0), (4, 10)])
    ids = calls[0]["added_cond_kwargs"]["time_ids"]
    assert ids.shape == (4, 6)  # the negative side first
    assert ids[1].tolist() == expected
    assert ids[3].tolist() == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_with_prompts_of_their_own(family):
    places = []

    def choose(place):
        places.append(place)
        return "a red ball" if place.center[1] < 0.5 else "a green cube"

    settings = {"num_inference_steps": 4, "guidance_scale": 3.0}
    x = noise(2, 16 if family in ("sd3", "flux") else 4)
    origins = [(0, 0), (0, 16)]
    with torch.no_grad():
        model = from_pipeline(shared(family), "a scene", patch_prompt=choose, **settings)
        found = model.denoiser((64, 128), (16, 16)).predict(x, 1, origins)
        for number, text in enumerate(("a red ball", "a green cube")):
            alone = from_pipeline(shared(family), text, **settings).denoiser((64, 128), (16, 16))
            one = alone.predict(x[number : number + 1], 1, origins[number : number + 1])
            assert torch.allclose(found[number], one[0], atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    assert (places[1].top, places[1].left, places[1].height, places[1].size) == (0, 64, 64, (64, 128))


def test_each_text_is_encoded_once():
    pipe = tiny_pipeline("sdxl")
    count = []
    pipe.text_encoder.register_forward_hook(lambda *_: count.append(1))
    model = from_pipeline(pipe, "a", patch_prompt=lambda place: "left" if place.left == 0 else "right")
    denoiser = model.denoiser((64, 128), (16, 16))
    with torch.no_grad():
        for _ in range(3):
            denoiser.predict(torch.zeros(2, 4, 16, 16), 0, [(0, 0), (0, 16)])
    assert len(count) == 2


def test_embeddings_of_a_patch_get_the_negative_side_of_the_others():
    pipe = shared("sdxl")
    other = from_pipeline(pipe, "a cube").condition()
    bare = Condition(embeds=other.embeds, pooled=other.pooled)
    model = from_pipeline(
        pipe, "a ball", negative_prompt="blue", patch_prompt=lambda place: bare if place.left else "a ball"
    )
    with torch.no_grad():
        found = model.denoiser((64, 128), (16, 16)).predict(torch.zeros(2, 4, 16, 16), 0, [(0, 0), (0, 16)])
    assert torch.isfinite(found).all()


def test_flux_can_count_positions_on_the_canvas():
    settings = {"num_inference_steps": 4}
    x = noise(2, 16)
    model = from_pipeline(shared("flux"), "a ball", positions="canvas", **settings)
    calls, hook = recorded(model)
    with torch.no_grad(), hook:
        found = model.denoiser((256, 256), (16, 16)).predict(x, 1, [(0, 0), (8, 20)])
    assert [call["img_ids"][0].tolist() for call in calls] == [[0, 0, 0], [0, 4, 10]]
    with torch.no_grad():
        plain = from_pipeline(shared("flux"), "a ball", **settings).denoiser((256, 256), (16, 16))
        native = plain.predict(x, 1, [(0, 0), (8, 20)])
    assert torch.allclose(found[0], native[0], atol=1e-5)
    assert not torch.allclose(found[1], native[1], atol=1e-4)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_half_precision_networks_give_float32(family):
    pipe = tiny_pipeline(family).to(torch.bfloat16)
    model = from_pipeline(pipe, "a ball", num_inference_steps=4)
    x = torch.randn(1, model.channels, 16, 16)
    with torch.no_grad():
        found = model.denoiser((64, 64), (16, 16)).predict(x, 1, [(0, 0)])
    assert found.dtype == torch.float32
    assert model.describe()["dtype"] == "bfloat16"


def test_shift_of_the_schedule_follows_the_patch_not_the_canvas():
    model = from_pipeline(shared("flux"), "a ball", num_inference_steps=4)
    small, large = model.denoiser((256, 256), (8, 8)), model.denoiser((256, 256), (16, 16))
    again = model.denoiser((1024, 1024), (16, 16))
    assert small.solver.noise[1] < large.solver.noise[1]
    assert again.solver.noise == large.solver.noise


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("vae", "the StableDiffusionXLPipeline has no vae, which every job needs"),
        ("unet", "the StableDiffusionXLPipeline has no unet"),
        ("scheduler", "the StableDiffusionXLPipeline has no scheduler"),
    ],
)
def test_missing_parts(part, message):
    pipe = tiny_pipeline("sdxl")
    setattr(pipe, part, None)
    with pytest.raises(ValueError, match=message):
        from_pipeline(pipe)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("PNDMScheduler", r"scheduler must be one of .*, got PNDMScheduler; set pipe.scheduler = DDIM"),
        ("EulerAncestralDiscreteScheduler", "got EulerAncestralDiscreteScheduler"),
        ("LCMScheduler", "got LCMScheduler"),
    ],
)
def test_schedulers_without_closed_form(kind, message):
    pipe = tiny_pipeline("sd")
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=message):
        from_pipeline(pipe)


def test_a_last_step_without_noise():
    with pytest.raises(ValueError, match="must begin above the noiseless level"):
        from_pipeline(shared("flux"), sigmas=[1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("sd", {"prompt_2": "x"}, "prompt_2 means nothing to StableDiffusionPipeline; leave it out"),
        ("sd", {"max_sequence_length": 9}, "max_sequence_length means nothing to StableDiffusionPipeline"),
        ("sd3", {"guidance_rescale": 0.5}, "guidance_rescale means nothing to StableDiffusion3Pipeline"),
        ("sdxl", {"true_cfg_scale": 2.0}, "true_cfg_scale means nothing to StableDiffusionXLPipeline"),
    ],
)
def test_settings_that_mean_nothing(family, settings, message):
    with pytest.raises(ValueError, match=message):
        from_pipeline(shared(family), "x", **settings)


def test_unknown_settings_and_pipelines():
    with pytest.raises(TypeError, match="stepz"):
        from_pipeline(shared("sd"), stepz=3)
    with pytest.raises(TypeError, match=r"pipe must be one of .*, got SimpleNamespace; other models"):
        from_pipeline(SimpleNamespace())


def test_networks_for_inpainting():
    pipe = tiny_pipeline("sd")
    pipe.unet = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
    with pytest.raises(
        ValueError, match="must take the 4 channels of the vae, takes 9; models for inpainting"
    ):
        from_pipeline(pipe)


def test_wrong_sizes():
    model = from_pipeline(shared("flux"))
    with pytest.raises(ValueError, match="multiples of 4 pixels, got 66 x 64"):
        model.denoiser((66, 64), (16, 16))
    with pytest.raises(ValueError, match="multiples of 2 latents, got 15 x 16"):
        model.denoiser((64, 64), (15, 16))
    with pytest.raises(ValueError, match="base image must be multiples of 8 pixels, got 60 x 64"):
        model.base_image((60, 64), 0)


def test_a_base_image_of_a_wrong_size_is_told_before_the_job_begins():
    model = from_pipeline(shared("sdxl"), "x")
    config = JobConfig(patch=model.patch, patch_multiple=model.patch_multiple)
    spec = plan_job(model, config, SizeConfig(size="128"), base="60")
    with pytest.raises(ValueError, match="of a base image must be multiples of 8 pixels, got 60 x 60"):
        check_sizes(model, spec)


def test_more_layers_are_skipped_than_there_are():
    with pytest.raises(ValueError, match=r"clip_skip must be below \d, the layers of .*, got 99"):
        from_pipeline(shared("sdxl"), "x", clip_skip=99)
    with pytest.raises(ValueError, match="clip_skip must not be negative, got -2"):
        from_pipeline(shared("sdxl"), "x", clip_skip=-2)


def test_prompts_without_a_pooled_side():
    for family in ("sdxl", "sd3", "flux"):
        model = from_pipeline(shared(family), "x", guidance_scale=1.0)
        denoiser = model.denoiser((64, 64), (16, 16))
        embeds = model.condition().embeds
        denoiser.prompts.condition = Condition(embeds=embeds)
        with pytest.raises(ValueError, match="needs the pooled side of a prompt"):
            denoiser.predict(torch.zeros(1, model.channels, 16, 16), 0, [(0, 0)])


def test_the_autoencoder_serves_tiles():
    model = from_pipeline(shared("sd3"))
    vae = TiledVAE(model.vae)
    assert (vae.factor, vae.latent_channels) == (model.vae_scale_factor, model.channels)


def test_patches_of_another_size():
    assert from_pipeline(shared("sdxl"), patch=9).patch == 8
    assert from_pipeline(shared("sdxl"), patch=1).patch == 2


def test_loading(tmp_path, capfd):
    shared("sdxl").save_pretrained(tmp_path / "toy")
    capfd.readouterr()
    model = load_model(tmp_path / "toy", "a ball", device="cpu", num_inference_steps=3)
    assert capfd.readouterr().err == ""  # no bars of the libraries
    assert type(model.pipe).__name__ == "PixelsmithXLPipeline"
    assert model.name == str(tmp_path / "toy")
    assert model.describe()["dtype"] == "float32"
    half = load_pipeline(tmp_path / "toy", device="cpu", dtype="bfloat16")
    assert half.unet.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"device": "abacus"}, ValueError, "device must be 'auto', 'cpu' or 'cuda"),
        ({"device": "cuda:99"}, ValueError, "is not present"),
        ({"dtype": "int4"}, ValueError, "dtype must be one of auto, float32, bfloat16, float16, got 'int4'"),
        ({}, FileNotFoundError, "no model '.*missing': it is neither shipped"),
    ],
)
def test_wrong_loading(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        load_model(str(tmp_path / "missing"), **settings)


def test_a_bare_name_does_not_wait_for_the_network(monkeypatch):
    monkeypatch.setattr(diffusers.DiffusionPipeline, "load_config", None)  # not even asked
    with pytest.raises(FileNotFoundError, match="no model 'nosuchmodel': it is neither shipped"):
        load_pipeline("nosuchmodel", device="cpu")


@pytest.mark.parametrize("kind", [[None, None], ["diffusers", "AutoencoderKL"]])
def test_a_model_without_a_part_is_named(tmp_path, kind):
    index = {"_class_name": "StableDiffusionXLPipeline", "vae": kind, "feature_extractor": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="has no vae; download it again"):
        load_pipeline(tmp_path, device="cpu")


def test_guidance_is_a_number():
    with pytest.raises(ValueError, match="guidance_scale must be a finite number, got nan"):
        from_pipeline(shared("sd"), "x", guidance_scale=float("nan"))


def test_models_of_other_architectures(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(ValueError, match=r"must be for one of FluxPipeline, .*, is for WanPipeline"):
        load_pipeline(tmp_path, device="cpu")


def test_names_of_shipped_models(monkeypatch, tmp_path):
    assert model_name(SHIPPED.assets / "some-model") == "some-model"
    assert model_name("hub/some-model") == "hub/some-model"
    assert locate_model("hub/some-model") == "hub/some-model"
    for name in shipped_models():
        assert locate_model(name) == str(SHIPPED.assets / name)
