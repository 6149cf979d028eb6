# SPDX-License-Identifier: Apache-2.0
"""The loop over a flow with 16 channels, as FLUX has it: closed form, order and batches."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from pixelsmith import JobConfig
from pixelsmith.adapters import from_pipeline
from pixelsmith.adapters.callable import CallableDenoiser
from pixelsmith.adapters.schedulers import closed_form
from pixelsmith.core.engine import run_stage
from pixelsmith.core.noise import CellNoise
from pixelsmith.core.plan import make_plan
from tiny_models import tiny_pipeline

CHANNELS, HEIGHT, WIDTH, STEPS = 16, 34, 45, 6


def clean():
    return 0.8 * torch.randn(CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def job(**settings):
    return JobConfig(**{"patch": 16, "patch_multiple": 2, "seed": 3, "overhang": 0, **settings})


@pytest.mark.parametrize("plan", ["cover", "jitter", "grid"])
@pytest.mark.parametrize("wrap", ["none", "both"])
def test_every_cell_is_owned_once(plan, wrap):
    counts = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    found = make_plan(job(plan=plan, wrap=wrap), HEIGHT, WIDTH, 2)
    for index in range(len(found)):
        rows, columns = found.positions(index)
        counts[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] += torch.from_numpy(
            found.fresh(index)
        )
    assert (counts == 1).all()


@pytest.mark.parametrize("plan", ["cover", "jitter"])
@pytest.mark.parametrize("slider", [0, 1, 4, STEPS])
def test_the_true_velocity_leads_to_the_image(plan, slider):
    config = job(plan=plan, slider=slider, wrap="horizontal", batch_size=4)
    latents = clean()
    noise = CellNoise(config.seed, CHANNELS, HEIGHT, WIDTH)
    wide = torch.cat([latents, latents], dim=2)

    def velocity(x, timestep, origins):
        places = [(r, c, *x.shape[2:]) for r, c in origins]
        true = torch.stack([wide[:, r : r + h, c : c + w] for r, c, h, w in places])
        return torch.stack([noise.read(*place) for place in places]) - true

    solver = closed_form(FlowMatchEulerDiscreteScheduler(shift=3.0), STEPS)
    found = run_stage(CallableDenoiser(velocity, solver), latents, config)
    assert (found.data - latents).abs().max() <= 2e-5


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_batches_do_not_change_the_result(family):
    model = from_pipeline(tiny_pipeline(family), "a red ball", num_inference_steps=3)
    start = clean()[: model.channels]
    results = []
    for batch_size in (1, 2, 8):
        denoiser = model.denoiser((HEIGHT * 4, WIDTH * 4), (16, 16))
        results.append(run_stage(denoiser, start, job(slider=2, batch_size=batch_size)).data)
    # the same within what matrix products of another size round
    scale = results[0].abs().max()
    assert (results[1] - results[0]).abs().max() / scale <= 1e-5
    assert (results[2] - results[0]).abs().max() / scale <= 1e-5
    assert (results[0] - start).abs().max() > 0.1


@pytest.mark.parametrize("size", [(32, 36), (33, 16), (10, 48), (45, 31)], ids=str)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_any_number_of_latents(family, size):
    model = from_pipeline(tiny_pipeline(family), "", num_inference_steps=2, guidance_scale=1.0)
    pixels = (size[0] * model.vae_scale_factor, size[1] * model.vae_scale_factor)
    patch = tuple(min(16, side // 2 * 2) for side in size)
    latents = torch.zeros(model.channels, *size)
    found = run_stage(model.denoiser(pixels, patch), latents, job(slider=1))
    assert found.size == size
    assert torch.isfinite(found.data).all()
