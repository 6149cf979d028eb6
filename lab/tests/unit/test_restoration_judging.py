# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.hub import ModelNotFoundError
from recipes.restoration import judging
from recipes.restoration.baselines import baseline_figures, measure_baselines
from recipes.restoration.conditions import CONDITIONS, REQUIREMENTS, Condition, Requirement, middle
from recipes.restoration.conv_unet import ConvUNet
from recipes.restoration.judging import make_card, measure, network_model, show, summary
from recipes.restoration.tasks import TASKS
from recipes.restoration.verdicts import losses, means, verdict
from semanir.cards import ModelCard
from semanir.degradations import JPEG, BicubicDownscale

COLOUR = frozenset({"cat", "cup"})
GAIN = Requirement(condition="white 25", over=("tv", "nlm"), mean_gain=1.6, worst_loss=0.2)
CLEAN = Requirement(condition="clean", floor=40.0)


def figures_of(ours, *, nlm=30.0, tv=29.0, photos=("cat", "cup", "grain"), clean=45.0):
    """Build figures in which the model gains ``ours`` dB over non-local means everywhere."""
    return {
        name: {
            "white 25": {"tv": {"psnr": tv}, "nlm": {"psnr": nlm}, "semanir": {"psnr": nlm + ours}},
            "clean": {"semanir": {"psnr": clean}},
        }
        for name in photos
    }


def test_every_requirement_names_a_condition_and_methods_that_are_run():
    for task, requirements in REQUIREMENTS.items():
        conditions = {each.name: each for each in CONDITIONS[task]}
        for each in requirements:
            assert set(each.over) <= {"input", *conditions[each.condition].baselines}
            assert each.mean_gain is None or each.over


def test_names_of_conditions_are_their_own():
    for conditions in CONDITIONS.values():
        assert len({each.name for each in conditions}) == len(conditions)


def test_exactly_at_the_thresholds_passes():
    figures = figures_of(1.6, nlm=32.0, clean=40.0)
    result = verdict(figures, "semanir", (GAIN, CLEAN), COLOUR)
    assert result == {"failures": [], "missed_targets": [], "passed": True}


def test_too_small_a_mean_gain_fails():
    result = verdict(figures_of(1.59), "semanir", (GAIN, CLEAN), COLOUR)
    assert result["failures"] == ["white 25: mean gain +1.59 dB over tv and nlm, wanted +1.60 dB"]
    assert not result["passed"]


def test_the_gain_counts_from_the_better_baseline_of_each_photograph():
    figures = figures_of(2.0)
    figures["cat"]["white 25"]["tv"]["psnr"] = 31.0
    assert len(verdict(figures, "semanir", (GAIN,), COLOUR)["failures"]) == 1


@pytest.mark.parametrize(("loss", "passed"), [(0.2, True), (0.21, False)])
@pytest.mark.parametrize("name", ["cat", "grain"])
def test_one_photograph_may_lose_a_fifth_of_a_decibel(name, loss, passed):
    figures = figures_of(9.0)
    figures[name]["white 25"]["semanir"]["psnr"] = 30.0 - loss
    result = verdict(figures, "semanir", (GAIN,), COLOUR)
    assert result["passed"] is passed
    assert passed or result["failures"] == [f"{name}, white 25: 0.21 dB lost, allowed 0.2 dB"]


def test_a_gain_over_several_seeds_holds_at_its_bound_only():
    runs = [figures_of(1.7), figures_of(1.9), figures_of(1.8)]
    result = verdict(figures_of(1.8), "semanir", (GAIN,), COLOUR, runs)
    assert result["failures"] == [
        "white 25: mean gain +1.80 dB over tv and nlm, +1.55 dB at its 95 % bound, wanted +1.60 dB"
    ]
    assert verdict(figures_of(1.8), "semanir", (GAIN,), COLOUR, [figures_of(1.8)] * 3)["passed"]


