# SPDX-License-Identifier: Apache-2.0
"""Weights that people own: variants, single files, pickles, LoRAs, schedulers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from pixelsmith.adapters import load_model, load_pipeline, read_outline
from pixelsmith.adapters.choosing import ensure_closed_form, set_scheduler
from pixelsmith.cli import app
from pixelsmith.config import LoadingConfig, parse_lora
from pixelsmith.pipelines import PixelsmithSDPipeline, PixelsmithXLPipeline
from safetensors.torch import load_file
from tiny_models import tiny_pipeline


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved pipelines: SDXL, and SD as it comes, with PNDM."""
    place = tmp_path_factory.mktemp("models")
    tiny_pipeline("sdxl").save_pretrained(place / "sdxl")
    sd = tiny_pipeline("sd")
    sd.scheduler = diffusers.PNDMScheduler.from_config(sd.scheduler.config, skip_prk_steps=True)
    sd.save_pretrained(place / "sd")
    tiny_pipeline("sd3").save_pretrained(place / "sd3")
    return place


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def call(*args, code=0):
        found = run_app(app, [*map(str, args)])
        shown = capsys.readouterr()
        assert found == code, shown
        return SimpleNamespace(stdout=shown.out, stderr=shown.err)

    return call


def loaded(folder, **loading):
    return load_pipeline(folder, device="cpu", loading=LoadingConfig(**loading))


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
def test_variants_by_the_hosts_own_entry_point(folders, tmp_path):
    tiny_pipeline("sdxl").to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert list(tmp_path.glob("unet/*.fp16.safetensors"))
    pipe = PixelsmithXLPipeline.from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float16)
    assert pipe.unet.dtype == torch.float16
    assert loaded(tmp_path, variant="fp16").unet.dtype == torch.float32
    with pytest.raises(FileNotFoundError, match="has no weights of the variant bf16"):
        PixelsmithXLPipeline.from_pretrained(tmp_path, variant="bf16")
    with pytest.raises(FileNotFoundError, match="in the variant fp16 only: name it"):
        loaded(tmp_path)


@pytest.mark.parametrize("entry", [PixelsmithXLPipeline.from_pretrained, loaded, read_outline])
def test_a_network_in_a_pickle_is_refused_in_one_sentence(folders, tmp_path, entry):
    shutil.copytree(folders / "sdxl", tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    more = [LoadingConfig()] if entry is read_outline else []
    with pytest.raises(FileNotFoundError, match=r"model\.bin is a pickle, which can run code .*safetensors$"):
        entry(tmp_path / "model", *more)


def test_pickles_are_not_allowed_on_request(folders):
    with pytest.raises(ValueError, match="use_safetensors must be true"):
        PixelsmithXLPipeline.from_pretrained(folders / "sdxl", use_safetensors=False)
    with pytest.raises(FileNotFoundError, match=r"old\.ckpt is a pickle"):
        PixelsmithXLPipeline.from_single_file("old.ckpt")


def test_a_saved_pipeline_is_one_of_diffusers(folders, tmp_path):
    """By diffusers' own entry points, and by ours."""
    ours = PixelsmithXLPipeline.from_pretrained(folders / "sdxl")
    ours.save_pretrained(tmp_path)
    theirs = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path)
    again = PixelsmithXLPipeline.from_pretrained(tmp_path)
    generic = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(theirs) is type(generic) is diffusers.StableDiffusionXLPipeline
    assert type(again) is PixelsmithXLPipeline
    for pipe in (theirs, again, generic):
        for name, values in ours.unet.state_dict().items():
            assert torch.equal(pipe.unet.state_dict()[name], values)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler"), ("dpm++", "DPMSolverMultistepScheduler"),
     ("DDIMScheduler", "DDIMScheduler")],
)  # fmt: skip
def test_schedulers_by_name(folders, name, kind):
    said = []
    pipe = load_pipeline(
        folders / "sd", device="cpu", loading=LoadingConfig(scheduler=name), announce=said.append
    )
    assert type(pipe.scheduler).__name__ == kind
    assert pipe.scheduler.config.beta_start == 0.00085  # the levels of the model
    assert said == []
    image = Image.new("RGB", (32, 32), "red")
    assert pipe("a", image, num_inference_steps=3, seed=1, scale=1.5).images[0].size == (48, 48)


