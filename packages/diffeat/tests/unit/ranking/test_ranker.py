# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffeat import FeatureExtractor, Features
from diffeat.features import FeaturesMeta
from diffeat.options import ExtractionOptions, RankingOptions
from diffeat.ranking import KeypointLabels, MaskLabels, Ranker, Ranking
from diffeat.ranking.tasks import KeypointTask, MaskTask
from diffeat.store import FeatureStore, StoreError
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F

IMAGES, SIDE = 6, 16
META = FeaturesMeta(
    options=ExtractionOptions(size=(SIDE, SIDE)), noise_levels=(), image_hashes=(), model="toy"
)
PLANTED, HALF, OTHER_HALF = (
    "up-level1-repeat0-res-out",
    "up-level0-repeat0-res-out",
    "up-level0-repeat1-res-out",
)
NOISE = tuple(f"down-level{i}-repeat0-res-out" for i in range(3))


@pytest.fixture(scope="module")
def toy():
    """Four classes in blobs; one activation shows the class, two show one bit of it, the others nothing."""
    generator = torch.Generator().manual_seed(3)
    bits = torch.randn(IMAGES, 2, 4, 4, generator=generator).sign()
    bits = F.interpolate(bits, SIDE, mode="nearest")
    masks = ((bits[:, 0] > 0) + 2 * (bits[:, 1] > 0)).to(torch.uint8).numpy()

    def noisy(values, scale):
        return values + scale * torch.randn(values.shape, generator=generator)

    tensors = {name: noisy(torch.zeros(IMAGES, 6, 8, 8), 1.0) for name in NOISE}
    tensors[HALF] = noisy(bits[:, :1].repeat(1, 3, 1, 1), 0.3)
    tensors[OTHER_HALF] = noisy(bits[:, 1:].repeat(1, 3, 1, 1), 0.3)
    tensors[PLANTED] = noisy(bits.repeat(1, 4, 1, 1), 0.3)
    images = [np.zeros((SIDE, SIDE, 3), np.uint8)] * IMAGES
    return Features(tensors, META), MaskLabels(images, list(masks))


@pytest.mark.parametrize(("probe", "seed"), [("logistic", 0), ("logistic", 1), ("logistic", 2), ("mlp", 0)])
def test_a_planted_activation_comes_first(toy, seed, probe):
    options = RankingOptions(
        probe=probe,
        folds=3 if probe == "logistic" else 2,
        pixels=64 if probe == "logistic" else 32,
    )
    ranking = Ranker(*toy, ranking=options, extraction=ExtractionOptions(seed=seed)).rank()
    assert ranking.rows[0].names == (PLANTED,)
    assert {row.names[0] for row in ranking.rows[3:]} == set(NOISE)
    assert ranking.rows[0].mean - ranking.rows[3].mean > 3 * max(row.deviation for row in ranking.rows)


def test_selection_adds_what_helps_and_keeps_the_budget(toy):
    ranker = Ranker(*toy, ranking=RankingOptions(folds=3, pixels=64))
    within = [name for name in toy[0] if name != PLANTED]
    steps = ranker.select(within, channels=6)
    assert [set(row.names) for row in steps.rows][-1] == {HALF, OTHER_HALF}
    assert steps.rows[-1].channels == 6
    assert steps.rows[1].mean > steps.rows[0].mean
    assert [len(row.names) for row in ranker.select(within, channels=5).rows] == [1]
    assert len(ranker.select(within, channels=100, min_gain=1.0).rows) == 1
    with pytest.raises(ValueError, match="at least one activation, 3 channels, got 2"):
        ranker.select(channels=2)


def test_sets_are_judged_together(toy):
    row = Ranker(*toy, ranking=RankingOptions(folds=3, pixels=64)).evaluate([HALF, OTHER_HALF])
    assert (row.channels, row.family) == (6, "set")
    assert row.mean > 0.7


