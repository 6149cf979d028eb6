# SPDX-License-Identifier: Apache-2.0
"""Listings of published architectures, from configs alone."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffeat import Activation, ActivationName, list_activations
from diffeat.names import matching
from diffeat.names.listing import measured, taps_of
from diffeat.names.sources import blueprint
from diffusers import UNet2DConditionModel, UNet2DModel

CONFIGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "configs.json").read_text())


EXECUTED = ["SD1.5", "SDXL", "Hunyuan", "SD3.5-medium", "Flux", "Flux2", "Wan"]
EXECUTED += ["Sana", "Lumina2", "Z-Image", "HunyuanVideo", "CogVideoX"]


@cache
def names_of(model: str) -> list[Activation]:
    return list_activations(CONFIGS[model], size=None)


@cache
def costs_of(model: str) -> dict[str, Activation]:
    return {str(a.name): a for a in list_activations(CONFIGS[model])}


@pytest.mark.parametrize(
    ("model", "with_maps", "without"),
    [
        ("SD1.5", 197, 165),
        ("SD2.1", 197, 165),
        ("SDXL", 612, 472),
        ("PixArt", 224, 168),
        ("Hunyuan", 280, 200),
        ("Flux", 437, 323),
    ],
)
def test_counts_of_the_paper(model: str, with_maps: int, without: int) -> None:
    found = [a.name for a in names_of(model) if "ours" not in a.flags]
    assert len(found) == len(set(found)) == with_maps
    assert sum(not name.is_map for name in found) == without


@pytest.mark.parametrize(
    ("model", "count"),
    # 24 and 13 dual blocks; 8 double and 48 single; 60; 40 of self- and cross-attention; 20 with linear
    # self-attention; 2 of the image alone and 26 or 30 shared; 20 double and 40 single; 30 shared; 48 double
    [
        ("SD3", 24 * 9),
        ("SD3.5-medium", 24 * 9 + 13 * 5),
        ("Flux2", 8 * 9 + 48 * 8),
        ("Qwen-Image", 60 * 9),
        ("Wan", 40 * 8),
        ("Sana", 20 * 7),
        ("Lumina2", 2 * 7 + 26 * 8),
        ("Z-Image", 2 * 7 + 30 * 8),
        ("HunyuanVideo", 20 * 9 + 40 * 8),
        ("CogVideoX", 30 * 8),
        ("Mochi", 48 * 9),
    ],
)
def test_counts_beyond_the_paper(model: str, count: int) -> None:
    found = names_of(model)
    assert len({a.name for a in found}) == len(found) == count
    assert all("ours" in a.flags for a in found)


@pytest.mark.parametrize("model", ["SD1.5", "SDXL", "PixArt", "Hunyuan", "SD3.5-medium", "Qwen-Image", "Wan"])
def test_names_sort_into_listing_order(model: str) -> None:
    names = [a.name for a in names_of(model)]
    assert sorted(names) == names


@pytest.mark.parametrize("model", EXECUTED)
def test_listing_order_is_execution_order(model: str) -> None:
    config = CONFIGS[model]
    if model not in {"SD1.5", "SDXL"}:  # two of each block tell the order
        config = {**config, "num_layers": 2, "num_single_layers": 2, "n_layers": 2}
        config["dual_attention_layers"] = config.get("dual_attention_layers", [])[:2]
    plan = blueprint(config)
    found, _ = measured(plan, taps_of(plan.model), 512)
    assert list(found) == [tap.name for tap in taps_of(plan.model)]


def test_text_side_is_shown_on_request() -> None:
    every = list_activations(CONFIGS["SD1.5"], with_text=True, glob="mid-vit-block0-cross-*")
    assert [(str(a.name), a.shape) for a in every] == [
        ("mid-vit-block0-cross-q", (1280, 8, 8)),
        ("mid-vit-block0-cross-k", (77, 1280)),
        ("mid-vit-block0-cross-v", (77, 1280)),
        ("mid-vit-block0-cross-map", (8, 8, 8, 77)),
    ]
    assert not any(a.name.is_text for a in names_of("SD1.5"))


@pytest.mark.parametrize(
    ("model", "name", "shape"),
    [
        ("SD1.5", "unet-in", (4, 64, 64)),
        ("SD1.5", "up-level1-repeat1-vit-block0-cross-q", (1280, 16, 16)),
        ("SD1.5", "down-level0-repeat0-vit-block0-self-map", (8, 64, 64, 4096)),
        ("SD1.5", "up-level2-upsampler-out", (640, 64, 64)),
        ("SDXL", "up-level0-upsampler-out", (1280, 64, 64)),
        ("SDXL", "up-level1-upsampler-out", (640, 128, 128)),
        ("SDXL", "mid-vit-block9-ffn-inner", (5120, 32, 32)),
        ("SDXL", "up-level1-repeat0-vit-block1-cross-map", (10, 64, 64, 77)),
    ],
)
def test_shapes(model: str, name: str, shape: tuple[int, ...]) -> None:
    assert costs_of(model)[name].shape == shape


@pytest.mark.parametrize(
    ("model", "name", "share"),
    [
        ("SD1.5", "mid-repeat1-res-out", 0.33),
        ("SD1.5", "up-level1-repeat1-vit-block0-cross-q", 0.45),
        ("SD1.5", "up-level1-repeat2-res-out", 0.49),
        ("SD1.5", "up-level1-upsampler-out", 0.55),
        ("SD1.5", "up-level2-repeat1-vit-block0-cross-q", 0.65),
        ("SD1.5", "up-level2-upsampler-out", 0.75),
        ("SD1.5", "up-level3-repeat0-vit-block0-self-k", 0.80),
        ("SDXL", "mid-repeat1-res-out", 0.43),
        ("SDXL", "up-level0-repeat0-vit-block3-out", 0.49),
        ("SDXL", "up-level0-repeat0-vit-block7-out", 0.53),
        ("SDXL", "up-level0-upsampler-out", 0.79),
        ("SDXL", "up-level1-repeat0-vit-block0-cross-q", 0.82),
        ("SDXL", "up-level1-upsampler-out", 0.95),
        ("SDXL", "up-level2-repeat2-res-out", 1.00),
    ],
)
def test_flop_shares(model: str, name: str, share: float) -> None:
    assert costs_of(model)[name].flop_share == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize(("model", "all_mib", "no_maps_mib"), [("SD1.5", 1675, 278), ("SDXL", 7910, 2069)])
def test_bytes(model: str, all_mib: int, no_maps_mib: int) -> None:
    costs = costs_of(model).values()
    assert round(sum(a.bytes or 0 for a in costs) / 2**20) == all_mib
    assert round(sum(a.bytes or 0 for a in costs if not a.name.is_map) / 2**20) == no_maps_mib


@pytest.mark.parametrize(("model", "gflop"), [("SD1.5", 803), ("SDXL", 6761)])
def test_total_work(model: str, gflop: int) -> None:
    plan = blueprint(CONFIGS[model])
    # counted in multiplications and additions; the published totals count one for both
    assert measured(plan, [], "native")[1] / 1e9 in (
        pytest.approx(gflop, rel=0.01),
        pytest.approx(2 * gflop, rel=0.01),
    )


def test_shares_never_fall() -> None:
    shares = [a.flop_share or 0 for a in costs_of("SDXL").values()]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_size_and_dtype_scale_the_cost() -> None:
    wide = list_activations(CONFIGS["SD1.5"], size=(256, 512), glob="unet-in", bytes_per_value=4)
    assert wide[0].shape == (4, 32, 64)
    assert wide[0].bytes == 4 * 32 * 64 * 4


def test_model_and_folder_and_config_agree(tmp_path: Path) -> None:
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        layers_per_block=1,
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "unet")
    lists = [list_activations(source) for source in (model, dict(model.config), tmp_path, tmp_path / "unet")]
    # a folder without an autoencoder works on pixels, which changes nothing at the model's own size
    assert lists[0] == lists[1] == lists[2] == lists[3]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_unconditional_unet_has_attention_names() -> None:
    model = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=4,
    )
    shapes = {str(a.name): a.shape for a in list_activations(model)}
    assert shapes["down-level1-repeat0-vit-block0-self-q"] == (16, 8, 8)
    assert shapes["down-level1-repeat0-vit-block0-self-map"] == (4, 8, 8, 64)
    assert shapes["mid-vit-out"] == (16, 8, 8)


def test_flags() -> None:
    flags = {str(a.name): a.flags for a in names_of("SD1.5")}
    assert flags["down-level0-repeat0-vit-block0-self-q"] == {"noisy", "local"}
    assert flags["up-level1-repeat0-res-increment"] == {"high-frequency"}
    assert flags["up-level1-repeat0-vit-block0-cross-map"] == {"map"}


def test_globs_and_errors() -> None:
    names = [a.name for a in names_of("SD1.5")]
    assert len(matching(names, "*-self-q")) == 16
    assert len(matching(names, "*-self-{q,k}")) == 32
    assert matching(names, ["unet-out", "unet-in"]) == [
        ActivationName("unet", "in"),
        ActivationName("unet", "out"),
    ]
    with pytest.raises(LookupError, match="did you mean up-level1-repeat0-res-out"):
        matching(names, "up-level1-repeat0-resout")
    with pytest.raises(LookupError, match="is ambiguous: it is part of 22 names"):
        matching(names, "level1-repeat0")
    with pytest.raises(LookupError, match="matches none of the 197"):
        matching(names, "up-level9-*")


def test_bad_sources_and_sizes() -> None:
    with pytest.raises(ValueError, match="must name a diffusers model, got 'Nothing'"):
        list_activations({"_class_name": "Nothing"})
    with pytest.raises(TypeError, match="a unet or a transformer is needed, got int"):
        list_activations(3)
    with pytest.raises(ValueError, match="multiple of 8 pixels"):
        list_activations(CONFIGS["SD1.5"], size=100)
    with pytest.raises(ValueError, match="'native' or None, got 'large'"):
        list_activations(CONFIGS["SD1.5"], size="large")
