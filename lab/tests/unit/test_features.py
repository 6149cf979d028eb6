# SPDX-License-Identifier: Apache-2.0
"""The study of diffeat: its images, its sets, its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffeat import ActivationName
from diffeat.presets import asymmetric_noise
from diffeat.ranking import KeypointLabels, MaskLabels, Properties, Ranking
from diffeat.ranking.report import Ranked
from diffeat.shipped import SHIPPED
from PIL import Image
from recipes.features import commands, stereo
from recipes.features.bench import Bench
from recipes.features.claims import by_depth, by_region, correlations, filter_rows, filters
from recipes.features.demo_scenes import choose_pairs
from recipes.features.heads import heads, write_pairs
from recipes.features.report import markdown
from recipes.features.scenes import SIDE, Kind, draw_masks, draw_points, view_pairs
from recipes.features.sets import LEGACY, PAPER, generic
from recipes.features.study import FRESH_SEED, LOOK_SEED, RANK_SEED, gain, misses

NAMES = (
    "down-level0-repeat0-res-out",
    "mid-vit-block0-self-q",
    "up-level0-repeat0-vit-block0-out",
    "up-level0-repeat0-vit-block0-cross-q",
    "up-level0-repeat0-vit-block0-self-v",
    "up-level1-repeat0-res-increment",
    "up-level1-repeat0-res-out",
    "up-level1-repeat1-vit-block0-self-k",
)


def ranking_of(scores: Sequence[float], channels: Sequence[int] | None = None) -> Ranking:
    rows = [
        Ranked(
            names=(name,),
            mean=score,
            deviation=0.0,
            scores=(score,),
            channels=width,
            bytes=2,
            flop_share=None,
            family=ActivationName.parse(name).family,
        )
        for name, score, width in zip(NAMES, scores, channels or [10] * len(NAMES), strict=True)
    ]
    return Ranking(tuple(sorted(rows, key=lambda row: -row.mean)), "mIoU", {})


def test_masks_are_those_of_the_images() -> None:
    labels = draw_masks("colour", 0, 4)
    assert isinstance(labels, MaskLabels)
    assert labels.classes[0] == "ground"
    assert all(mask.shape == (SIDE, SIDE) for mask in labels.masks)
    assert all(np.shape(image) == (SIDE, SIDE, 3) for image in labels.images)  # type: ignore[arg-type]
    again, shapes = draw_masks("colour", 0, 4), draw_masks("shape", 0, 4)
    np.testing.assert_array_equal(again.images[3], labels.images[3])
    np.testing.assert_array_equal(shapes.images[3], labels.images[3])
    assert all(((a > 0) == (b > 0)).all() for a, b in zip(labels.masks, shapes.masks, strict=True))


def test_only_the_views_of_a_pair_share_points() -> None:
    labels = draw_points(0, 3)
    assert isinstance(labels, KeypointLabels)
    names = [set(points) for points in labels.points]
    for i, own in enumerate(names):
        for j, other in enumerate(names):
            assert (own == other) if i // 2 == j // 2 else not (own & other)
    assert sum(map(len, names)) > 10


def test_points_agree_with_the_dense_correspondence() -> None:
    (pair,) = view_pairs(1, 1)
    known = pair.keypoints
    seen = np.flatnonzero(known.seen_first & known.seen_second)
    assert len(seen)
    for i in seen:
        column, row = np.floor(known.first[i]).astype(int)
        if pair.valid[row, column] and pair.first.instances[row, column] == known.things[i] + 1:
            offset = known.first[i] - (column + 0.5, row + 0.5)
            np.testing.assert_allclose(
                pair.target[row, column], known.second[i], atol=2 * np.abs(offset).max() + 0.5
            )


def test_images_of_the_steps_have_nothing_in_common() -> None:
    assert len({RANK_SEED, LOOK_SEED, *range(FRESH_SEED, FRESH_SEED + 50)}) == 52


def test_generic_set_takes_mean_places_and_keeps_the_budget() -> None:
    first = ranking_of([0.1, 0.2, 0.9, 0.8, 0.3, 0.1, 0.5, 0.4], [10, 10, 30, 10, 10, 10, 10, 10])
    second = ranking_of([10.0, 20.0, 60.0, 90.0, 30.0, 10.0, 80.0, 40.0], [10, 10, 30, 10, 10, 10, 10, 10])
    assert generic({"shape": first, "colour": second}, 20) == (NAMES[3], NAMES[6])
    assert generic({"shape": first}, 40) == (NAMES[2], NAMES[3])


def test_filters_are_the_papers() -> None:
    names = [ActivationName.parse(name) for name in NAMES]
    kept = {title: list(map(str, found)) for title, found in filters(names).items()}
    clean = set(map(str, asymmetric_noise(names)))
    assert set(kept["1: first half of the up stage"]) == clean
    assert NAMES[0] not in clean
    assert kept["2: outputs and cross-q only"] == [NAMES[0], NAMES[2], NAMES[3], NAMES[6]]
    assert NAMES[1] not in kept["3: no self-attention"]
    assert NAMES[7] in kept["3: no self-attention"]  # late in the up stage it stays
    assert NAMES[4] not in kept["extra: no increments, ffn-inner, self-v"]
    assert clean == {NAMES[i] for i in (2, 3, 4, 5, 6)}
    assert kept["all, as in the paper"] == [NAMES[i] for i in (2, 3, 6, 7)]


def test_filters_say_what_they_cost() -> None:
    rows = {
        row["filter"]: row
        for row in filter_rows(list(map(ActivationName.parse, NAMES)), {"a": ranking_of(range(8))})
    }
    row = rows["2: outputs and cross-q only"]
    assert (row["kept"], row["of"]) == (4, 8)
    assert row["a"] == {
        "kept": (0 + 2 + 3 + 6) / 4,
        "dropped": (1 + 4 + 5 + 7) / 4,
        "best_kept": 6,
        "best": 7,
    }


def test_measures_are_grouped_and_correlated() -> None:
    rows = [
        Properties(
            name=name,
            family="",
            noise_sensitivity=float(i),
            high_frequency=-float(i),
            locality=None,
            granularity=float(i),
        )
        for i, name in enumerate(NAMES)
    ]
    regions = by_region(rows)
    assert regions["down"] == {"count": 1, "noise_sensitivity": 0, "high_frequency": 0, "granularity": 0}
    assert [each["name"] for each in by_depth(rows, "out")] == [NAMES[2]]
    measured = [row for row in rows if row.noise_sensitivity is not None]
    found = correlations(measured, {"a": ranking_of(range(8))})
    assert found["noise_sensitivity"]["a"] == pytest.approx(1)
    assert found["high_frequency"]["a"] == pytest.approx(-1)


def test_a_gain_within_its_interval_misses() -> None:
    judged: dict[Kind, dict[str, list[float]]] = {
        "shape": {"for shape": [0.5, 0.6, 0.7], "legacy": [0.4, 0.5, 0.6]},
        "colour": {"for colour": [0.5, 0.3, 0.4], "legacy": [0.4, 0.3, 0.35]},
    }
    assert gain([0.5, 0.6], [0.4, 0.5]) == pytest.approx({"mean": 0.1, "lower": 0.1})
    (miss,) = misses(judged, ("shape", "colour"))
    assert miss.startswith(
        "colour: the ranked selection beats the legacy one by 0.0500, with its 95 % bound -0.0"
    )


def test_stereo_partners_follow_the_disparity() -> None:
    disparity = np.full((stereo.HEIGHT, stereo.WIDTH), np.nan)
    disparity[5, 20] = 4.0
    found = stereo.partners(np.array([[20.5, 5.5], [30.0, 7.0]]), disparity)
    np.testing.assert_array_equal(found, [[16.5, 5.5], [np.nan, 7.0]])


def test_sift_and_raw_pixels_find_themselves_on_the_real_pair() -> None:
    left, right, disparity = stereo.read_pair()
    assert left.shape == right.shape == (stereo.HEIGHT, stereo.WIDTH, 3)
    known = np.isfinite(disparity)
    assert known.mean() > 0.7
    # the disparity makes the photographs agree: far better than no motion does
    rows, columns = np.nonzero(known)
    there = np.round(columns + 0.5 - disparity[rows, columns] - 0.5).astype(int)
    inside = there >= 0
    rows, columns, there = rows[inside], columns[inside], there[inside]
    warped = np.abs(left[rows, columns].astype(float) - right[rows, there]).mean()
    still = np.abs(left[rows, columns].astype(float) - right[rows, columns]).mean()
    assert warped < still / 2


def test_demo_pairs_show_every_shape_and_are_rich() -> None:
    _, pairs = choose_pairs(2 * 8)
    assert len(pairs) == 16
    assert min(len(pair.first.scene.things) for pair in pairs) >= 2


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A random pipeline of the shape of the shipped one."""
    from recipes.tiny_sdxl.assembly import assemble
    from recipes.tiny_sdxl.autoencoder import build_autoencoder
    from recipes.tiny_sdxl.denoiser import Denoiser, DenoiserOptions

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = assemble(build_autoencoder((16, 32, 32), 8), Denoiser(DenoiserOptions(), 8))
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore")  # of loading, which are not this study's
def test_the_study_writes_card_figure_and_tables(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipes: Callable[..., Any]
) -> None:
    # a few activations are enough to see all parts at work
    whole = Bench.__init__

    def small(self: Bench, *args: Any) -> None:
        whole(self, *args)
        self.names = [name for name in self.names if name in {*NAMES, *LEGACY, *PAPER, "unet-in"}]

    monkeypatch.setattr(Bench, "__init__", small)
    card, figure = tmp_path / "card.json", tmp_path / "deep" / "ranking.png"
    args = ["study", "--model", tiny, "--images", 4, "--pixels", 8, "--fresh", 4, "--seeds", 2]
    args += ["--candidates", 2, "--measured", 2, "--folds", 2]
    args += ["--card", card, "--figure", figure, "--results", tmp_path / "runs"]
    result = recipes("features", *args)
    assert result.exit_code == 0, result.stderr
    found = json.loads(card.read_text())
    assert found["num_activations"] == 116
    assert set(found["judged"]) == {"shape", "colour", "points", "crowd"}
    assert found["stereo"]["points"] > 300
    assert found["stereo"]["pck"]["SIFT"]["0.02"] > 0.4
    with Image.open(figure) as image:
        assert image.size[0] > 1000
    assert "### Stereo pair" in result.stdout
    assert markdown(found) in result.stdout
    gate = recipes("features", "judge", "--model", tiny, "--card", card, "--fresh", 4, "--seeds", 2)
    assert gate.exit_code in {0, 1}
    assert set(json.loads(gate.stdout)["judged"]) == {"shape", "colour"}


def test_the_shipped_card_passes_its_gate_or_says_so() -> None:
    if not commands.CARD.is_file() or "tiny-sdxl" not in SHIPPED.names():
        pytest.skip("the study has not been run on a shipped model")
    card = json.loads(commands.CARD.read_text("utf-8"))
    assert card["weights_sha256"] == commands.weights_hash(commands.MODEL)
    assert card["failures"] == misses(card["judged"], commands.JUDGED)


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec:FutureWarning")
def test_a_head_is_measured_beside_its_activations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads(folder=tmp_path, train=3, judged=2, steps=2, dim=4, seeds=1)
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "heads.json").read_text("utf-8"))
    plain, trained = report["pck"]["no head"], report["pck"]["head, seed 0"]
    assert set(plain) == {"val", "test"}
    for split, gains in report["gain"].items():
        for threshold, (mean, deviation) in gains.items():
            assert mean == pytest.approx(trained[split][threshold] - plain[split][threshold], abs=1e-4)
            assert deviation == 0
    names = {
        split: {each.name for each in write_pairs(tmp_path / split, split, 2)} for split in ("val", "test")
    }
    assert names["val"].isdisjoint(names["test"])
