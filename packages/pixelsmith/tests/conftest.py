# SPDX-License-Identifier: Apache-2.0
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pixelsmith import JobConfig
from pixelsmith.core.noise import CellNoise


def _load(name):
    """Make a file beside this one importable: these folders are not packages."""
    found = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(sys.modules[name])


_load("tiny_models")
_load("published")


def alphabars(num_train=1000):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, num_train, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


class DDIM:
    """A schedule without a model: subclasses predict the noise."""

    multistep = False
    device = torch.device("cpu")

    def __init__(self, num_steps=8, timesteps=None):
        step = 1000 // num_steps
        self.timesteps = timesteps or [step * k + 1 for k in reversed(range(num_steps))]
        self.num_steps = len(self.timesteps)
        levels = [float(alphabars()[t]) for t in self.timesteps] + [1.0]
        self.a, self.b = [x**0.5 for x in levels], [(1 - x) ** 0.5 for x in levels]
        self.batches = []

    def initial(self, noise):
        return noise

    def add_noise(self, clean, noise, step):
        return self.a[step] * clean + self.b[step] * noise

    def advance(self, x, prediction, step, previous):
        clean = (x - self.b[step] * prediction) / self.a[step]
        return self.a[step + 1] * clean + self.b[step + 1] * prediction, None

    def predict(self, x, step, origins):
        self.batches.append((step, len(x), tuple(x.shape[2:])))
        return self.noise_in(x, step, origins)


class Ideal(DDIM):
    """Finds the noise exactly."""

    def __init__(self, noise, **schedule):
        super().__init__(**schedule)
        self.noise = noise

    def noise_in(self, x, step, origins):
        return torch.stack([self.noise.read(*place, *x.shape[2:]) for place in origins])


class Mixing(DDIM):
    """Mixes neighbours nonlinearly, each sample by itself, so that any difference would spread."""

    def noise_in(self, x, step, origins):
        near = x.roll(1, -1) + 0.5 * x.roll(-1, -2) + 0.25 * x.roll(1, 1)
        return torch.clamp(0.6 * x + 0.2 * near + 0.01 * step, -3, 3)


class Coupled(Mixing):
    """Gives a sample values that depend on the others of its batch, and on its place among them.

    An exaggeration of what matrix products do by rounding.
    """

    def noise_in(self, x, step, origins):
        place = torch.arange(len(x)).view(-1, 1, 1, 1)
        return super().noise_in(x, step, origins) + 0.05 * x.mean() + 0.01 * place


class TwoStep(Mixing):
    """Uses the clean estimate of the step before."""

    multistep = True

    def advance(self, x, prediction, step, previous):
        assert (previous is None) == (step == 0)
        clean = (x - self.b[step] * prediction) / self.a[step]
        used = clean if previous is None else 1.25 * clean - 0.25 * previous
        return self.a[step + 1] * used + self.b[step + 1] * prediction, clean


def latents(channels, height, width, seed=0):
    return 0.8 * torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))


def ideal(clean, config, **schedule):
    return Ideal(CellNoise(config.seed, *clean.shape), **schedule)


def job(**settings):
    return JobConfig(**{"patch": 16, "slider": 5, "patch_multiple": 1, "overhang": 0, **settings})


@pytest.fixture(scope="session")
def toys():
    """Denoisers in closed form, latents and small jobs."""
    return SimpleNamespace(DDIM=DDIM, Ideal=Ideal, Mixing=Mixing, Coupled=Coupled, TwoStep=TwoStep,
                           ideal=ideal, latents=latents, job=job)  # fmt: skip
