# SPDX-License-Identifier: Apache-2.0
"""The commands as a user drives them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from diffeat.cli.app import app
from diffeat.cli.output import one_line
from diffeat.store import FeatureStore, load_features
from typer.testing import CliRunner

NAME = "up-level1-repeat0-vit-block0-cross-q"


def test_names_as_a_table(sd15_folder, run):
    output = run("names", sd15_folder, "up-level1-*-cross-{q,map}").stdout
    assert NAME in output
    assert "16 x 4 x 4" in output
    assert "cross-attention" in output
    assert "6 activations" in output
    assert "..." not in output


def test_names_as_json(sd15_folder, run):
    found = json.loads(run("names", sd15_folder, "--json", "--size", "64x96").stdout)
    assert len(found) == 197
    # the timestep is embedded before the first convolution
    assert 0 < found[0].pop("flop_share") < 1e-3
    assert found[0] == {
        "name": "unet-in",
        "shape": [4, 16, 24],
        "bytes": 4 * 16 * 24 * 2,
        "family": "ends",
        "flags": [],
    }
    assert found[-1]["flop_share"] == 1
    plain = json.loads(run("names", sd15_folder / "unet" / "config.json", "--json", "--no-cost").stdout)
    assert [each["name"] for each in plain] == [each["name"] for each in found]
    assert plain[0]["shape"] is None


def test_names_of_presets_and_of_text(sd15_folder, sdxl_folder, run):
    found = json.loads(run("names", sdxl_folder, "ours-xl", "--json", "--no-cost").stdout)
    assert [each["name"] for each in found][-1] == "up-level1-repeat0-vit-block0-out"
    assert len(found) == 4
    text = json.loads(run("names", sd15_folder, "*-cross-{k,v}", "--text", "--json", "--no-cost").stdout)
    assert len(text) == 32


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["up-level1-repeat0-resout"], "did you mean up-level1-repeat0-res-out"),
        (["up-levle1-*"], "no name holds 'levle1', did you mean level1 or level"),
        (
            ["up-level1-*-nothing*"],
            "activations of this model; list the names with list_activations or 'diffeat",
        ),
        (["up-level9-*"], "the pattern 'up-level9-*' matches none of the 197 activations"),
        (["--size", "big"], "--size takes a side or HEIGHTxWIDTH in pixels, got 'big'"),
        (["--size", "63"], "size must be a positive multiple of 4 pixels both ways, got 63x63"),
        (["Ours-XL-t"], "spans SDXL, SD1.5, Playground v2; take the names of one with part(model), or name"),
    ],
)
def test_bad_names(sd15_folder, args, message, complain):
    assert message in complain("names", sd15_folder, *args)


def test_a_folder_without_a_model(here, complain):
    message = complain("names", here)
    assert "a folder must hold config.json, unet/config.json or transformer/config.json" in message


def test_extract_to_a_store_and_again(here, sd15_folder, run):
    args = [
        "extract",
        sd15_folder,
        "photos",
        "-n",
        NAME,
        "-o",
        "store",
        "--prompt",
        "a cat",
        "--device",
        "cpu",
    ]
    first = run(*args, "--json")
    report = json.loads(first.stdout)
    assert report["names"] == [NAME]
    assert (report["images"], report["computed"], report["cached"]) == (2, 2, 0)
    assert "2 images computed, 0 there before" in first.stderr
    again = json.loads(run(*args, "--json", "-r").stdout)
    assert (again["images"], again["computed"], again["cached"]) == (3, 1, 2)
    assert FeatureStore(str(here / "store")).read(NAME).shape == (3, 16, 4, 4)


def test_extract_to_a_file(here, sd15_folder, run, complain):
    args = ["extract", sd15_folder, "photos/0.png", "photos/1.png", "-n", "mid-vit-block0-cross-map"]
    args += [
        "--preset",
        "DIFT",
        "-t",
        50,
        "-t",
        261,
        "--size",
        "64x96",
        "--heads",
        "mean",
        "--tokens",
        "1,-1",
    ]
    args += ["--store-dtype", "float32", "-o", "out.safetensors"]
    report = json.loads(run(*args, "--json").stdout)
    assert report["names"] == [
        f"{name}@{t}" for t in (50, 261) for name in ("mid-vit-block0-cross-map", "up-level1-upsampler-out")
    ]
    found = load_features(str(here / "out.safetensors"))
    assert found["mid-vit-block0-cross-map@50"].shape == (2, 1, 2, 3, 2)
    assert found["up-level1-upsampler-out@261"].dtype == torch.float32
    assert "out.safetensors exists: give another name, or --overwrite" in complain(*args)
    run(*args, "--overwrite")


def test_broken_images_are_named_and_passed_over(here, sd15_folder, run):
    (here / "photos" / "cut.png").write_bytes((here / "photos" / "0.png").read_bytes()[:900])
    (here / "photos" / "text.png").write_text("no picture")
    args = ["extract", sd15_folder, "photos", "-n", NAME, "-o", "store", "--device", "cpu"]
    result = run(*args, "--json", code=1)
    report = json.loads(result.stdout)
    assert (report["images"], report["computed"]) == (4, 2)
    assert set(report["failed"]) == {"cut.png", "text.png"}
    assert "cut.png was passed over" in result.stderr
    assert "is damaged or cut short" in result.stderr
    assert "is not an image that can be read" in result.stderr
    assert len(FeatureStore(str(here / "store"))) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["photos"], "--names or --preset must ask for something"),
        (["photos", "-n", "up-level1-repeat0-resout"], "did you mean up-level1-repeat0-res-out"),
        (["photos", "-p", "best"], "presets are Legacy-v1.5"),
        (["nothing", "-n", NAME], "nothing: there is no such file or folder"),
        (["empty", "-n", NAME], "empty holds no images; --recursive looks into the folders below"),
        (["text.png", "-n", NAME], "text.png is not an image that can be read"),
        (["photos", "-n", NAME, "-t", 2000], "t must lie between 0 and the 1000 training steps"),
        (["photos", "-n", NAME, "--size", 63], "size must be a positive multiple of 4 pixels"),
        (["photos", "-n", NAME, "--heads", "some"], "--heads takes numbers between commas, got 'some'"),
        (["photos", "-n", "mid-vit-block0-cross-map", "--heads", "9"], "heads of a map must lie below the"),
    ],
)
def test_bad_extractions(here, sd15_folder, args, message, complain):
    (here / "empty").mkdir()
    (here / "text.png").write_text("no picture")
    line = complain("extract", sd15_folder, *args, "-o", "out.safetensors", "--device", "cpu")
    assert message in line
    assert not (here / "out.safetensors").exists()


def test_extraction_from_what_is_no_pipeline(here, sd15_folder, complain):
    line = complain("extract", sd15_folder / "unet", "photos", "-n", NAME, "-o", "out")
    assert "is no diffusers pipeline: it has no model_index.json" in line


def test_presets(run):
    assert "up-level0-repeat0-vit-block7-out" in run("presets").stdout
    found = json.loads(run("presets", "--json").stdout)
    assert sum(part["channels"] for part in found["Ours-XL-t"]) == 8154


COMMANDS = ["demo", "names", "extract", "rank", "properties", "view", "match", "segment", "pck", "presets"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_every_option(command, run):
    output = run(command, "--help").stdout
    assert "Usage:" in output
    assert command in {"presets", "demo"} or f"diffeat {command}" in output


def test_version_and_no_command(run):
    assert run("--version").stdout.startswith("diffeat 0.")
    assert "extract" in CliRunner().invoke(app, []).output


def test_help_does_not_wait_for_torch(run):
    """The commands import heavy libraries only once they work."""
    heavy = ["torch", "diffusers", "transformers", "zarr", "sklearn", "scipy", "torchmetrics", "matplotlib"]
    probe = f"import sys, diffeat.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_errors_on_one_line():
    assert one_line(KeyError("two\nlines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"


def test_a_size_that_does_not_fit_does_not_spoil_the_store(here, sd15_folder, run, complain):
    args = ["extract", sd15_folder, "photos", "-n", NAME, "-o", "store", "--device", "cpu"]
    assert "size must be a positive multiple of" in complain(*args, "--size", 63)
    assert "2 images computed" in run(*args, "--size", 32).stderr


def test_a_store_that_was_only_begun_says_so(here, sd15_folder, complain):
    args = [
        "extract",
        sd15_folder,
        "photos",
        "-n",
        "mid-vit-block0-cross-map",
        "-o",
        "store",
        "--device",
        "cpu",
    ]
    assert "tokens of a map must lie below" in complain(*args, "--tokens", 9999)
    message = complain(*args, "--tokens", 1)
    assert "store is empty but was begun with tokens (9999,), got (1,); delete the folder or take" in message


def test_a_file_goes_to_a_new_folder(here, sd15_folder, run):
    args = ["extract", sd15_folder, "photos/0.png", "-n", NAME, "--size", 32, "--device", "cpu"]
    assert "1 image, 1 activation in new/one.safetensors" in run(*args, "-o", "new/one.safetensors").stderr
    assert (here / "new" / "one.safetensors").is_file()


def test_a_model_that_is_nowhere(here, complain, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = complain("extract", "nobody/nothing", "photos", "-n", NAME, "-o", "store")
    assert "'nobody/nothing' is neither a folder nor a pipeline on the hub" in message


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("toaster", "--device takes auto, cpu, cuda, mps or one of several such as cuda:1, got 'toaster'"),
        ("cuda:x", "such as cuda:1, got 'cuda:x'"),
        ("cuda:99", "--device cuda:99 is not on this machine; auto takes the best that is"),
    ],
)
def test_a_device_that_is_not_there(here, sd15_folder, complain, device, message):
    assert message in complain(
        "extract", sd15_folder, "photos", "-n", NAME, "-o", "store", "--device", device
    )