@pytest.mark.parametrize("name", ["flow-euler", "dpm++"])
def test_schedulers_of_flow_models(folders, name):
    pipe = loaded(folders / "sd3", scheduler=name)
    image = Image.new("RGB", (32, 32), "red")
    made = pipe("a", image, num_inference_steps=3, seed=1, scale=1.5).images[0]
    assert np.asarray(made).std() > 0
    with pytest.raises(ValueError, match="predicts a flow; its scheduler must be flow-euler or dpm"):
        set_scheduler(pipe, "ddim")


def test_a_flow_scheduler_for_another_model(folders):
    with pytest.raises(ValueError, match="predicts no flow; its scheduler must be ddim, euler or dpm"):
        loaded(folders / "sdxl", scheduler="flow-euler")
    with pytest.raises(ValueError, match=r"must be one of ddim, euler, dpm\+\+, flow-euler, got 'lcm'"):
        LoadingConfig(scheduler="lcm")


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("PNDMScheduler", "DDIMScheduler"),
        ("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"),
        ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
        ("HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
        ("LCMScheduler", "LCMScheduler"),
        ("DDIMScheduler", "DDIMScheduler"),
    ],
)
def test_the_nearest_scheduler_takes_the_place_of_one_without_closed_form(kind, taken):
    pipe, said = tiny_pipeline("sd"), []
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    ensure_closed_form(pipe, said.append)
    assert type(pipe.scheduler).__name__ == taken
    assert len(said) == (kind != taken)
    if said:
        assert kind in said[0]
        assert taken in said[0]


def test_sd_15_runs_from_the_command_line(folders, run):
    """Its PNDM scheduler is replaced, once and announced."""
    command = ("generate", "a red ball", "--size", 96, "--num-inference-steps", 2, "-o", "a.png")
    result = run(*command, "--model", folders / "sd")
    said = [line for line in result.stderr.splitlines() if "PNDMScheduler" in line]
    assert len(said) == 1
    assert "DDIMScheduler takes its place (ddim)" in said[0]
    with Image.open("a.png") as image:
        assert image.size == (96, 96)
        assert (
            json.loads(image.text["pixelsmith"])["settings"]["model"]["scheduler"]["class"] == "DDIMScheduler"
        )
    quiet = run(*command, "--model", folders / "sd", "--scheduler", "euler", "--overwrite")
    assert "PNDM" not in quiet.stderr


def test_from_pretrained_announces_the_scheduler(folders, caplog):
    pipe = PixelsmithSDPipeline.from_pretrained(folders / "sd")
    assert isinstance(pipe.scheduler, diffusers.DDIMScheduler)
    assert "PNDMScheduler of this model" in caplog.text


@pytest.fixture
def lora(tmp_path):
    """A LoRA in the public format, saved by the class of diffusers."""
    peft = pytest.importorskip("peft")
    pipe = tiny_pipeline("sdxl")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet.add_adapter(
            peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        )
    layers = peft.get_peft_model_state_dict(pipe.unet)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(tmp_path / "loras", unet_lora_layers=layers)
    return tmp_path / "loras" / "pytorch_lora_weights.safetensors"


def test_loras_with_weights(folders, lora):
    plain = load_model(folders / "sdxl", "x", device="cpu")
    loading = LoadingConfig(lora=(f"{lora}:0.5", str(lora.parent)))
    model = load_model(folders / "sdxl", "x", device="cpu", loading=loading)
    assert sorted(model.describe()["loras"].values()) == [0.5, 1.0]
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values = [each.denoiser((64, 64), (16, 16)).predict(x, 0, [(0, 0)]) for each in (plain, model)]
    assert not torch.allclose(*values, atol=1e-4)


def test_loras_from_the_command_line(folders, lora, run):
    command = ("generate", "x", "--size", 96, "--num-inference-steps", 1, "--model", folders / "sdxl")
    run(*command, "-o", "a.png")
    run(*command, "-o", "b.png", "--lora", f"{lora}:0.7")
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--lora gone.safetensors", "no LoRA 'gone.safetensors': it is neither"),
        ("--lora ./gone/it.safetensors:0.5", "no LoRA './gone/it.safetensors': it is neither"),
        ("--lora nobody/nothing", "nobody/nothing is not a folder here, and the hub does not answer"),
        ("--lora missing.bin", "missing.bin is a pickle"),
        ("--lora cut.safetensors", "cut.safetensors is damaged or cut short"),
        ("--upscaler gone.safetensors", "no upscaler 'gone.safetensors'"),
        ("--controlnet ./gone", "no model './gone': it is not a folder nor a hub id"),
        ("--controlnet ./gone --control-image gone.png", "gone.png does not exist"),
    ],
)
def test_what_is_loaded_beside_a_model_is_looked_at_first(folders, run, monkeypatch, given, said):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("pixelsmith.adapters.load_model", refuse)
    Path("cut.safetensors").write_bytes(b"no header")
    command = ("generate", "x", "--size", 96, "--num-inference-steps", 1, "--model", folders / "sdxl")
    assert said in run(*command, "-o", "c.png", *given.split(), code=2).stderr


