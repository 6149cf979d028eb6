# SPDX-License-Identifier: Apache-2.0
import math
import tracemalloc

import numpy as np
import pytest
import torch
from common_kernels.testing import peak_bytes
from pixelsmith import Canvas
from pixelsmith.core.engine import run_stage
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import make_plan
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.core.stage import PatchWork
from pixelsmith.core.steps import plan_steps
from pixelsmith.store import FolderStage, MemoryStage


def plain_loop(denoiser, x, start=0):
    """Denoise the whole canvas at once."""
    x, previous = x[None], None
    for step in range(start, denoiser.num_steps):
        x, previous = denoiser.advance(x, denoiser.predict(x, step, [(0, 0)]), step, previous)
    return x[0]


def whole_noise(config, clean):
    return CellNoise(config.seed, *clean.shape).read(0, 0, *clean.shape[1:])


@pytest.mark.parametrize("model", ["Mixing", "TwoStep"])
@pytest.mark.parametrize("mode", ["parallel", "official"])
def test_one_patch_and_one_guided_step_is_image_to_image(toys, mode, model):
    clean, config = toys.latents(4, 32, 32), toys.job(patch=32, slider=1, mode=mode)
    denoiser = getattr(toys, model)()
    start = denoiser.add_noise(clean, whole_noise(config, clean), 0)
    found = run_stage(denoiser, clean, config).data
    assert (found - plain_loop(denoiser, start)).abs().max() <= 2e-5


@pytest.mark.parametrize("model", ["Mixing", "TwoStep"])
def test_one_patch_from_noise_without_guidance_is_plain_generation(toys, model):
    clean, config = toys.latents(4, 32, 32), toys.job(patch=32, slider=0, start="noise")
    denoiser = getattr(toys, model)()
    found = run_stage(denoiser, clean, config).data
    assert torch.equal(found, plain_loop(denoiser, whole_noise(config, clean)))
    assert torch.equal(run_stage(denoiser, 5 * clean + 1, config).data, found)


@pytest.mark.parametrize("mode", ["parallel", "official"])
def test_after_guided_steps_half_of_the_positions_are_guidance(toys, mode):
    clean, config = toys.latents(4, 16, 16), toys.job(slider=8, mode=mode)
    denoiser, noise, shares = toys.Mixing(8), whole_noise(config, clean), []

    def look(progress, canvas):
        level = denoiser.add_noise(clean, noise, progress.step + 1)
        same = (canvas.data == level).all(dim=0)
        shares.append(same.float().mean().item())
        board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0
        assert progress.step == 7 or torch.equal(same, board) or torch.equal(same, ~board)

    run_stage(denoiser, clean, config, on_step=look)
    assert shares[:7] == [0.5] * 7
    assert shares[7] < 0.5


@pytest.mark.parametrize("plan", ["cover", "jitter", "grid"])
@pytest.mark.parametrize("slider", [0, 1, 4, 8])
def test_ideal_denoiser_returns_the_clean_latents(toys, plan, slider):
    clean = toys.latents(4, 30, 43)
    config = toys.job(plan=plan, slider=slider, wrap="horizontal", batch_size=3)
    found = run_stage(toys.ideal(clean, config), clean, config).data
    assert (found - clean).abs().max() <= 2e-5


def test_official_mode_misses_the_clean_latents_beyond_one_guided_step(toys):
    clean, errors = toys.latents(4, 40, 40), {}
    for slider in (1, 5):
        config = toys.job(slider=slider, mode="official")
        found = run_stage(toys.ideal(clean, config), clean, config).data
        errors[slider] = (found - clean).abs().max().item()
    assert errors[1] <= 2e-5
    assert errors[5] > 0.05


def test_sixteen_channels_of_a_flow_model(toys):
    class Flow(toys.Ideal):
        def add_noise(self, clean, noise, step):
            sigma = 1 - step / self.num_steps
            return (1 - sigma) * clean + sigma * noise

        def noise_in(self, x, step, origins):
            eps = super().noise_in(x, step, origins)
            sigma = 1 - step / self.num_steps
            if sigma == 1:  # no signal is left in the noise: only the model knows
                clean = torch.stack([wide.read(*place, *x.shape[2:]) for place in origins])
                return eps - clean
            return eps - (x - sigma * eps) / (1 - sigma)

        def advance(self, x, prediction, step, previous):
            return x - prediction / self.num_steps, None

    clean = toys.latents(16, 24, 30)
    wide, config = Canvas(clean), toys.job(slider=4)
    denoiser = Flow(CellNoise(config.seed, *clean.shape))
    assert (run_stage(denoiser, clean, config).data - clean).abs().max() <= 2e-5