def test_no_image_judges_itself(toy):
    """What tells images apart but says nothing of classes across images must not score."""
    _, labels = toy
    rng = np.random.default_rng(0)
    constant = [np.full((SIDE, SIDE), rng.integers(2), np.uint8) for _ in range(IMAGES)]
    constant[0][:], constant[1][:] = 0, 1
    own = torch.eye(IMAGES)[:, :, None, None].expand(-1, -1, 4, 4)
    ranking = Ranker(
        Features({PLANTED: own}, META), MaskLabels(labels.images, constant), ranking=RankingOptions(folds=6)
    ).rank()
    assert ranking.rows[0].mean < 0.9


def test_scores_of_other_features_are_never_taken(toy, tmp_path):
    features, labels = toy
    options = RankingOptions(folds=3, pixels=64)
    Ranker(features, labels, ranking=options, folder=tmp_path)
    # the same values, at other images
    moved = Features({name: value.flip(0) for name, value in features.items()}, META)
    with pytest.raises(StoreError, match="holds scores of other features"):
        Ranker(moved, labels, ranking=options, folder=tmp_path)
    Ranker(features, labels, ranking=options, folder=tmp_path)


def test_a_stopped_ranking_goes_on(toy, tmp_path, monkeypatch):
    options = RankingOptions(folds=3, pixels=64)
    whole = Ranker(*toy, ranking=options).rank()
    calls = []

    def stop(done, total, name):
        calls.append(name)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ranker(*toy, ranking=options, folder=tmp_path).rank(on_score=stop)
    file = tmp_path / "scores.jsonl"
    file.write_bytes(file.read_bytes()[:-9])  # the last line was cut off
    scored = []
    original = MaskTask.score

    def count(self, features, fold):
        scored.append(fold)
        return original(self, features, fold)

    monkeypatch.setattr(MaskTask, "score", count)
    again = Ranker(*toy, ranking=options, folder=tmp_path).rank()
    assert again.rows == whole.rows
    assert len(scored) == 3 * 3 + 1
    assert Ranker(*toy, ranking=options, folder=tmp_path).rank().rows == whole.rows
    assert len(scored) == 3 * 3 + 1


def test_scores_of_something_else_are_refused(toy, tmp_path):
    features, labels = toy
    Ranker(features, labels, ranking=RankingOptions(folds=3), folder=tmp_path)
    with pytest.raises(StoreError, match="holds scores of other folds; use another folder"):
        Ranker(features, labels, ranking=RankingOptions(folds=2), folder=tmp_path)
    other = replace(labels, masks=[np.roll(mask, 1) for mask in labels.masks])
    with pytest.raises(StoreError, match="other labels"):
        Ranker(features, other, ranking=RankingOptions(folds=3), folder=tmp_path)


def test_little_memory_changes_nothing(toy):
    options = RankingOptions(folds=3, pixels=64)
    assert Ranker(*toy, ranking=options, memory=1).rank().rows == Ranker(*toy, ranking=options).rank().rows


def test_drawn_pixels_are_those_of_the_enlarged_features(toy):
    features, labels = toy
    task = MaskTask(labels, RankingOptions(folds=2, pixels=SIDE * SIDE))
    value = features[NOISE[0]]
    enlarged = F.interpolate(value, SIDE, mode="bilinear").flatten(2)
    drawn = task.reduce(value[2:], 2)
    # all pixels were drawn, so both hold the same values in another order
    torch.testing.assert_close(drawn.sort(-1).values, enlarged[2:].sort(-1).values)


