# SPDX-License-Identifier: Apache-2.0
"""Properties of every plan, and of every order of its patches."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelsmith import Canvas, JobConfig
from pixelsmith.core.engine import run_stage
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import make_plan
from pixelsmith.core.stage import PatchWork
from pixelsmith.core.steps import plan_steps

SEEDS = st.integers(0, 2**64 - 1)
PLANS = st.sampled_from(["cover", "jitter", "grid"])
WRAPS = st.sampled_from(["none", "vertical", "horizontal", "both"])
SIDES = st.integers(3, 90)


@given(SEEDS, PLANS, WRAPS, SIDES, SIDES, st.integers(0, 7), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_position_has_one_owner_as_published(seed, plan, wrap, height, width, overlap, step):
    config = JobConfig(
        patch=16, patch_multiple=1, seed=seed, plan=plan, wrap=wrap, overlap=overlap, overhang=0
    )
    made = make_plan(config, height, width, step)
    owned = np.zeros((height, width), dtype=np.int64)
    for index in range(len(made)):
        rows, columns = made.positions(index)
        if not config.wraps[0]:
            assert np.all(np.diff(rows) == 1)
        if not config.wraps[1]:
            assert np.all(np.diff(columns) == 1)
        fresh = made.fresh(index)
        assert plan != "cover" or fresh.any()
        owned[np.ix_(rows, columns)] += fresh
    assert (owned == 1).all()


def depth(plan, index):
    """How far each position of the canvas lies inside a patch, by brute force; -1 outside."""
    sides = []
    for axis in (0, 1):
        at = np.arange(plan.size[axis]) - plan.origins[index, axis]
        if plan.wraps[axis]:
            at = at % plan.size[axis]
        inner = np.minimum(at, plan.patch[axis] - 1 - at)
        spans = plan.patch[axis] == plan.size[axis]
        sides.append(np.full_like(inner, plan.patch[axis]) if spans else np.maximum(inner, -1))
    return np.minimum(sides[0][:, None], sides[1])


@given(SEEDS, PLANS, WRAPS, SIDES, SIDES, st.integers(0, 4), st.sampled_from([0, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_patches_share_positions_by_their_depth(seed, plan, wrap, height, width, band, overhang):
    config = JobConfig(patch=16, patch_multiple=1, seed=seed, plan=plan, wrap=wrap, overhang=overhang)
    made = make_plan(config, height, width, 0)
    depths = np.stack([depth(made, index) for index in range(len(made))])
    deepest = depths.max(axis=0)
    assert (
        deepest.min() >= (1 if overhang and plan == "cover" and wrap == "none" else 0) or min(made.size) <= 16
    )
    total, touched = np.zeros((height, width)), np.zeros((height, width), dtype=bool)
    for index in range(len(made)):
        share, is_first = made.shares(index, band)
        part = made.inside(index)
        at = np.ix_(*(along[inner] for along, inner in zip(made.positions(index), part, strict=True)))
        share, is_first = share[part], is_first[part]
        assert ((share > 0) == (depths[index][at] >= np.maximum(deepest[at] - band, 0))).all()
        assert np.array_equal(is_first, (share > 0) & ~touched[at])
        total[at] += share
        touched[at] |= share > 0
    assert np.abs(total - 1).max() <= 1e-6


@given(SEEDS, PLANS, WRAPS, st.integers(0, 4), st.sampled_from([2, 8]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_batches_do_not_change_parallel_mode(toys, seed, plan, wrap, slider, batch_size, average):
    clean = toys.latents(3, 25, 38, seed=seed % 1000)
    more = {"seed": seed, "plan": plan, "wrap": wrap, "slider": slider, "average": average}
    one = run_stage(toys.Mixing(4), clean, toys.job(**more)).data
    many = run_stage(toys.Mixing(4), clean, toys.job(**more, batch_size=batch_size)).data
    assert torch.equal(one, many)


@given(SEEDS, PLANS, st.integers(0, 2), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_patches_of_a_step_may_be_computed_in_any_order(toys, seed, plan, step, shuffler):
    clean, config = Canvas(toys.latents(3, 40, 38)), toys.job(seed=seed, plan=plan, slider=3)
    noise, made = CellNoise(seed, 3, 40, 38), make_plan(config, 40, 38, step)
    found = []
    for order in (list(range(len(made))), shuffler.sample(range(len(made)), len(made))):
        reading, writing = [Canvas(toys.latents(3, 40, 38, seed=9))], [Canvas.zeros(3, 40, 38)]
        steps = plan_steps(config, 4)
        work = PatchWork(toys.Mixing(4), config, steps, step, made, clean, noise, reading, writing)
        results = {}
        while order:  # in batches of up to three
            batch, order = order[:3], order[3:]
            results.update(zip(batch, work.compute(batch), strict=True))
        for index in range(len(made)):
            work.commit(index, work.settle(index, results[index]))
        found.append(writing[0].data)
    assert torch.equal(*found)


@given(SEEDS, PLANS, WRAPS, st.integers(0, 6), st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_an_ideal_denoiser_gives_the_image_back(toys, seed, plan, wrap, slider, mask, average):
    clean = toys.latents(2, 23, 36, seed=seed % 1000)
    config = toys.job(
        seed=seed, plan=plan, wrap=wrap, slider=slider, mask=mask, average=average, batch_size=4
    )
    found = run_stage(toys.ideal(clean, config, num_steps=6), clean, config).data
    assert (found - clean).abs().max() <= 2e-5


@given(SEEDS, st.integers(0, 39), st.integers(0, 49))
@settings(max_examples=8, deadline=None)
def test_a_wrapped_grid_commutes_with_rolling(toys, seed, down, right):
    """A grid that is moved with the image gives the moved result: the seam is nowhere."""
    config = toys.job(seed=seed, plan="grid", wrap="both", slider=2)
    clean, noise = Canvas(toys.latents(2, 40, 50)), CellNoise(seed, 2, 40, 50)
    made = make_plan(config, 40, 50, 0)

    def step(shift):
        plan = type(made)(
            made.size, made.patch, made.wraps, (made.origins + shift) % np.array(made.size), made.coins
        )
        reading, writing = [Canvas(clean.data.roll(shift, (1, 2)))], [Canvas.zeros(2, 40, 50)]
        moved = Canvas(noise.read(0, 0, 40, 50).roll(shift, (1, 2)))
        work = PatchWork(
            toys.Mixing(3), config, plan_steps(config, 3), 0, plan, reading[0], moved, reading, writing
        )
        for index in range(len(plan)):
            work.commit(index, work.settle(index, work.compute([index])[0]))
        return writing[0].data

    assert torch.equal(step((0, 0)).roll((down, right), (1, 2)), step((down, right)))
