# SPDX-License-Identifier: Apache-2.0
"""The commands as a user drives them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sys
import zlib

import pytest
import torch
from common_kernels.runtime.cli import run_app, stderr
from diffeat.cli import app
from diffeat.store import FeatureStore, load_features

NAME = "up-level1-repeat0-vit-block0-cross-q"
MAP = "mid-vit-block0-cross-map"


@pytest.fixture
def model(sd15_folder):
    return ["--model", sd15_folder, "--device", "cpu"]


def statuses(rows):
    return [row["status"] for row in rows]


def test_names_as_a_table(sd15_folder, run):
    output = run("names", "up-level1-*-cross-{q,map}", "--model", sd15_folder).stdout
    assert NAME in output
    assert "16 x 4 x 4" in output
    assert "cross-attention" in output
    assert "6 activations" in output
    assert "..." not in output


def test_names_as_json(sd15_folder, rows):
    found = rows("names", "--model", sd15_folder, "--size", "64x96")
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
    plain = rows("names", "--model", sd15_folder / "unet" / "config.json", "--no-cost")
    assert [each["name"] for each in plain] == [each["name"] for each in found]
    assert plain[0]["shape"] is None


def test_names_of_presets_and_of_text(sd15_folder, sdxl_folder, rows):
    found = rows("names", "ours-xl", "--model", sdxl_folder, "--no-cost")
    assert [each["name"] for each in found][-1] == "up-level1-repeat0-vit-block0-out"
    assert len(found) == 4
    assert len(rows("names", "*-cross-{k,v}", "--model", sd15_folder, "--text", "--no-cost")) == 32


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
        (["Ours-XL-t"], "spans SDXL, SD1.5, Playground v2, and a run has one model"),
    ],
)
def test_bad_names(sd15_folder, args, message, complain):
    said = complain("names", *args, "--model", sd15_folder)
    assert message in said
    assert "--debug" not in said


def test_a_folder_without_a_model(here, complain):
    message = complain("names", "--model", here)
    assert "a folder must hold config.json, unet/config.json or transformer/config.json" in message


def test_extract_to_a_store_and_again(here, model, run, rows):
    args = ["extract", "photos", "-n", NAME, "-o", "store", "--prompt", "a cat", *model]
    assert "2 images computed, 0 cached" in run(*args).stderr
    again = rows(*args, "-r")
    assert statuses(again) == ["skipped", "skipped", "done"]
    assert [row["input"] for row in again] == ["photos/0.png", "photos/1.png", "photos/inner/2.png"]
    assert FeatureStore("store").read(NAME).shape == (3, 16, 4, 4)


def test_other_settings_go_to_a_store_inside(here, model, rows):
    args = ["extract", "photos", "-n", NAME, "-o", "store", *model]
    (first, _), (other, _) = rows(*args), rows(*args, "--seed", 1)
    assert (first["output"], other["status"]) == ("store", "done")
    assert other["output"].startswith("store/")
    assert FeatureStore(other["output"]).settings.options.seed == 1
    assert statuses(rows(*args, "--seed", 1) + rows(*args)) == ["skipped"] * 4
    assert statuses(rows(*args, "--overwrite")) == ["done"] * 2
    assert FeatureStore("store").settings.options.seed == 0
    assert len(FeatureStore(other["output"])) == 2


def test_extract_to_a_file(here, model, rows, complain):
    args = ["extract", "photos/0.png", "photos/1.png", "-n", MAP, "--preset", "DIFT", "-t", 50, "-t", 261]
    args += ["--size", "64x96", "--heads", "mean", "--tokens", 1, "--tokens", -1, *model]
    args += ["--store-dtype", "float32", "-o", "new/out.safetensors"]
    assert statuses(rows(*args)) == ["done", "done"]
    found = load_features("new/out.safetensors")
    names = (MAP, "up-level1-upsampler-out")
    assert list(found) == [f"{name}@{timestep}" for timestep in (50, 261) for name in names]
    assert found[f"{MAP}@50"].shape == (2, 1, 2, 3, 2)
    assert found["up-level1-upsampler-out@261"].dtype == torch.float32
    assert statuses(rows(*args)) == ["skipped", "skipped"]
    assert statuses(rows(*args, "--overwrite")) == ["done", "done"]
    assert statuses(rows(*args, "--seed", 1)) == ["done", "done"]
    (here / "new" / "out.safetensors").write_bytes(b"something else")
    assert "out.safetensors is not a file of features written by diffeat" in complain(*args)


@pytest.mark.parametrize("output", ["store", "out.safetensors"])
def test_bad_images_are_named_and_left_out(here, model, rows, output):
    (here / "photos" / "cut.png").write_bytes((here / "photos" / "0.png").read_bytes()[:900])
    (here / "photos" / "text.png").write_text("no image")
    found = rows("extract", "photos", "none.png", "-n", NAME, "-o", output, *model, code=1)
    failed = {row["input"]: row["error"] for row in found if row["status"] == "failed"}
    assert sorted(failed) == ["none.png", "photos/cut.png", "photos/text.png"]
    assert "is damaged or cut short" in failed["photos/cut.png"]
    assert "is not an image that can be read" in failed["photos/text.png"]
    assert statuses(found).count("done") == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["photos"], "--names or --preset must name activations"),
        (["photos", "-n", "up-level1-repeat0-resout"], "did you mean up-level1-repeat0-res-out"),
        (["photos", "-p", "best"], "presets are Legacy-v1.5"),
        (["empty", "-n", NAME], "no image found in empty"),
        (["photos", "-n", NAME, "-t", 2000], "timestep must lie between 0 and the 1000 training steps"),
        (["photos", "-n", NAME, "--size", 63], "size must be a positive multiple of 4 pixels"),
        (["photos", "-n", NAME, "--heads", "some"], "--heads"),
        (["photos", "-n", NAME, "--batch-size", 0], "--batch-size must be at least 1, got 0"),
        (["photos", "-n", MAP, "--heads", "9"], "heads of a map must lie below the"),
    ],
)
def test_bad_extractions(here, model, args, message, complain):
    (here / "empty").mkdir()
    assert message in complain("extract", *args, "-o", "out.safetensors", *model)
    assert not (here / "out.safetensors").exists()


def test_extraction_from_what_is_no_pipeline(here, sd15_folder, complain):
    line = complain("extract", "photos", "--model", sd15_folder / "unet", "-n", NAME, "-o", "out")
    assert "has no model_index.json" in line


def test_presets(run, rows):
    assert "up-level0-repeat0-vit-block7-out" in run("presets").stdout
    found = {row["preset"]: row["parts"] for row in rows("presets")}
    assert sum(part["channels"] for part in found["Ours-XL-t"]) == 8154


def test_help_names_what_it_explains(run):
    assert "path/to/pipeline" in run("--help").stdout
    page = " ".join(run("extract", "--help").stdout.split())
    assert "--timestep -t" in page
    assert "SIDE|HxW" in page
    assert "--preset Ours-XL" in page


def test_a_size_that_does_not_fit_does_not_spoil_the_store(here, model, run, complain):
    args = ["extract", "photos", "-n", NAME, "-o", "store", *model]
    assert "size must be a positive multiple of" in complain(*args, "--size", 63)
    assert "2 images computed" in run(*args, "--size", 32).stderr


def test_a_store_that_was_only_begun_is_begun_again(here, model, rows, complain):
    args = ["extract", "photos", "-n", MAP, "-o", "store", *model]
    assert "tokens of a map must lie below" in complain(*args, "--tokens", 9999)
    assert {(row["status"], row["output"]) for row in rows(*args, "--tokens", 1)} == {("done", "store")}


@pytest.mark.parametrize("device", ["toaster", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there(here, model, complain, device):
    assert device in complain("extract", "photos", "-n", NAME, "-o", "store", *model[:2], "--device", device)


def test_failures_in_folders_are_told_apart_by_their_path(here, model, rows, run):
    for folder in ("a", "b"):
        (here / "photos" / folder).mkdir()
        (here / "photos" / folder / "x.png").write_text(f"no image {folder}")
    args = ["extract", "photos", "-r", "-n", NAME, "-o", "store", *model]
    found = {row["input"]: row["status"] for row in rows(*args, code=1)}
    assert found["photos/a/x.png"] == found["photos/b/x.png"] == "failed"
    assert list(found.values()).count("done") == 3
    result = run(*args, code=1)
    assert all(f"photos/{folder}/x.png is not an image" in result.stderr for folder in ("a", "b"))
    assert "0 images computed, 3 cached, 2 failed" in result.stderr


def test_a_folder_of_bad_images_leaves_no_store(here, model, run):
    for number in (0, 1):
        (here / "photos" / f"{number}.png").write_text("no image")
    result = run("extract", "photos", "-n", NAME, "-o", "store", *model, code=1)
    assert "nothing is written" in result.stderr
    assert not (here / "store").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["photos", "-o", "photos"], "photos holds the images: give another folder, such as photos/features"),
        (["photos/0.png", "-o", "photos/0.png"], "photos/0.png is one of the images"),
        (["photos", "-o", "photos/new.jpg"], "must be the folder of a store or a .safetensors file"),
        (["photos", "-o", "note"], "note must be the folder of a store or a .safetensors file"),
        (["photos", "-o", "a.safetensors", "--pool", "mean"], "--pool, --pca and --quantize need the folder"),
        (["photos", "-o", "s", "-t", 50, "-t", 50], "--timestep 50 is given more than once"),
        (["photos", "-o", "s", "--pool", 0], "pool must be 'mean', 'max' or a number of cells"),
    ],
)
def test_outputs_and_options_that_do_not_fit(here, model, args, message, complain):
    (here / "note").write_text("text")
    assert message in complain("extract", *args, "-n", NAME, *model)
    assert not (here / "s").exists()


def test_pixel_bombs_are_left_out(here, model, rows):
    head = b"IHDR" + (100_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (head, b"IDAT" + zlib.compress(bytes(100)), b"IEND"):
        data += (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    (here / "photos" / "0.png").write_bytes(data)
    found = rows("extract", "photos", "-n", NAME, "-o", "store", *model, code=1)
    assert statuses(found) == ["failed", "done"]
    assert "photos/0.png" in found[0]["error"]
    assert "pixels" in found[0]["error"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("model_index.json", "{", "model_index.json cannot be read"),
        ("model_index.json", "{}", 'model_index.json names no pipeline: it has no "_class_name"'),
        ("unet/config.json", "{", "unet/config.json cannot be read"),
        ("unet/config.json", "[]", "unet/config.json must hold a JSON object"),
    ],
)
def test_a_damaged_model_is_named(here, sd15_folder, file, text, message, complain):
    shutil.copytree(sd15_folder, here / "broken")
    (here / "broken" / file).write_text(text)
    line = complain("extract", "photos", "-n", NAME, "-o", "store", "--model", "broken", "--device", "cpu")
    assert message in line
    if file.startswith("unet"):
        assert message in complain("names", "--model", "broken")


def test_a_config_without_its_class_is_named(here, complain):
    (here / "config.json").write_text("{}")
    line = complain("names", "--model", "config.json")
    assert 'config.json names no diffusers model: it has no "_class_name"' in line


def test_reduced_features_and_search(here, model, rows, run, complain):
    args = ["extract", "photos", "-r", "-n", NAME, "-n", "mid-vit-out", "-o", "store", *model]
    assert statuses(rows(*args, "--pool", "mean", "--quantize")) == ["done"] * 3
    assert FeatureStore("store").shape(NAME) == (16, 1, 1)
    found = rows("search", "store", "photos/1.png", "--top", 2)
    assert (found[0]["input"], len(found[0]["found"])) == ("photos/1.png", 2)
    first = found[0]["found"][0]
    assert (first["image"], first["row"]) == ("photos/1.png", 1)
    assert first["similarity"] >= 0.99
    assert "1 image searched for among 3" in run("search", "store", "photos/0.png", "--exact").stderr
    assert "there is no store at nowhere" in complain("search", "nowhere", "photos/0.png")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_several_processes_print_one_report(here, sd15_folder):
    """The processes of ``accelerate launch``, forked here so that they load nothing anew."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        with open(f"out{rank}", "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.stdout = sys.stderr = out
            stderr.file = out
            args = ["extract", "photos", "-r", "-n", NAME, "-o", "store", "--batch-size", "1"]
            code = run_app(app, [*args, "--model", str(sd15_folder), "--device", "cpu"])
        os._exit(code)

    processes = [context.Process(target=work, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, [(here / f"out{rank}").read_text() for rank in (0, 1)]
    texts = [(here / f"out{rank}").read_text() for rank in (0, 1)]
    assert [text.count("computed") for text in texts] == [1, 0]
    assert "3 images computed, 0 cached" in texts[0]
    store = FeatureStore("store")
    assert [item.source for item in store.items()] == ["photos/0.png", "photos/1.png", "photos/inner/2.png"]