def test_results_as_table_json_and_chart(toy, tmp_path):
    ranking = Ranker(*toy, ranking=RankingOptions(folds=3, pixels=32)).rank()
    table = ranking.table(2)
    # features in memory have no cost in FLOP, and so no column for it
    assert (table.row_count, len(table.columns)) == (2, 5)
    costly = replace(ranking, rows=tuple(replace(row, flop_share=0.25) for row in ranking.rows))
    assert len(costly.table().columns) == 6
    ranking.to_json(tmp_path / "ranking.json")
    again = Ranking.from_json(tmp_path / "ranking.json")
    assert again.rows == ranking.rows
    assert json.loads((tmp_path / "ranking.json").read_text())["metric"] == "mIoU"
    ranking.chart(tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").stat().st_size > 5000
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json is not a ranking"):
        Ranking.from_json(tmp_path / "other.json")


def test_keypoints_are_found_by_their_features():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 8, 16, 16, generator=generator)
    shifts = [(0, 0), (3, 0), (0, 2), (4, 4)]
    shifted = torch.cat([base.roll(shift, (3, 2)) for shift in shifts])
    points = [
        {str(i): (x + 0.5 + dx, y + 0.5 + dy) for i, (x, y) in enumerate([(2, 2), (5, 8), (9, 3)])}
        for dx, dy in shifts
    ]
    labels = KeypointLabels([np.zeros((16, 16, 3), np.uint8)] * 4, points)
    noise = torch.randn(4, 8, 16, 16, generator=generator)
    options = RankingOptions(folds=2, side=16, threshold=0.01)
    ranking = Ranker(Features({NOISE[0]: noise, PLANTED: shifted}, META), labels, ranking=options).rank()
    assert ranking.metric == "PCK"
    assert ranking.rows[0].names == (PLANTED,)
    assert ranking.rows[0].mean == 1
    assert ranking.rows[1].mean < 0.3


def test_points_nobody_shares_count_as_nothing():
    labels = KeypointLabels(
        [np.zeros((8, 8, 3), np.uint8)] * 3, [{"a": (1, 1)}, {"a": (1, 1)}, {"b": (1, 1)}]
    )
    task = KeypointTask(labels, RankingOptions(folds=3, side=4))
    alone = next(fold for fold, held in enumerate(task.folds) if held == [2])
    assert task.score(torch.randn(3, 2, 4, 4), alone) == 0


def test_models_and_stores_rank_alike(sd15_folder, tmp_path):
    extractor = FeatureExtractor(StableDiffusionPipeline.from_pretrained(sd15_folder), name="tiny")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    labels = MaskLabels(images, [rng.integers(0, 2, (32, 32), dtype=np.uint8) for _ in images])
    extraction, options = ExtractionOptions(size=32), RankingOptions(folds=2, pixels=32)
    direct = Ranker(extractor, labels, ranking=options, extraction=extraction, batch_size=4).rank("mid-*")
    names = [row.names[0] for row in direct.rows]
    assert "mid-vit-block0-self-q" in names
    assert not any(name.endswith("map") for name in names)
    store = FeatureStore(str(tmp_path))
    store.add(extractor, images, names, extraction, batch_size=4)
    stored = Ranker(store, labels, ranking=options).rank()
    assert {row.names: row.mean for row in stored.rows} == pytest.approx(
        {row.names: row.mean for row in direct.rows}, abs=0.02
    )
    costs = {row.names[0]: row.flop_share for row in direct.rows}
    assert 0 < costs["mid-repeat0-res-out"] < costs["mid-repeat1-res-out"] < 0.7
    with pytest.raises(ValueError, match="timesteps must be a single one here"):
        Ranker(extractor, labels, ranking=options, extraction=ExtractionOptions(size=32, timesteps=(1, 2)))


def test_mistakes(toy):
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        RankingOptions(folds=1)
    with pytest.raises(ValueError, match="at most the number of images, 6 here, got 9"):
        Ranker(*toy, ranking=RankingOptions(folds=9))
    with pytest.raises(LookupError, match="matches none"):
        Ranker(*toy, ranking=RankingOptions(folds=2)).rank("vae-*")
    features, labels = toy
    few = Features({name: value[:2] for name, value in features.items()}, META)
    with pytest.raises(ValueError, match="must be of the 6 labelled images, got 2"):
        Ranker(few, labels, ranking=RankingOptions(folds=2)).rank()