def test_fresh_seeds_draw_other_noise_and_other_baselines():
    photo = np.full((32, 32), 128, dtype=np.uint8)
    images = [WHITE.apply(photo, seed)[0] for seed in (None, 0, 7)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert measure_baselines(photo, WHITE, 7) != measure_baselines(photo, WHITE)


def test_fresh_seeds_write_no_card():
    with pytest.raises(ValueError, match="goes without --card"):
        judging.judge("denoise", seed=5, card=True)


def test_a_missed_target_is_told_and_passes():
    target = Requirement(condition="white 25", over=("nlm",), worst_loss=0.0, is_target=True)
    result = verdict(figures_of(-0.5), "semanir", (target,), COLOUR)
    assert result["missed_targets"][0] == "cat, white 25: 0.50 dB lost, allowed 0.0 dB"
    assert result["failures"] == []
    assert result["passed"]


def test_grey_photographs_do_not_lift_the_mean():
    figures = figures_of(1.0)
    figures["grain"]["white 25"]["semanir"]["psnr"] = 99.0
    assert not verdict(figures, "semanir", (GAIN,), COLOUR)["passed"]


def test_a_spoilt_clean_photograph_fails():
    figures = figures_of(9.0)
    figures["grain"]["clean"]["semanir"]["psnr"] = 39.99
    result = verdict(figures, "semanir", (GAIN, CLEAN), COLOUR)
    assert result["failures"] == ["grain, clean: 39.99 dB left, wanted 40.0 dB"]


def test_losses_name_every_better_method_the_input_too():
    figures = {
        "cat": {
            "JPEG 80": {
                "input": {"psnr": 32.0, "ssim": 0.5},
                "nlm": {"psnr": 30.0, "ssim": 0.9},
                "semanir": {"psnr": 31.0, "ssim": 0.85},
                "bm3d": {"psnr": 31.5},
            }
        }
    }
    assert losses(figures, "semanir") == [
        {"photo": "cat", "condition": "JPEG 80", "measure": "psnr", "to": "input", "by": 1.0},
        {"photo": "cat", "condition": "JPEG 80", "measure": "psnr", "to": "bm3d", "by": 0.5},
        {"photo": "cat", "condition": "JPEG 80", "measure": "ssim", "to": "nlm", "by": 0.05},
    ]


def test_a_method_that_misses_a_photograph_has_no_mean():
    figures = figures_of(2.0)
    figures["cat"]["white 25"]["bm3d"] = {"psnr": 50.0}
    figures["cat"]["white 25"]["semanir"]["psnr"] = 35.0
    assert means(figures)["white 25"] == {"tv": {"psnr": 29}, "nlm": {"psnr": 30}, "semanir": {"psnr": 33}}


def test_a_table_grows_downwards(capsys):
    row = {name: {"psnr": 30.0 + number} for number, name in enumerate(("input", "one", "two"))}
    show({"cat": {"JPEG 10": row}}, "many methods")
    shown = capsys.readouterr().err
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("│")] == ["input", "one", "two"]
    show({"cat": {"a": row, "b": row, "c": row, "d": row}}, "many conditions")
    shown = capsys.readouterr().err
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("│")] == ["a", "b", "c", "d"]


def colour_photo():
    y, x = np.mgrid[:24, :30]
    return np.stack([9 * y, 8 * x, 60 + 3 * y + 2 * x], axis=-1).astype(np.uint8)


def grey_photo():
    return colour_photo()[..., 0].copy()


PHOTOS = {"cat": colour_photo, "grain": grey_photo}
WHITE = Condition(name="white 25", sigma=25)
HALF = Condition(name="half", steps=(BicubicDownscale(scale=2),), baselines=(), scale=2, is_colour=True)
CLEAN_PHOTO = Condition(name="clean", baselines=())


def test_models_see_float_pixels_with_a_channel_axis():
    seen = []

    def nothing(image):
        seen.append((image.shape, image.dtype))
        return image

    figures = measure({"nothing": nothing}, PHOTOS, (WHITE, CLEAN_PHOTO))
    assert set(seen) == {((24, 30, 3), np.dtype(np.float32)), ((24, 30, 1), np.dtype(np.float32))}
    assert [rows["clean"]["nothing"]["psnr"] for rows in figures.values()] == [100.0, 100.0]


