# SPDX-License-Identifier: Apache-2.0
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photoworld import ArchiveUnreachableError, draw_scene
from photoworld.testing import fill
from PIL import Image
from recipes.photo import commands, crops, diffeat, itaclip, vitron
from recipes.photo.semanir import by_photo
from recipes.photo.tables import Confusions, Table, Values, markdown
from recipes.restoration.conditions import CONDITIONS
from recipes.vitron_tiny import composites
from shapeworld.vocabulary import COLOURS
from vitron.specialists.words import COLOURS as PAINTED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("photoworld"))


@pytest.fixture
def world(folder, monkeypatch):
    monkeypatch.setenv("PHOTOWORLD", str(folder))


def test_mean_iou_is_that_of_the_summed_matrices():
    matrices = np.array([[[3, 1, 0], [0, 0, 0], [0, 0, 0]], [[1, 0, 0], [2, 4, 0], [0, 0, 0]]])
    found = Confusions(matrices)
    # ground: 4 of 7; first class: 4 of 7; the last is nowhere
    assert found.over(np.ones((1, 2)))[0] == pytest.approx(100 * 4 / 7)
    assert found.over(np.array([[1.0, 0.0]]))[0] == pytest.approx(100 * (3 / 4 + 0) / 2)


def test_images_with_more_points_weigh_more():
    found = Values([100.0, 0.0], [3, 1])
    assert found.over(np.ones((1, 2)))[0] == 75
    assert found.over(np.array([[0.0, 2.0]]))[0] == 0


def test_a_gain_is_paired_and_over_the_best_rule():
    rng = np.random.default_rng(0)
    images = rng.normal(30, 10, 40)
    rows = {"ours": Values((images + 1).tolist()), "bad": Values((images - 5).tolist())}
    rows["good"] = Values(images.tolist())
    summary = Table("PSNR", rows, ours="ours", baselines=("bad", "good")).summary()
    # images differ by ten, the gain on each of them does not
    assert summary["gain"] == {"over": "good", "value": 1.0, "lower": 1.0, "upper": 1.0}
    row = summary["rows"]["ours"]
    assert row["lower"] < row["value"] < row["upper"]
    assert "| **ours** |" in markdown(summary)
    assert commands.losses([summary]) == []
    worse = Table("PSNR", rows, ours="bad", baselines=("good",)).summary()
    assert commands.losses([worse]) == ["PSNR: -5 over good, at least -5"]
    fewer = Table("error", rows, ours="bad", baselines=("good",), lower_is_better=True).summary()
    assert fewer["gain"]["value"] == 5


def test_nearest_colour_and_ground():
    image = np.array([[[225, 26, 31], [130, 120, 110]]], dtype=np.uint8)
    assert itaclip.nearest(image, 0.2).tolist() == [[1 + COLOURS.index("red"), 0]]


def test_patches_take_their_commonest_label():
    labels = np.zeros((16, 16), dtype=np.int64)
    labels[:8, :5] = 2  # five columns of eight
    labels[8:, 8:11] = 3  # three of eight
    found = itaclip.at_patches(labels)
    assert (found[:8, :8] == 2).all()
    assert not found[8:].any()


@pytest.mark.usefixtures("world")
def test_colours_that_clip_has_no_word_for_are_ignored():
    sample = itaclip.draw_photos("whole", 1, 6)
    labels = set(sample.truth["colour"].unique().tolist())
    assert labels <= {0, 1 + COLOURS.index("red"), 1 + COLOURS.index("blue"), itaclip.IGNORED}
    assert itaclip.IGNORED in labels
    assert torch.equal(sample.truth["colour"], itaclip.draw_photos("whole", 1, 6).truth["colour"])


@pytest.mark.usefixtures("world")
def test_matched_points_move_with_their_pixels():
    (pair,) = diffeat._pairs(3, 1)
    places = np.array([[10.25, 20.5], [100.0, 90.0], [200.5, 30.75]])
    found = diffeat._carried(pair, places)
    for place, where in zip(places, found, strict=True):
        column, row = np.floor(place).astype(int)
        if pair.valid[row, column]:
            assert np.abs(where - pair.target[row, column]).max() <= 0.5
        else:
            assert np.isnan(where).all()


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """The real pairs in small: the homography shifts by (12, 4), the disparity is 20."""
    data = tmp_path / "opencv-doc" / diffeat.DATA
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("graf1.png", "graf3.png", "aloeL.jpg", "aloeR.jpg"):
        Image.fromarray(rng.integers(0, 256, (160, 320, 3), dtype=np.uint8)).save(data / name)
    disparity = np.full((160, 320), 20, dtype=np.uint8)
    disparity[:, :160] = 0  # unknown
    Image.fromarray(disparity).save(data / "aloeGT.png")
    (data / "H1to3p.xml").write_text("<storage><H><data> 1 0 12 0 1 4 0 0 1 </data></H></storage>")
    about = {"package": "opencv-doc", "kind": "pair", "name": "pair", "licence": "Apache-2.0"}
    facts = [{**about, "path": f"{diffeat.DATA}/{file.name}"} for file in data.iterdir()]
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": facts}))
    monkeypatch.setenv("PHOTOWORLD", str(tmp_path))


@pytest.mark.usefixtures("pairs")
def test_real_pairs_are_matched_at_their_reduced_size():
    left, right, partner = diffeat.graffiti()
    assert left.shape == right.shape == (80, 160, 3)
    np.testing.assert_allclose(partner(np.array([[10.0, 20.0]])), [[16, 22]])
    left, right, partner = diffeat.aloe()
    assert left.shape == right.shape == (48, 96, 3)
    found = partner(np.array([[80.0, 20.0], [10.0, 20.0]]))
    np.testing.assert_allclose(found[0], [80 - 0.3 * 20, 20])
    assert np.isnan(found[1, 0])