def test_a_slider_map_guides_where_it_says(toys):
    """Where nothing is guided, the result is that of an unguided run."""
    clean, denoiser = toys.latents(4, 16, 96), toys.Mixing(1)
    found = {
        slider: run_stage(denoiser, clean, toys.job(slider=slider, plan="grid")).data
        for slider in (0, 1, ((0, 1),))
    }
    assert torch.equal(found[((0, 1),)][..., :48], found[0][..., :48])
    assert torch.equal(found[((0, 1),)][..., 48:], found[1][..., 48:])
    assert not torch.equal(found[0][..., 48:], found[1][..., 48:])
    even = run_stage(toys.Mixing(6), clean, toys.job(slider=((3, 3), (3, 3))))
    assert torch.equal(even.data, run_stage(toys.Mixing(6), clean, toys.job(slider=3)).data)


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((128, 144), (64, 64)),
        ((129, 128), (64, 64)),
        ((64, 256), (64, 64)),
        ((65, 127), (64, 64)),
        ((40, 90), (40, 64)),
        ((21, 19), (16, 16)),
        ((8, 8), (8, 8)),
    ],
)
@pytest.mark.parametrize("wrap", ["none", "both"])
def test_sizes(toys, size, patch, wrap):
    denoiser = toys.Mixing(2)
    config = toys.job(patch=64, slider=1, patch_multiple=8, wrap=wrap)
    out = run_stage(denoiser, toys.latents(4, *size)[None], config)
    assert out.size == size
    assert {shape for _, _, shape in denoiser.batches} == {patch}
    assert out.data.isfinite().all()


@pytest.mark.parametrize(
    "timesteps", [[801, 601, 401, 201, 1], [800, 600, 400, 200, 0], [999, 799, 599, 399, 199], [999, 749, 0]]
)
def test_every_schedule_runs_all_its_steps(toys, timesteps):
    """The published code skips the last step of a schedule that ends at timestep 0."""
    denoiser, seen = toys.Mixing(timesteps=timesteps), []
    run_stage(
        denoiser, toys.latents(4, 20, 20), toys.job(slider=2), on_step=lambda p, canvas: seen.append(p.step)
    )
    assert seen == list(range(len(timesteps)))
    assert sorted({step for step, _, _ in denoiser.batches}) == seen


