# SPDX-License-Identifier: Apache-2.0
"""A whole model in one file, in the layout in which Stable Diffusion 1 was published."""

import re

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from pixelsmith.adapters import load_pipeline
from pixelsmith.cli import app
from pixelsmith.config import LoadingConfig
from pixelsmith.pipelines import PixelsmithSDPipeline
from safetensors.torch import save_file
from tiny_models import tiny_pipeline

RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip
ENDS = (
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)  # fmt: skip
VAE = (
    ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"), ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
    ("to_out.0", "proj_out"), (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
)  # fmt: skip


def unet_name(name):
    """Return the published name of a weight of the tiny U-Net: two levels, one layer each."""
    down = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    if down:
        side, block, kind, layer, rest = down.groups()
        block, layer = int(block), int(layer)
        if side == "down":
            at = 1 + 2 * block + (1 if kind == "downsamplers" else layer)
            start = f"input_blocks.{at}.{1 if kind == 'attentions' else 0}"
            rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        else:
            at = 2 * block + (1 if kind == "upsamplers" else layer)
            place = {"resnets": 0, "attentions": 1}.get(kind, 2 if block == 0 else 1)
            start = f"output_blocks.{at}.{place}"
        name = f"{start}.{rest}"
    for ours, theirs in ENDS:
        if name.startswith(f"{ours}."):
            name = name.replace(ours, theirs, 1)
    if "attn" not in name and "transformer" not in name:
        for ours, theirs in RESNET:
            name = re.sub(rf"(put_blocks\.\d\.0|middle_block\.[02])\.{ours}\.", rf"\1.{theirs}.", name)
    return f"model.diffusion_model.{name}"


def vae_name(name):
    above = re.match(r"decoder\.up_blocks\.(\d)\.(resnets|upsamplers)\.(\d)\.(.*)", name)
    if above:
        level, kind, layer, rest = above.groups()
        place = "upsample" if kind == "upsamplers" else f"block.{layer}"
        name = f"decoder.up.{2 - int(level)}.{place}.{rest}"  # of three levels
    for ours, theirs in VAE:
        name = re.sub(rf"(?<![\w]){ours}(?=\.)", theirs, name)
    return f"first_stage_model.{name}"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A pipeline, and its weights as one file."""
    pipe = tiny_pipeline("sd")
    weights = {unet_name(name): values for name, values in pipe.unet.state_dict().items()}
    weights |= {vae_name(name): values for name, values in pipe.vae.state_dict().items()}
    for name, values in pipe.text_encoder.state_dict().items():
        # the newest transformers leave the first word out
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = values
    place = tmp_path_factory.mktemp("published")
    save_file({name: values.contiguous() for name, values in weights.items()}, place / "model.safetensors")
    pipe.save_pretrained(place / "config")
    for file in (place / "config").rglob("*.safetensors"):
        file.unlink()  # configurations only
    return pipe, place / "model.safetensors", place / "config"


def entries(file, config):
    return [
        PixelsmithSDPipeline.from_single_file(file, config=str(config), local_files_only=True),
        load_pipeline(file, device="cpu", loading=LoadingConfig(config=str(config))),
    ]


def test_a_file_holds_the_model(published):
    pipe, file, config = published
    for found in entries(file, config):
        assert type(found) is PixelsmithSDPipeline
        for part in ("unet", "vae", "text_encoder"):
            expected, held = getattr(pipe, part).state_dict(), getattr(found, part).state_dict()
            assert set(held) == set(expected)
            assert all(torch.equal(held[name], expected[name]) for name in expected)


def test_a_file_runs_from_the_command_line(published, tmp_path, monkeypatch):
    _, file, config = published
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    command = ["generate", "x", "--num-inference-steps", "1", "--size", "96", "--model", str(file)]
    assert run_app(app, [*command, "--config", str(config), "-o", "a.png"]) == 0
    assert np.asarray(Image.open("a.png")).shape == (96, 96, 3)
