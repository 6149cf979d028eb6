# SPDX-License-Identifier: Apache-2.0
"""Closed forms against the schedulers of diffusers, over all steps, with a network that is no constant."""

import copy

import diffusers
import pytest
import torch
from pixelsmith.adapters.schedulers import closed_form

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = [("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)]


def network(x, timestep):
    return torch.tanh(x.flip(-1) * 0.7 + 0.1) + 0.001 * float(timestep)


def run_diffusers(scheduler, steps, x, **kwargs):
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps, **kwargs)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(seen, t), t, x, return_dict=False)[0]
    return x, len(scheduler.timesteps)


def run_ours(form, x):
    previous = None
    for k in range(form.num_steps):
        output = network(form.scale_input(x, k), form.timesteps[k])
        x, previous = form.advance(x, output, k, previous)
    return x


def assert_same(scheduler, steps, *, tolerance=1e-6, **kwargs):
    form = closed_form(scheduler, steps, **kwargs)
    x = form.initial(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3)).double())
    theirs, count = run_diffusers(scheduler, steps, x.clone(), **kwargs)
    assert form.num_steps == count == steps
    ours = run_ours(form, x)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs.double(), rtol=tolerance, atol=tolerance)
    return form


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS[:3])
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim(prediction, spacing, offset, steps):
    scheduler = diffusers.DDIMScheduler(
        **SDXL,
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    assert_same(scheduler, steps)


@pytest.mark.parametrize("one", [True, False])
def test_ddim_clips_and_ends_as_told(one):
    scheduler = diffusers.DDIMScheduler(
        **SDXL, clip_sample=True, clip_sample_range=0.7, set_alpha_to_one=one, steps_offset=1
    )
    assert_same(scheduler, 20)


def test_ddim_without_signal_at_the_start():
    settings = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    scheduler = diffusers.DDIMScheduler(**SDXL, **settings, prediction_type="v_prediction")
    assert assert_same(scheduler, 25).signal[0] < 1e-6
    scheduler = diffusers.DDIMScheduler(**SDXL, **settings)
    scheduler.alphas_cumprod[-1] = 0
    with pytest.raises(ValueError, match="says nothing at a level without signal"):
        closed_form(scheduler, 25)


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 50), ("linspace", 7), ("trailing", 30)])
def test_ddim_goes_from_each_listed_timestep_to_the_next(spacing, steps):
    # diffusers' own DDIM misses the next timestep here; its first-order DPM-Solver++ does not
    ddim = diffusers.DDIMScheduler(**SDXL, clip_sample=False, timestep_spacing=spacing)
    form = closed_form(ddim, steps)
    assert form.num_steps == steps
    witness = diffusers.DPMSolverMultistepScheduler(**SDXL, solver_order=1)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    theirs, _ = run_diffusers(witness, None, x.clone(), timesteps=form.timesteps.tolist())
    torch.testing.assert_close(run_ours(form, x), theirs.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_euler(prediction, spacing, offset):
    scheduler = diffusers.EulerDiscreteScheduler(
        **SDXL, prediction_type=prediction, timestep_spacing=spacing, steps_offset=offset
    )
    for steps in (1, 30):
        assert_same(scheduler, steps, tolerance=3e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
    ],
    ids=str,
)
def test_euler_options(options):
    assert_same(diffusers.EulerDiscreteScheduler(**SDXL, **options), 12, tolerance=3e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(shift):
    assert_same(diffusers.FlowMatchEulerDiscreteScheduler(shift=shift), 28)


def test_flow_with_dynamic_shift_and_sigmas_of_its_own():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    form = assert_same(scheduler, 10, mu=0.9)
    sigmas = [1.0, 0.6, 0.2]
    own = closed_form(diffusers.FlowMatchEulerDiscreteScheduler(), None, sigmas=sigmas)
    assert own.noise == pytest.approx((*sigmas, 0.0))
    assert form.signal[0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="must begin above the noiseless level"):
        closed_form(diffusers.FlowMatchEulerDiscreteScheduler(), None, sigmas=[1.0, 0.0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 3, 14, 20])
def test_dpm_solver_2m(prediction, solver, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(**SDXL, prediction_type=prediction, solver_type=solver)
    form = assert_same(scheduler, steps, tolerance=1e-5)
    assert form.multistep == (steps > 1)


@pytest.mark.parametrize(
    "options",
    [
        {"use_karras_sigmas": True},
        {"use_lu_lambdas": True},
        {"final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False},
        {"solver_order": 1},
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_dpm_solver_options(options, spacing, offset):
    settings = {**SDXL, "timestep_spacing": spacing, "steps_offset": offset, **options}
    assert_same(diffusers.DPMSolverMultistepScheduler(**settings), 18, tolerance=1e-5)


def test_several_schedules_run_all_their_steps_to_the_clean_latents():
    """An ideal network returns the noise it was given: every solver must then return the clean latents."""
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    for scheduler in (
        *(
            kind(**SDXL, timestep_spacing=spacing, steps_offset=offset, **more)
            for kind, more in (
                (diffusers.DDIMScheduler, {"clip_sample": False}),
                (diffusers.EulerDiscreteScheduler, {}),
                (diffusers.DPMSolverMultistepScheduler, {}),
            )
            for spacing, offset in SPACINGS
        ),
    ):
        form = closed_form(scheduler, 13)
        x, previous = form.add_noise(clean, noise, 0), None
        for k in range(form.num_steps):
            torch.testing.assert_close(x, form.add_noise(clean, noise, k), rtol=1e-9, atol=1e-9)
            x, previous = form.advance(x, noise, k, previous)
        torch.testing.assert_close(x, clean, rtol=1e-9, atol=1e-9)
        assert form.add_noise(clean, noise, 13) is clean


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("PNDM", {}, "got PNDMScheduler; set pipe.scheduler = DDIMScheduler"),
        ("EulerAncestralDiscrete", {}, "got EulerAncestralDiscreteScheduler"),
        ("UniPCMultistep", {}, "got UniPCMultistepScheduler"),
        ("DDIM", {"thresholding": True}, "thresholding of DDIMScheduler must be False"),
        ("DPMSolverMultistep", {"solver_order": 3}, "solver_order of .* must be 1 or 2 for .* got 3"),
        ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type of DPM"),
        ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, "stochastic_sampling of Flow"),
    ],
)
def test_what_has_no_closed_form_is_refused_by_name(name, options, reason):
    with pytest.raises(ValueError, match=reason):
        closed_form(getattr(diffusers, f"{name}Scheduler")(**options), 10)


def test_the_scheduler_given_is_left_alone():
    scheduler = diffusers.DPMSolverMultistepScheduler(**SDXL)
    before = scheduler.timesteps.clone()
    closed_form(scheduler, 5)
    assert torch.equal(scheduler.timesteps, before)


def test_wrong_calls_are_named():
    form = closed_form(diffusers.DPMSolverMultistepScheduler(**SDXL), 5)
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match=r"step must lie in \[0, 5\], got 6"):
        form.add_noise(x, x, 6)
    with pytest.raises(ValueError, match="needs the clean prediction of the step before"):
        form.advance(x, x, 1, None)
    with pytest.raises(ValueError, match="does not take custom sigmas"):
        closed_form(diffusers.DDIMScheduler(**SDXL), None, sigmas=[1.0, 0.5])


def test_half_precision_latents_are_stepped_in_float32():
    form = closed_form(diffusers.DDIMScheduler(**SDXL, clip_sample=False), 10)
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    result, state = form.advance(x, x, 9)
    assert result.dtype == torch.float16
    assert state is None
    exact, _ = form.advance(x.float(), x.float(), 9)
    assert torch.equal(result, exact.half())
