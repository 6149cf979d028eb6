# SPDX-License-Identifier: Apache-2.0
"""``mode="official"`` against the published loop, written down with whole arrays as its code keeps them."""

import pytest
import torch
from pixelsmith.core.engine import run_stage
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import make_plan
from pixelsmith.store import MemoryStage


def published_fusion(x, guide):
    spectrum, other = torch.fft.rfft2(x, norm="ortho"), torch.fft.rfft2(guide, norm="ortho")
    one = torch.ones(())
    mean = (torch.polar(one, spectrum.angle()) + torch.polar(one, other.angle())).angle()
    return torch.fft.irfft2(torch.polar(spectrum.abs(), mean), s=x.shape[-2:], norm="ortho")


def published_band(fresh):
    pad = min(10, min(fresh.shape) - 1)
    padded = torch.nn.functional.pad(fresh[None, None].float(), [pad] * 4, mode="reflect")
    return (torch.nn.functional.avg_pool2d(padded, 2 * pad + 1, stride=1)[0, 0] > 0) & ~fresh


def published_states(denoiser, clean, config):
    """Yield the canvas after every patch."""
    s, N = config.slider, denoiser.num_steps
    noise = CellNoise(config.seed, *clean.shape).read(0, 0, *clean.shape[1:])
    guidance = [denoiser.add_noise(clean, noise, k) for k in range(min(s, N))]
    canvas = guidance[0]  # one memory with the first guidance, as published
    snapshot = canvas.clone()
    steps_done = torch.zeros(clean.shape[1:], dtype=torch.int32)
    for k in range(N):
        plan = make_plan(config, *clean.shape[1:], k)
        for index in range(len(plan)):
            (i, j), (P, Q) = plan.origin(index), plan.patch
            at = (slice(i, i + P), slice(j, j + Q))
            x, fresh = canvas[:, *at].clone(), steps_done[at] == k
            if k < s:
                x = published_fusion(x, guidance[k][:, *at])
            if not fresh.all():
                x = torch.where(fresh, x, snapshot[:, *at])
            prediction = denoiser.predict(x[None], k, [(i, j)])
            y = denoiser.advance(x[None], prediction, k, None)[0][0]
            if k < s - 1:
                left, down = plan.coin_pair(index)
                board = (torch.arange(P)[:, None] + torch.arange(Q) + left + down) % 2 == 0
                y = torch.where(board, guidance[k + 1][:, *at], y)
            held = canvas[:, *at].clone()
            mean = torch.where(published_band(fresh), (y + held) / 2, held)
            canvas[:, *at] = torch.where(fresh, y, mean)
            steps_done[at] = torch.where(fresh, k + 1, steps_done[at])
            yield canvas.clone()
        assert (steps_done == k + 1).all()
        snapshot = canvas.clone()


@pytest.mark.parametrize("slider", [1, 3, 6])
@pytest.mark.parametrize("plan", ["cover", "jitter"])
def test_every_patch_follows_the_published_loop(toys, slider, plan):
    clean, config = toys.latents(4, 30, 41), toys.job(mode="official", slider=slider, plan=plan, band=10)
    expected = list(published_states(toys.Mixing(6), clean, config))
    found = []

    canvases = []

    class Watched(MemoryStage):
        def canvases(self, names, *shape):
            canvases.extend(super().canvases(names, *shape))
            return canvases

    def watch(progress):
        # positions that this step has not reached yet still lie on the other canvas
        plan_now = make_plan(config, 30, 41, progress.step)
        reached = torch.zeros(30, 41, dtype=torch.bool)
        for index in range(progress.done):
            (i, j), (P, Q) = plan_now.origin(index), plan_now.patch
            reached[i : i + P, j : j + Q] = True
        old, new = canvases[progress.step % 2].data, canvases[1 - progress.step % 2].data
        found.append(torch.where(reached, new, old))

    run_stage(toys.Mixing(6), clean, config, store=Watched(), on_patch=watch)
    assert len(found) == len(expected)
    errors = [(a - b).abs().max().item() for a, b in zip(found, expected, strict=True)]
    assert max(errors) <= 2e-5


def test_guided_official_steps_go_one_by_one_the_others_in_batches(toys):
    denoiser = toys.Mixing(6)
    config = toys.job(mode="official", slider=3, batch_size=4)
    run_stage(denoiser, toys.latents(4, 40, 40), config)
    largest = {step: max(n for at, n, _ in denoiser.batches if at == step) for step in range(6)}
    assert largest == {0: 4, 1: 1, 2: 1, 3: 4, 4: 4, 5: 4}
