# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from pixelsmith.core.plan import estimate_calls, make_plan, patch_side


def counts(toys, side, seeds, **settings):
    given = {"patch": 128, "overhang": 0, **settings}
    found = [len(make_plan(toys.job(seed=s, **given), side, side, 0)) for s in range(seeds)]
    return np.mean(found), min(found), max(found)


def test_cover_without_overhang_takes_as_many_calls_as_the_published_law(toys):
    published = {"mode": "official", "overhang": None}  # whose patches end at the border
    mean, least, most = counts(toys, 256, 200, **published)
    assert mean == pytest.approx(8.08, abs=0.3)
    assert least >= 4
    assert most <= 14
    assert counts(toys, 512, 200, **published)[0] == pytest.approx(36.0, abs=0.7)
    assert counts(toys, 128, 3, **published) == (1, 1, 1)


@pytest.mark.parametrize(("side", "published"), [(192, 5.24), (256, 8.08), (384, 20.4), (512, 36.0)])
def test_reaching_over_the_border_costs_at_most_15_percent_more_calls(toys, side, published):
    assert counts(toys, side, 60, overhang=None)[0] <= 1.15 * published


def test_patches_of_a_border_end_at_many_places(toys):
    """Without overhang they all end one patch away from it, in every step."""
    ends = {0: set(), 16: set()}
    for overhang, found in ends.items():
        config = toys.job(patch=128, overhang=overhang)
        for step in range(20):
            for row, _ in make_plan(config, 512, 512, step).origins:
                found |= {row + 128} if row <= 0 else set()
    assert ends[0] == {128}
    assert len(ends[16]) >= 12
    assert min(ends[16]) >= 112


def test_the_outermost_row_of_a_patch_is_never_alone(toys):
    config = toys.job(overhang=2)
    for step in range(10):
        plan = make_plan(config, 50, 70, step)
        inner = np.zeros((50, 70), dtype=bool)
        for row, column in plan.origins:
            inner[max(0, row + 1) : row + 15, max(0, column + 1) : column + 15] = True
        assert inner.all()


def test_no_patch_leaves_a_canvas_that_wraps_or_is_spanned_by_it(toys):
    wide = make_plan(toys.job(overhang=2), 16, 90, 0)
    assert (wide.origins[:, 0] == 0).all()
    assert wide.origins[:, 1].min() < 0
    around = make_plan(toys.job(overhang=2, wrap="both"), 40, 40, 0).origins
    assert around.min() >= 0
    assert around.max() < 40


@pytest.mark.parametrize("side", [256, 384, 512, 1024])
def test_jittered_grid_stays_within_its_bound(toys, side):
    bound = (-(-side // 128) + 1) ** 2
    assert counts(toys, side, 40, plan="jitter")[2] <= bound


def test_jittered_grid_saves_a_quarter_at_4096_pixels(toys):
    assert counts(toys, 512, 40, plan="jitter")[0] <= 0.75 * 36.0


def test_fixed_grid_is_the_least_and_stands_still(toys):
    config = toys.job(patch=128, plan="grid")
    plans = [make_plan(config, 512, 500, step) for step in (0, 1)]
    assert len(plans[0]) == 16
    assert sorted(map(tuple, plans[0].origins)) == sorted(map(tuple, plans[1].origins))


def test_grids_keep_their_overlap(toys):
    for plan in ("grid", "jitter"):
        rows = np.unique(make_plan(toys.job(plan=plan, overlap=6), 100, 16, 3).origins[:, 0])
        assert np.diff(rows).max() <= 10


def test_first_patch_owns_all_later_ones_what_is_left(toys):
    plan = make_plan(toys.job(plan="grid", overlap=4), 28, 16, 0)
    assert len(plan) == 2
    assert plan.fresh(0).all()
    assert plan.fresh(1).sum() == 28 * 16 - 16 * 16


def test_plan_is_one_per_seed_step_and_stage(toys):
    def origins(seed=0, step=0, stage=0):
        return make_plan(toys.job(seed=seed), 90, 90, step, stage=stage).origins.tolist()

    assert origins() == origins()
    assert origins() != origins(seed=1)
    assert origins() != origins(step=1)
    assert origins() != origins(stage=1)


def test_coins_are_fair(toys):
    coins = np.concatenate([make_plan(toys.job(seed=s), 200, 200, 0).coins for s in range(5)])
    assert len(coins) > 500
    assert abs(coins.mean() - 0.5) < 0.06
    assert {tuple(pair) for pair in coins.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_small_canvases_take_smaller_patches(toys):
    config = toys.job(patch=128, patch_multiple=8)
    assert [patch_side(side, config) for side in (1000, 128, 127, 65, 8)] == [128, 128, 120, 64, 8]
    with pytest.raises(
        ValueError, match="the canvas must be at least 8 latents wide and high, got a side of 7"
    ):
        patch_side(7, config)


def test_estimates(toys):
    assert estimate_calls(toys.job(patch=128, plan="grid"), 512, 512, 50) == 800
    assert 1600 < estimate_calls(toys.job(patch=128), 512, 512, 50) < 2000
    jitter = toys.job(patch=16, plan="jitter", seed=5)
    counts = [len(make_plan(jitter, 200, 120, step)) for step in range(4)]
    assert estimate_calls(jitter, 200, 120, 4) == sum(counts)


def test_estimates_of_very_many_patches_draw_a_part_of_them(toys, monkeypatch):
    drawn = []

    def make(config, height, width, step):
        drawn.append((height, width))
        return make_plan(config, height, width, step)

    monkeypatch.setattr("pixelsmith.core.plan.make_plan", make)
    found = estimate_calls(toys.job(patch=4), 100_000, 60, 1)
    assert drawn == [(128, 60)]
    longer = len(make_plan(toys.job(patch=4), 1000, 60, 0))
    assert found == pytest.approx(100 * longer, rel=0.05)
    assert estimate_calls(toys.job(patch=4, plan="grid"), 100_000, 60_000, 3) == 3 * 25_000 * 15_000
