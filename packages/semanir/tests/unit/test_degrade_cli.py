# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.images import ImageFile, read_image, write_image
from semanir.cli import app
from semanir.cli.degrade import app as degrade_app
from semanir.degradations import GaussianNoise
from semanir.degradations.files import degrade_image, generator_of


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        capfd.readouterr()
        found = run_app(app, ["degrade", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert found == code, out + err
        return SimpleNamespace(out=out, err=err)

    return call


def save(name, *shape, dtype=np.uint8):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(name))).random(shape)
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    write_image((pixels * full).astype(dtype), name)
    return read_image(name).pixels


@pytest.mark.parametrize("name", [name for name in degrade_app if not name.startswith("-")])
def test_every_degradation_makes_files(run, name):
    before = save("in/a.png", 24, 20, 3)
    run(name, "in", "-o", "out")
    after = read_image("out/a.png").pixels
    assert after.dtype == np.uint8
    assert after.shape == ((12, 10, 3) if name == "downscale" else before.shape)
    assert not np.array_equal(after, before)


def test_depth_and_transparency_stay(run):
    deep = save("in/deep.png", 16, 18, 4, dtype=np.uint16)
    grey = save("in/grey.png", 16, 18, 2)
    run("noise", "in", "-o", "out")
    run("downscale", "in", "-o", "small")
    for name, before in {"deep.png": deep, "grey.png": grey}.items():
        after, small = read_image(f"out/{name}").pixels, read_image(f"small/{name}").pixels
        assert after.dtype == small.dtype == before.dtype
        assert np.array_equal(after[..., -1], before[..., -1])
        assert not np.array_equal(after[..., 0], before[..., 0])
        assert small.shape == (8, 9, before.shape[2])


def test_unclipped_files_hold_the_noise_as_it_is(run):
    write_image(np.full((60, 60, 3), 255, np.uint8), "white.png")
    run("noise", "white.png", "-o", "white.tif", "--unclipped", "--sigma", 20)
    noisy = read_image("white.tif").pixels
    assert noisy.dtype == np.float32
    assert (noisy > 1).mean() == pytest.approx(0.5, abs=0.02)
    assert noisy.std() * 255 == pytest.approx(20, rel=0.03)
    assert "needs a .tif" in run("noise", "white.png", "-o", "b.png", "--unclipped", code=2).err


def test_a_file_gives_one_result_whatever_is_beside_it(run):
    save("in/a.png", 12, 12, 3)
    save("in/another.png", 12, 12, 3)
    run("noise", "in", "-o", "both")
    run("noise", "in/a.png", "-o", "alone.png")
    run("noise", "in/a.png", "-o", "other.png", "--seed", 1)
    both, alone, other = (read_image(name).pixels for name in ("both/a.png", "alone.png", "other.png"))
    assert np.array_equal(both, alone)
    assert not np.array_equal(alone, other)


def test_a_batch_goes_on_past_what_cannot_be_done(run):
    save("in/grey.png", 12, 12)
    save("in/colour.png", 12, 12, 3)
    Path("in/text.png").write_text("no image")
    shown = run("mosaic", "in", "-o", "out", "--json", code=1)
    results = {Path(each["input"]).name: each for each in map(json.loads, shown.out.splitlines())}
    assert {name: each["status"] for name, each in results.items()} == {
        "grey.png": "failed",
        "colour.png": "done",
        "text.png": "failed",
    }
    assert "must be in colour, (B, 3, H, W)" in results["grey.png"]["error"]
    again = run("mosaic", "in/colour.png", "-o", "out", "--json")
    assert json.loads(again.out)["status"] == "skipped"


@pytest.mark.parametrize(
    "arguments",
    [
        ("noise", "a.png", "-o", "b.png", "--sigma", "-3"),
        ("noise", "a.png", "-o", "b.png", "--seed", "-3"),
        ("jpeg", "a.png", "-o", "b.png", "--quality", "30", "--quality-max", "20"),
        ("downscale", "a.png", "-o", "b.png", "--scale", "7"),
        ("noise", "a.png", "-o", "out", "--format", "gif"),
        ("noise", "a.png", "-o", "out", "--suffix", "x/y"),
        ("nothing", "a.png", "-o", "b.png"),
    ],
)
def test_wrong_options_are_one_sentence(run, arguments):
    save("a.png", 8, 8, 3)
    shown = run(*arguments, code=2)
    assert len(shown.err.strip().splitlines()) == 1
    assert not Path("b.png").exists()


def test_pixels_that_are_no_numbers_are_refused():
    pixels = np.full((4, 4, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        degrade_image(ImageFile(pixels), GaussianNoise(), torch.Generator())


def test_files_draw_from_generators_of_their_own():
    first = [
        torch.rand(4, generator=generator_of(*each)).tolist() for each in ((0, "ab" * 16), (1, "ab" * 16))
    ]
    assert first[0] != first[1]
    assert first[0] != torch.rand(4, generator=generator_of(0, "cd" * 16)).tolist()