def test_same_seed_same_bytes_and_no_global_state(toys):
    clean, before, numpy_before = toys.latents(4, 30, 30), torch.get_rng_state(), np.random.get_state()[1]
    runs = [run_stage(toys.Mixing(), clean, toys.job(seed=seed)).data.numpy().tobytes() for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]
    stage = run_stage(toys.Mixing(), clean, toys.job(), stage=1).data.numpy().tobytes()
    assert stage != runs[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("model", ["Mixing", "TwoStep"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mapped_files_hold_what_memory_holds(toys, tmp_path, dtype, model):
    clean, config = toys.latents(4, 40, 33), toys.job(wrap="vertical")
    first = run_stage(getattr(toys, model)(), clean, config, store=FolderStage(tmp_path, dtype=dtype))
    second = run_stage(getattr(toys, model)(), clean, config, store=MemoryStage(dtype=dtype))
    assert first.dtype == dtype
    assert torch.equal(first.data, second.data)


def test_progress_counts_patches(toys):
    config, seen = toys.job(slider=2, batch_size=3), []
    plans = [len(make_plan(config, 40, 40, step)) for step in range(4)]
    denoiser = toys.Mixing(4)
    run_stage(denoiser, toys.latents(4, 40, 40), config, on_patch=seen.append, stage=0)
    assert [p.calls for p in seen] == list(range(1, sum(plans) + 1))
    assert [(p.step, p.done, p.total) for p in seen] == [
        (step, done, n) for step, n in enumerate(plans) for done in range(1, n + 1)
    ]
    assert seen[-1].calls_total == sum(plans)
    assert all(p.calls_total >= p.calls for p in seen)
    assert sum(n for _, n, _ in denoiser.batches) == sum(plans)
    assert len(denoiser.batches) == sum(math.ceil(n / 3) for n in plans)


def test_hooks_stop_the_stage(toys):
    clean, config = toys.latents(4, 40, 40), toys.job()
    with pytest.raises(StageInterrupted, match=r"stopped at step 1 of 8, patch 2 of \d+") as stopped:
        run_stage(toys.Mixing(), clean, config, on_patch=lambda p: p.done == 2)
    start = toys.Mixing().add_noise(clean, whole_noise(config, clean), 0)
    assert torch.equal(stopped.value.canvas.data, start)
    states = []
    run_stage(toys.Mixing(), clean, config, on_step=lambda p, canvas: states.append(canvas.data.clone()))
    with pytest.raises(StageInterrupted) as stopped:
        run_stage(toys.Mixing(), clean, config, on_step=lambda p, canvas: p.step == 3)
    assert stopped.value.progress.step == 3
    assert torch.equal(stopped.value.canvas.data, states[3])


def test_wrong_latents_are_refused(toys):
    with pytest.raises(ValueError, match="clean must be the latents of one image, got a batch of 2"):
        run_stage(toys.Mixing(), torch.zeros(2, 4, 32, 32), toys.job())
    with pytest.raises(ValueError, match="the canvas must be at least 8"):
        run_stage(toys.Mixing(), torch.zeros(4, 7, 32), toys.job(patch_multiple=8))


@pytest.mark.parametrize("mode", ["parallel", "official"])
def test_a_patch_makes_nothing_of_the_size_of_the_canvas(toys, mode):
    """Neither torch nor numpy holds as many bytes at once as the canvas has positions."""
    side = 1024
    clean, config = Canvas.zeros(1, side, side), toys.job(patch=64, slider=4, mode=mode)
    canvases = [Canvas.zeros(1, side, side) for _ in range(2)]
    denoiser, noise = toys.Mixing(4), CellNoise(0, 1, side, side)
    tracemalloc.start()
    try:
        plan = make_plan(config, side, side, 1)
        # the bitmap of open positions, a byte each, once per step
        assert tracemalloc.get_traced_memory()[1] < 1.5 * side * side
        work = PatchWork(
            denoiser, config, plan_steps(config, 4), 1, plan, clean, noise, canvases[:1], canvases[1:]
        )

        def take(index):
            work.commit(index, work.settle(index, work.compute([index])[0]))

        last = len(plan) - 1
        take(last)  # fills caches
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        take(last)
        assert tracemalloc.get_traced_memory()[1] - before < side * side
    finally:
        tracemalloc.stop()
    assert 4 * 64 * 64 < peak_bytes(lambda: take(last)) < side * side


@pytest.mark.parametrize("plan", ["cover", "jitter"])
def test_patches_see_the_canvas_mirrored_beyond_its_border(toys, plan):
    class Looking(toys.Mixing):
        def predict(self, x, step, origins):
            self.seen = (x.clone(), list(origins))
            return super().predict(x, step, origins)

    clean, config = toys.latents(3, 40, 52), toys.job(overhang=4, plan=plan, slider=0)
    noise, made = CellNoise(config.seed, 3, 40, 52), make_plan(config, 40, 52, 0)
    state, denoiser = Canvas(toys.latents(3, 40, 52, seed=9)), Looking(4)
    mirrored = np.pad(state.data.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
    reading, writing = [state], [Canvas.zeros(3, 40, 52)]
    work = PatchWork(denoiser, config, plan_steps(config, 4), 0, made, Canvas(clean), noise, reading, writing)
    assert (made.origins < 0).any()
    for index, (row, column) in enumerate(made.origins):
        work.compute([index])
        x, origins = denoiser.seen
        assert np.array_equal(x[0], mirrored[:, row + 4 : row + 20, column + 4 : column + 20])
        assert origins == [(min(max(row, 0), 24), min(max(column, 0), 36))]


@pytest.mark.parametrize("plan", ["cover", "jitter"])
@pytest.mark.parametrize("overhang", [1, 4])
def test_an_even_image_stays_even_to_its_border(toys, plan, overhang):
    """The ideal denoiser of an even image needs no place, so it sees through the mirror, too."""

    class Even(toys.DDIM):
        def noise_in(self, x, step, origins):
            return (x - 0.3 * self.a[step]) / self.b[step]

    clean, config = torch.full((3, 40, 52), 0.3), toys.job(overhang=overhang, plan=plan)
    assert (run_stage(Even(), clean, config).data - clean).abs().max() <= 2e-5


def test_denoisers_with_images_of_their_own_stay_inside(toys):
    class Controlled(toys.Mixing):
        controls = type("Controls", (), {"each": ("an image",)})()

    clean = toys.latents(3, 40, 52)
    found = [run_stage(Controlled(6), clean, toys.job(overhang=overhang)).data for overhang in (0, 4)]
    assert torch.equal(*found)
    assert not torch.equal(run_stage(toys.Mixing(6), clean, toys.job(overhang=4)).data, found[0])