def test_a_model_that_enlarges_is_held_against_the_truth(tmp_path):
    seen = []

    def repeat(image):
        seen.append(image.shape)
        return image.repeat(2, axis=0).repeat(2, axis=1)

    figures = measure({"repeat": repeat}, PHOTOS, (HALF,))
    assert seen == [(12, 15, 3)]
    bicubic = baseline_figures(PHOTOS, (HALF,), tmp_path / "cache.json")["cat"]["half"]["input"]["psnr"]
    assert bicubic > figures["cat"]["half"]["repeat"]["psnr"] > 20


def test_degradations_are_those_of_the_seed_and_of_the_middle():
    photo = np.zeros((300, 281, 3), np.uint8)
    photo[22:278, 12:268] = 200
    assert (middle(photo) == 200).all()
    assert middle(photo[:101, :77]).shape == (100, 76, 3)
    condition = Condition(name="JPEG", steps=(JPEG(quality=10, grid="random"),))
    noisy = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(condition.apply(noisy)[0], condition.apply(noisy)[0])
    first = condition.apply(noisy)[0]
    assert any(not np.array_equal(first, condition.apply(noisy, seed)[0]) for seed in (2, 3, 4))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda image: image[:-1], r"'bad' must return the shape \(24, 30, 3\), got \(23, 30, 3\)"),
        (lambda image: image * np.nan, "'bad' must give finite pixels"),
    ],
)
def test_a_broken_model_is_named(model, message):
    with pytest.raises(ValueError, match=message):
        measure({"bad": model}, PHOTOS, (WHITE,))


