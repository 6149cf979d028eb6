# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from recipes.tiny_denoise import judging
from recipes.tiny_denoise.baselines import baseline_figures
from recipes.tiny_denoise.conv_unet import ConvUNet
from recipes.tiny_denoise.gate import MEAN_GAIN, SIGMAS
from recipes.tiny_denoise.judging import conv_model, losses, make_card, means, measure, verdict
from safetensors.torch import save_file

COLOUR = frozenset({"cat", "cup"})


def figures_of(ours, *, nlm=30.0, tv=29.0, photos=("cat", "cup", "grain")):
    """Build figures in which the model gains ``ours[sigma]`` dB over non-local means everywhere."""
    return {
        name: {
            str(sigma): {"tv": {"psnr": tv}, "nlm": {"psnr": nlm}, "semanir": {"psnr": nlm + ours[sigma]}}
            for sigma in SIGMAS
        }
        for name in photos
    }


def clean_of(figures, level=45.0):
    return {name: {"semanir": level} for name in figures}


def test_exactly_at_the_thresholds_passes():
    figures = figures_of(MEAN_GAIN, nlm=32.0)
    result = verdict(figures, clean_of(figures, 40.0), "semanir", COLOUR)
    assert result["failures"] == []
    assert result["passed"]
    assert result["mean_gain_db"] == {"15": 1.2, "25": 1.6, "50": 1.8}
    assert result["largest_loss_db"] == 0


@pytest.mark.parametrize("sigma", SIGMAS)
def test_too_small_a_mean_gain_fails(sigma):
    figures = figures_of({**MEAN_GAIN, sigma: MEAN_GAIN[sigma] - 0.01})
    result = verdict(figures, clean_of(figures), "semanir", COLOUR)
    assert not result["passed"]
    assert result["failures"] == [
        f"sigma {sigma}: mean gain {MEAN_GAIN[sigma] - 0.01:+.2f} dB, wanted {MEAN_GAIN[sigma]:+.2f} dB"
    ]


def test_the_gain_counts_from_the_better_baseline_of_each_photograph():
    figures = figures_of({15: 2.0, 25: 2.0, 50: 2.0})
    figures["cat"]["50"]["tv"]["psnr"] = 31.0
    result = verdict(figures, clean_of(figures), "semanir", COLOUR)
    assert result["mean_gain_db"] == {"15": 2.0, "25": 2.0, "50": 1.5}
    assert len(result["failures"]) == 1


@pytest.mark.parametrize(("loss", "passed"), [(0.2, True), (0.21, False)])
@pytest.mark.parametrize("name", ["cat", "grain"])
def test_one_photograph_may_lose_a_fifth_of_a_decibel(name, loss, passed):
    figures = figures_of({15: 9.0, 25: 9.0, 50: 9.0})
    figures[name]["25"]["semanir"]["psnr"] = 30.0 - loss
    result = verdict(figures, clean_of(figures), "semanir", COLOUR)
    assert result["passed"] is passed
    assert result["largest_loss_db"] == loss
    assert passed or result["failures"] == [f"{name}, sigma 25: 0.21 dB lost, allowed 0.2 dB"]


def test_grey_photographs_do_not_lift_the_mean():
    figures = figures_of({15: 1.0, 25: 9.0, 50: 9.0})
    figures["grain"]["15"]["semanir"]["psnr"] = 99.0
    assert not verdict(figures, clean_of(figures), "semanir", COLOUR)["passed"]


def test_a_spoilt_clean_photograph_fails():
    figures = figures_of({15: 9.0, 25: 9.0, 50: 9.0})
    clean = {**clean_of(figures), "grain": {"semanir": 39.99}}
    result = verdict(figures, clean, "semanir", COLOUR)
    assert result["failures"] == ["grain, clean: 39.99 dB left, wanted 40.0 dB"]
    assert result["worst_clean_db"] == 39.99
    assert not result["passed"]


def test_losses_name_every_better_method():
    figures = {
        "cat": {
            "15": {
                "noisy": {"psnr": 99.0, "ssim": 0.99},
                "nlm": {"psnr": 30.0, "ssim": 0.9},
                "semanir": {"psnr": 31.0, "ssim": 0.85},
                "bm3d": {"psnr": 31.5},
            }
        }
    }
    assert losses(figures, "semanir") == [
        {"photo": "cat", "sigma": 15, "measure": "psnr", "to": "bm3d", "by": 0.5},
        {"photo": "cat", "sigma": 15, "measure": "ssim", "to": "nlm", "by": 0.05},
    ]


def test_a_method_that_misses_a_photograph_has_no_mean():
    figures = figures_of({15: 1.0, 25: 2.0, 50: 3.0})
    figures["cat"]["15"]["bm3d"] = {"psnr": 50.0}
    figures["cat"]["15"]["semanir"]["psnr"] = 34.0
    assert means(figures)["15"] == {"tv": {"psnr": 29}, "nlm": {"psnr": 30}, "semanir": {"psnr": 32}}


def colour_photo():
    y, x = np.mgrid[:24, :30]
    return np.stack([9 * y, 8 * x, 60 + 3 * y + 2 * x], axis=-1).astype(np.uint8)


def grey_photo():
    return colour_photo()[..., 0].copy()


PHOTOS = {"cat": colour_photo, "grain": grey_photo}


@pytest.fixture
def baselines(tmp_path):
    return baseline_figures(PHOTOS, SIGMAS, tmp_path / "baselines.json")