def test_loras_and_their_weights():
    assert parse_lora("a/b.safetensors") == ("a/b.safetensors", 1.0)
    assert parse_lora("a/b:-0.5") == ("a/b", -0.5)
    assert parse_lora("C:/models/a") == ("C:/models/a", 1.0)
    for text in ("a:much", ":0.5", "a:nan"):
        with pytest.raises(ValueError, match="PATH or PATH:WEIGHT"):
            parse_lora(text)


@pytest.mark.parametrize("family", ["sdxl", "sd", "sd3"])
def test_an_outline_knows_what_the_model_knows(folders, family):
    model = load_model(folders / family, "x", device="cpu")
    outline = read_outline(folders / family, LoadingConfig())
    for name in ("patch", "patch_multiple", "vae_scale_factor", "num_inference_steps", "channels", "family"):
        assert getattr(outline, name) == getattr(model, name)
    assert outline.solver(256).noise == model.solver(256).noise


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "98x96"], "multiples of 4 pixels, got height 96 and width 98"),
        (["--size", "2000000"], "must be at most 1000000 pixels"),
        (["--slider", "99"], "slider must not exceed the 50 steps, got 99"),
        (["--prompt-3", "x"], "prompt_3 means nothing to StableDiffusionXLPipeline"),
        (["--scheduler", "flow-euler"], "predicts no flow"),
        (["--variant", "fp16"], "has no weights of the variant fp16"),
        (["--base", "90x40"], "base must have the shape of the result"),
        (["--size", "70000x64", "-o", "a.jpg"], "at most 65500 pixels a side"),
        (["--model", "missing"], "no model 'missing'"),
        (["--offload", "half"], "Invalid value"),
    ],
)
def test_mistakes_are_told_before_weights_are_read(folders, run, monkeypatch, options, said):
    monkeypatch.setattr("pixelsmith.adapters.load_model", None)  # not even asked
    model = [] if "--model" in options else ["--model", folders / "sdxl"]
    assert said in run("generate", "x", *model, *options, code=2).stderr
    assert not list(Path().iterdir())


def test_offloading_is_left_to_the_library(folders, monkeypatch):
    with pytest.raises(ValueError, match="offload must be 'none' on the CPU, got 'model'"):
        loaded(folders / "sdxl", offload="model")
    asked = []
    monkeypatch.setattr("pixelsmith.adapters.loading.resolve_device", lambda device: torch.device("cuda:0"))
    for kind in ("model", "sequential"):
        name = f"enable_{kind}_cpu_offload"
        monkeypatch.setattr(
            PixelsmithXLPipeline, name, lambda self, device, kind=kind: asked.append((kind, str(device)))
        )
        loaded(folders / "sdxl", offload=kind)
    assert asked == [("model", "cuda:0"), ("sequential", "cuda:0")]


def test_what_was_pushed_loads_from_the_hub_by_revision(folders, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    kept = cache / "models--owner--sdxl"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def upload_folder(repo_id, folder_path, **named):
        assert repo_id == "owner/sdxl"
        shutil.copytree(folder_path, kept / "snapshots" / "0123456789")

    monkeypatch.setattr(
        "diffusers.utils.hub_utils.create_repo", lambda name, **_: SimpleNamespace(repo_id=name)
    )
    monkeypatch.setattr("diffusers.utils.hub_utils.upload_folder", upload_folder)
    ours = PixelsmithXLPipeline.from_pretrained(folders / "sdxl")
    ours.push_to_hub("owner/sdxl")
    (kept / "refs").mkdir()
    (kept / "refs" / "v2").write_text("0123456789", "utf-8")
    where = {"cache_dir": cache, "local_files_only": True, "token": False}
    again = PixelsmithXLPipeline.from_pretrained("owner/sdxl", revision="v2", **where)
    assert torch.equal(again.unet.conv_in.weight, ours.unet.conv_in.weight)
    with pytest.raises(OSError, match="appropriate cached snapshot folder for the specified revision"):
        PixelsmithXLPipeline.from_pretrained("owner/sdxl", revision="v1", **where)