@pytest.mark.usefixtures("world")
def test_things_and_ground_are_told_apart():
    labels = diffeat.draw_masks("shape", 0, 3)
    assert {int(label) for mask in labels.masks for label in np.unique(mask)} == {0, 1}
    colours = diffeat.draw_masks("colour", 0, 3)
    assert {int(label) for mask in colours.masks for label in np.unique(mask)} <= {0, 1, 6, 255}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("kind", composites.KINDS)
def test_turns_are_drawn_again_alike(kind):
    one, other = (composites.ask(kind, 5, 2) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.kind == kind
    assert [each.text for each in one.drawn.example.messages] == [
        each.text for each in other.drawn.example.messages
    ]
    np.testing.assert_array_equal(one.view.media.data, other.view.media.data)
    if kind in vitron.MARKS:
        (truth,) = one.drawn.example.masks.values()
        rule = vitron._ruled(one, truth)
        assert rule.shape == truth.shape
        assert vitron._iou(truth, truth) == 1


@pytest.mark.usefixtures("world")
def test_a_thing_named_by_its_colour_alone_has_it():
    for index in range(10):
        asked = composites.ask("mark by colour", 6, index)
        assert asked is not None
        colours = [thing.colour for thing in asked.view.scene.things]
        assert "" not in colours
        assert colours.count(colours[asked.target or 0]) == 1
        assert colours[asked.target or 0] in PAINTED


def test_windows_of_one_photograph_count_once():
    assert by_photo([1.0, 5.0, 3.0], ["a", "b", "a"]) == [2.0, 5.0]


@pytest.mark.usefixtures("world")
def test_windows_are_drawn_from_large_photographs(monkeypatch):
    monkeypatch.setattr(crops, "LARGE", 91)  # pixels: one more than the photographs have
    assert crops.draw_windows(1, 2, 64) == {}
    monkeypatch.setattr(crops, "LARGE", 90)
    one, same, other = (list(crops.draw_windows(seed, 2, 64).values()) for seed in (1, 1, 2))
    assert [window.shape for window in one] == [(64, 64, 3)] * 2
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.fixture
def judged(monkeypatch):
    """Seeds that a judge was called with."""
    seeds: list[list[int]] = []

    def judge(drawn, count=3):
        seeds.append(drawn)
        return [Table("PSNR", {"ours": Values([2.0]), "rule": Values([1.0])}, "ours", ("rule",))]

    monkeypatch.setitem(sys.modules, "recipes.photo.semanir", SimpleNamespace(judge=judge))
    monkeypatch.setattr(commands, "fetch", lambda: None)
    return seeds


def test_cards_are_written_only_when_told(recipes, judged, tmp_path):
    assert recipes("photo", "judge", "semanir", "--folder", tmp_path).exit_code == 0
    assert not list(tmp_path.iterdir())
    assert recipes("photo", "judge", "semanir", "--seed", 50, "--write", "--folder", tmp_path).exit_code == 0
    assert judged == [[9100, 9110, 9120], [50, 60, 70]]
    card = json.loads((tmp_path / "photo-semanir.json").read_text("utf-8"))
    assert card["tables"][0]["gain"]["value"] == 1
    assert card["command"].endswith("photo judge semanir --seed 50 --seeds 3 --write")
    assert list(card["weights"]) == [f"tiny-{each}/model.safetensors" for each in sorted(CONDITIONS)]
    shown = recipes("photo", "report", "--folder", tmp_path).stdout
    assert "## semanir" in shown
    assert "| **ours** | 2 |" in shown


def test_the_world_is_chosen_by_an_option(recipes, judged):
    assert recipes("judge", "semanir", "--world", "photo", "--seed", 7, "--seeds", 1).exit_code == 0
    assert judged == [[7]]
    found = recipes("judge", "clip", "--seed", 7)
    assert found.exit_code == 2
    assert "--world photo" in found.stderr


def test_without_the_archive_nothing_is_judged(recipes, judged, monkeypatch):
    def fail():
        raise ArchiveUnreachableError("photoworld needs Debian's archive")

    monkeypatch.setattr(commands, "fetch", fail)
    found = recipes("photo", "judge", "semanir")
    assert found.exit_code == 0
    assert "skipped: photoworld needs Debian's archive" in found.stderr
    assert judged == []


@pytest.mark.usefixtures("world")
def test_the_judged_split_is_for_testing():
    asked = composites.ask("mark by name", 1, 0)
    assert asked is not None
    assert {thing.shape[:4] for thing in asked.view.scene.things} == {"test"}
    assert draw_scene(1, 0, split="test").split == "test"


@pytest.mark.usefixtures("world")
def test_what_is_drawn_for_training_is_of_its_split_and_has_colours():
    for index in range(len(composites.KINDS)):
        drawn = composites.draw_composite(1, index)
        view = drawn.views[0]
        assert view is not None
        assert {thing.shape[:5] for thing in view.scene.things} == {"train"}
        assert all(thing.colour for thing in view.scene.things)


def test_models_are_compared_on_the_same_composites(world, recipes, monkeypatch):
    row = itaclip.ROWS["vanilla"]
    monkeypatch.setattr(itaclip, "ROWS", {"vanilla": row, "tiny-shapes, the default": row})
    found = recipes(
        "photo", "compare", "itaclip", itaclip.MODEL, itaclip.MODEL, "--seeds", "1", "--count", "1"
    ).stdout
    first, second = found.split("### tiny-shapes")[1:]
    assert first == second
    assert "nearest colour" in first
