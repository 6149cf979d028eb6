# SPDX-License-Identifier: Apache-2.0
"""Inversion: formulas of the predictions, and a sampler run backwards."""

import pytest
import torch
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.inversion import invert, prediction_type, rising, split
from diffeat.schedule import NoiseLevel
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level(signal: float, factor: float, timestep: int = 1) -> NoiseLevel:
    return NoiseLevel(timestep=timestep, effective=float(timestep), signal=signal, noise=factor)


@pytest.mark.parametrize(
    ("kind", "at"),
    [("epsilon", (0.6, 0.8)), ("v_prediction", (0.6, 0.8)), ("sample", (0.6, 0.8)), ("flow", (0.7, 0.3))],
)
def test_a_right_prediction_is_split_into_clean_and_noise(kind, at) -> None:
    clean, eps = noise(1, 4, 3, 3), noise(1, 4, 3, 3, seed=1)
    a, b = at
    output = {"epsilon": eps, "sample": clean, "v_prediction": a * eps - b * clean, "flow": eps - clean}[kind]
    found = split(a * clean + b * eps, output, level(a, b), kind)
    torch.testing.assert_close(found[0], clean)
    torch.testing.assert_close(found[1], eps)


def test_a_model_that_knows_its_noise_is_inverted_to_it() -> None:
    latents, eps = noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1)
    levels = [level(1.0, 0.0), level(0.9, 0.19**0.5), level(0.6, 0.8)]
    found = invert(latents.float(), levels, lambda *_: eps.float(), "epsilon")
    torch.testing.assert_close(found.double(), 0.6 * latents + 0.8 * eps, rtol=1e-5, atol=1e-5)


def test_kinds_of_schedulers() -> None:
    assert prediction_type(DDIMScheduler()) == "epsilon"
    assert prediction_type(DDIMScheduler(prediction_type="v_prediction")) == "v_prediction"
    assert prediction_type(FlowMatchEulerDiscreteScheduler()) == "flow"
    with pytest.raises(ValueError, match="object has None"):
        prediction_type(object())


def test_steps_rise_to_the_timestep() -> None:
    assert rising(50, 3) == (0, 17, 33, 50)
    assert rising(2, 10) == (0, 1, 2)
    assert rising(0, 10) == (0,)


def test_an_inversion_follows_the_equation(fresh, images) -> None:
    """Against the equation of arXiv 2010.02502, Eq. 13, worked out here with the schedule's own alphas."""
    pipeline = fresh("SD1.5")
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipeline.scheduler = DDIMScheduler(**config, timestep_spacing="trailing", set_alpha_to_one=False)
    extractor = FeatureExtractor(pipeline)
    options = ExtractionOptions(size=64, timesteps=(3,), noise="inverted", inversion_steps=3)
    found = extractor(images[:1], "unet-in", options)["unet-in"]
    clean = extractor(images[:1], "unet-in", ExtractionOptions(size=64, timesteps=(0,)))["unet-in"]
    conditions = extractor.adapter.conditions(pipeline, [""], (64, 64), extractor.device, extractor.dtype)
    alphas = pipeline.scheduler.alphas_cumprod
    latent = clean.double()
    # timesteps 0 (clean) and 1 to 3 count the noise levels 0 to 2 of the schedule
    before = torch.tensor(1.0, dtype=torch.float64)
    for index, after in enumerate(alphas[:3].double()):
        with torch.no_grad():
            eps = pipeline.unet(
                latent.float(), torch.tensor([max(index - 1, 0)]), **conditions
            ).sample.double()
        start = (latent - (1 - before).sqrt() * eps) / before.sqrt()
        latent = after.sqrt() * start + (1 - after).sqrt() * eps
        before = after
    torch.testing.assert_close(found.double(), latent, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, clean, atol=1e-3)


@pytest.mark.parametrize("family", ["PixArt", "Hunyuan", "SD3", "Sana", "Lumina2", "Wan"])
def test_every_family_inverts(pipelines, images, family) -> None:
    extractor = FeatureExtractor(pipelines(family))
    options = ExtractionOptions(size=64, timesteps=(40,), noise="inverted", inversion_steps=1)
    name = str(extractor.list_activations(size=None)[-1].name)
    assert extractor(images[:1], name, options)[name].isfinite().all()


def test_packed_latents_are_refused(pipelines, images) -> None:
    options = ExtractionOptions(size=64, noise="inverted")
    with pytest.raises(NotImplementedError, match="a denoiser whose output has the shape of the latent"):
        FeatureExtractor(pipelines("Flux"))(images[:1], "vit-block0-out", options)


def test_a_clean_latent_meets_its_timestep(pipelines, images) -> None:
    extractor = FeatureExtractor(pipelines("SD1.5"))
    options = ExtractionOptions(size=64, timesteps=(200,), noise="none")
    found = extractor(images, ["unet-in", "mid-vit-out"], options)
    clean = extractor(images, ["unet-in", "mid-vit-out"], ExtractionOptions(size=64, timesteps=(0,)))
    assert torch.equal(found["unet-in"], clean["unet-in"])
    assert not torch.equal(found["mid-vit-out"], clean["mid-vit-out"])  # another timestep
    (only,) = found.meta.noise_levels
    assert (only.timestep, only.noise) == (200, 0.0)