@pytest.mark.parametrize("scale", [1, 2])
def test_the_convolutional_network_takes_colour_and_grey(scale):
    torch.manual_seed(0)
    restore = network_model(ConvUNet(), scale)
    image = np.random.default_rng(0).random((13, 10, 3), dtype=np.float32)
    grey = image[..., :1]
    assert restore(image).shape == (13 * scale, 10 * scale, 3)
    assert restore(grey).shape == (13 * scale, 10 * scale, 1)
    np.testing.assert_allclose(restore(grey)[..., 0], restore(grey.repeat(3, 2)).mean(-1), atol=1e-6)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with a model that is given the truth, and photographs to judge it on."""
    weights = tmp_path / "toy" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    truth = {(24, 30, 3): colour_photo(), (24, 30, 1): grey_photo()[..., None]}
    state = SimpleNamespace(folder=weights.parent, error=0.0, cards=tmp_path / "cards")
    state.cards.mkdir()

    class Oracle:
        model = torch.nn.Linear(2, 3)

        @staticmethod
        def from_pretrained(name, **_options):
            if not weights.parent.samefile(name):
                raise ModelNotFoundError(f"no model {name!r}")
            return Oracle()

        def restore(self, image):
            return (truth[image.shape] / 255 + state.error).astype(np.float32)

    monkeypatch.setattr(judging, "Restorer", Oracle)
    monkeypatch.setattr(judging, "CARDS", state.cards)
    monkeypatch.setattr(judging, "COLOUR", {"cat": colour_photo})
    monkeypatch.setattr(judging, "FURTHER", {})
    monkeypatch.setattr(judging, "GREY", {"grain": grey_photo})
    return state


@pytest.fixture
def run(recipes, shipped):
    return partial(recipes, "restoration", "judge", "jpeg", "--model", shipped.folder)


def test_a_good_model_gets_its_cards(shipped, run):
    facts = shipped.folder / "training.json"
    facts.write_text(json.dumps({"seed": 3, "training_minutes": 90.5}))
    (shipped.cards / "bm3d.json").write_text(json.dumps({"cat": {"JPEG 10": 120.0}}))
    done = run("--card", "--training", facts)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["passed"]
    card = json.loads((shipped.cards / "tiny-jpeg.json").read_text())
    assert (card["name"], card["file"], card["bytes"]) == ("tiny-jpeg", "tiny-jpeg/model.safetensors", 7)
    assert card["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert card["parameters"] == 9
    assert (card["seed"], card["training_minutes"], card["device"]) == (3, 90.5, None)
    assert card["figures"]["cat"]["JPEG 10"]["bm3d"] == {"psnr": 120.0}
    assert {loss["to"] for loss in card["losses"]} == {"bm3d"}
    assert set(card["means"]) == {"colour", "grey"}
    assert "JPEG 10 4:4:4" in card["figures"]["cat"]
    assert "JPEG 10 4:4:4" not in card["figures"]["grain"]  # grey has no colours to keep
    inside = ModelCard.from_dict(json.loads((shipped.folder / "card.json").read_text()))
    assert inside.tasks == ("jpeg",)
    assert inside.figures[0].setting == "JPEG 10"
    assert inside.figures[0].baseline_name == "BM3D, told the noise"
    assert {figure.value for figure in inside.figures} == {100.0}


def test_a_model_is_judged_on_fresh_seeds_without_a_card(shipped, run):
    done = run("--seed", 5, "--seeds", 3)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seeds"] == [5, 15, 25]
    assert all(len(gains) == 3 for gains in found["mean_gains"].values())
    assert not list(shipped.cards.iterdir())
    assert run("--seed", 5, "--seeds", 2).exit_code == 2


def test_a_bad_model_gets_its_card_and_exit_code_1(shipped, run):
    shipped.error = 0.1
    done = run("--card")
    assert done.exit_code == 1
    assert not json.loads(done.stdout)["passed"]
    requirements = json.loads((shipped.cards / "tiny-jpeg.json").read_text())["requirements"]
    assert any(failure.startswith("JPEG 10: mean gain -") for failure in requirements["failures"])


def test_training_facts_of_the_card_are_kept(shipped, run):
    kept = shipped.cards / "tiny-jpeg.json"
    kept.write_text(json.dumps({"device": "two cores", "bytes": 1}))
    assert run("--card").exit_code == 0
    card = json.loads(kept.read_text())
    assert (card["device"], card["bytes"]) == ("two cores", 7)


def test_wrong_use_exits_with_2(shipped, run, recipes):
    facts = shipped.folder / "training.json"
    facts.write_text(json.dumps({"minutes": 3}))
    unknown = run("--training", facts)
    assert unknown.exit_code == 2
    assert "minutes" in unknown.stderr
    other = recipes("restoration", "judge", "jpeg", "--model", shipped.cards)
    assert other.exit_code == 2
    assert run("--conv", shipped.folder / "none").exit_code == 2
    assert "name one task" in recipes("restoration", "judge", "--model", shipped.folder).stderr


def test_rivals_are_held_against_the_requirements_too(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    row = {"input": {"psnr": 30.0}, "semanir": {"psnr": 33.0}, "conv": {"psnr": 31.0}}
    card = make_card("demosaic", tmp_path / "model.safetensors", 1, {"cat": {"Malvar": row}}, {})
    assert card["requirements"]["passed"]
    assert card["requirements_of_others"]["conv"]["failures"] == [
        "Malvar: mean gain +1.00 dB over input, wanted +2.00 dB"
    ]


@pytest.mark.parametrize("task", TASKS)
def test_what_travels_with_the_weights_is_a_card(task):
    row = {"input": {"psnr": 30.0}, "tv": {"psnr": 31.0}, "semanir": {"psnr": 33.0}}
    figures = {"cat": {each.name: row for each in CONDITIONS[task]}}
    card = ModelCard.from_dict(summary(task, {"parameters": 5, "statement": "text"}, figures))
    assert card.task == TASKS[task].phrase
    assert card.figures[0].baseline == 31.0
    assert card.figures[0].images == "1 colour photographs"