def test_models_see_float_pixels_with_a_channel_axis(baselines):
    seen = []

    def nothing(image):
        seen.append((image.shape, image.dtype))
        return image

    figures, clean = measure({"nothing": nothing}, PHOTOS, baselines)
    assert set(seen) == {((24, 30, 3), np.dtype(np.float32)), ((24, 30, 1), np.dtype(np.float32))}
    assert clean == {"cat": {"nothing": 100.0}, "grain": {"nothing": 100.0}}
    for rows in figures.values():
        for row in rows.values():
            assert row["nothing"] == pytest.approx(row["noisy"], abs=2e-3)
            assert set(row) == {"noisy", "tv", "nlm", "nothing"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda image: image[:-1], r"'bad' must keep the shape \(24, 30, 3\), got \(23, 30, 3\)"),
        (lambda image: image * np.nan, "'bad' must give finite pixels"),
    ],
)
def test_a_broken_model_is_named(model, message, baselines):
    with pytest.raises(ValueError, match=message):
        measure({"bad": model}, PHOTOS, baselines)


def test_the_convolutional_network_takes_colour_and_grey(tmp_path):
    torch.manual_seed(0)
    network = ConvUNet()
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    denoise = conv_model(tmp_path / "network.safetensors")
    image = np.random.default_rng(0).random((13, 10, 3), dtype=np.float32)
    grey = image[..., :1]
    with torch.inference_mode():
        expected = network(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(denoise(image), expected, atol=1e-5)
    assert denoise(grey).shape == (13, 10, 1)
    np.testing.assert_allclose(denoise(grey)[..., 0], denoise(grey.repeat(3, 2)).mean(-1), atol=1e-6)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with a model that is given the truth, and photographs to judge it on."""
    weights = tmp_path / "toy" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    (weights.parent / "config.json").write_text("{}")
    truth = {(24, 30, 3): colour_photo(), (24, 30, 1): grey_photo()[..., None]}
    state = SimpleNamespace(weights=weights, error=0.0, folder=tmp_path)

    class Oracle:
        model = torch.nn.Linear(2, 3)

        @staticmethod
        def from_pretrained(name, **_options):
            if not (tmp_path / "toy").samefile(name):
                raise ModelNotFoundError(f"no model {name!r}")
            return Oracle()

        def restore(self, image):
            return (truth[image.shape] / 255 + state.error).astype(np.float32)

    monkeypatch.setattr(judging, "Restorer", Oracle)
    monkeypatch.setattr(judging, "CARDS", tmp_path / "cards")
    monkeypatch.setattr(judging, "COLOUR", {"cat": colour_photo})
    monkeypatch.setattr(judging, "GREY", {"grain": grey_photo})
    return state


@pytest.fixture
def run(recipes):
    return partial(recipes, "denoise", "judge")


def test_a_good_model_gets_a_card(shipped, run):
    out, facts = shipped.folder / "out.json", shipped.folder / "training.json"
    facts.write_text(json.dumps({"seed": 3, "training_minutes": 90.5}))
    (shipped.folder / "cards").mkdir()
    (shipped.folder / "cards" / "bm3d.json").write_text(json.dumps({"cat": {"15": 120.0}}))
    done = run(shipped.weights.parent, "--card", out, "--training", facts)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["passed"]
    card = json.loads(out.read_text())
    assert card["name"] == "toy"
    assert card["file"] == "toy/model.safetensors"
    assert card["bytes"] == 7
    assert card["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert card["parameters"] == 9
    assert (card["seed"], card["training_minutes"], card["device"]) == (3, 90.5, None)
    assert card["gate"]["passed"]
    assert card["figures"]["colour"]["cat"]["15"]["bm3d"] == {"psnr": 120.0}
    assert {loss["to"] for loss in card["losses"]} == {"bm3d"}
    assert set(card["figures"]["grey"]) == {"grain"}
    assert "real camera noise is not covered" in card["statement"]


def test_a_bad_model_gets_its_card_and_exit_code_1(shipped, run):
    shipped.error = 0.1
    out = shipped.folder / "out.json"
    done = run(shipped.weights.parent, "--card", out)
    assert done.exit_code == 1
    assert not json.loads(done.stdout)["passed"]
    gate = json.loads(out.read_text())["gate"]
    assert any("clean" in failure for failure in gate["failures"])


def test_training_facts_of_the_card_are_kept(shipped, run):
    cards = shipped.folder / "cards"
    cards.mkdir()
    (cards / "toy.json").write_text(json.dumps({"name": "toy", "device": "two cores", "bytes": 1}))
    assert run(shipped.weights.parent, "--card", cards / "toy.json").exit_code == 0
    card = json.loads((cards / "toy.json").read_text())
    assert (card["device"], card["bytes"]) == ("two cores", 7)


def test_wrong_use_exits_with_2(shipped, run):
    facts = shipped.folder / "training.json"
    facts.write_text(json.dumps({"minutes": 3}))
    unknown = run(shipped.weights.parent, "--training", facts)
    assert unknown.exit_code == 2
    assert "minutes" in unknown.stderr
    (shipped.folder / "other").mkdir()
    assert run(shipped.folder / "other").exit_code == 2
    assert run(shipped.weights.parent, "--conv", shipped.folder / "none.safetensors").exit_code == 2


def test_rivals_are_held_against_the_gate_too(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    figures = figures_of({15: 9.0, 25: 9.0, 50: 9.0}, photos=("astronaut", "camera"))
    for rows in figures.values():
        for row in rows.values():
            row["conv"] = {"psnr": row["nlm"]["psnr"] + 1.9}
    clean = {name: {"semanir": 45.0, "conv": 39.0} for name in figures}
    card = make_card("toy", tmp_path / "model.safetensors", 1, figures, clean, {})
    assert card["gate"]["passed"]
    assert card["gates_of_others"]["conv"]["failures"] == [
        f"{name}, clean: 39.00 dB left, wanted 40.0 dB" for name in figures
    ]
