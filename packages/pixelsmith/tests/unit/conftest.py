# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pixelsmith.io.vae import Tiling
from pixelsmith.job import FolderStore, Job, JobSpec
from torch import nn


class Blocks(nn.Module):
    """An autoencoder without a network: a latent is the mean colour of 2 x 2 pixels."""

    use_tiling = False
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.config = {"block_out_channels": (1, 1), "latent_channels": 3, "scaling_factor": 2.0}

    def encode(self, x):
        return SimpleNamespace(latents=nn.functional.avg_pool2d(x, 2))

    def decode(self, z, return_dict=True):
        return (nn.functional.interpolate(z, scale_factor=2.0, mode="nearest"),)


def kl_autoencoder():
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            latent_channels=3,
            norm_num_groups=4,
            sample_size=32,
            scaling_factor=0.7,
            mid_block_add_attention=False,
        )
    return vae.eval().requires_grad_(False)


class Straight:
    """A schedule in which signal and noise change evenly; the model mixes neighbours."""

    multistep = False
    device = torch.device("cpu")

    def __init__(self, model):
        self.model = model
        self.num_steps = model.num_steps

    def initial(self, noise):
        return noise

    def add_noise(self, clean, noise, step):
        return torch.lerp(noise, clean, 0.1 + 0.9 * step / self.num_steps)

    def predict(self, x, step, origins):
        self.model.calls.append((step, len(x)))
        self.model.before_call(len(self.model.calls))
        near = x.roll(1, -1) + 0.5 * x.roll(-1, -2)
        return torch.clamp(0.7 * x + 0.2 * near + 0.01 * step, -3, 3)

    def advance(self, x, prediction, step, previous):
        return torch.lerp(x, prediction, 1 / (self.num_steps - step + 1)), None


class Dummy:
    """A model for jobs that takes no time; counts its calls."""

    channels, vae_scale_factor, patch, patch_multiple = 3, 2, 16, 2
    device = torch.device("cpu")

    def __init__(self, vae=None, num_steps=3, **options):
        self.vae = Blocks() if vae is None else vae
        self.num_steps = num_steps
        self.options = {"prompt": "a boat", **options}
        self.name = "dummy"
        self.calls = []
        self.bases = []

    def before_call(self, number):
        """Call the hook of a test."""

    def denoiser(self, size, patch):
        if self.num_steps == 13:
            raise ValueError("scheduler Unlucky has no closed form; use DDIMScheduler")
        return Straight(self)

    def base_image(self, size, seed):
        self.bases.append((size, seed))
        return scene(size, seed)

    def describe(self):
        return {"name": self.name, "num_steps": self.num_steps, **self.options}


def scene(size, seed=0):
    """Smooth colours with some grain, ``(H, W, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(size[0]), 2 * np.arange(size[1]))[..., None] + np.array([0, 60, 120])
    return (127 + 100 * np.sin(ramp / 17) + rng.integers(0, 9, (*size, 3))).astype(np.uint8)


def spec(sizes=((48, 56),), source_size=(24, 28), **settings):
    """Return a job from a base image; settings of the loop or of the job."""
    from pixelsmith import JobConfig

    names = ("source", "source_digest", "sliders", "canvas", "max_pixels", "tiling", "fit")
    own = {name: settings.pop(name) for name in names if name in settings}
    config = JobConfig(**{"patch": 16, "patch_multiple": 2, "band": 3, **settings})
    tiling = Tiling(tile=10, halo=3)
    return JobSpec(sizes=tuple(sizes), source_size=source_size, config=config, **{"tiling": tiling, **own})


def finish(folder, model=None, *, output=None, **settings):
    """Run a job to its end and return its pixels and its result."""
    result = Job(model or Dummy(), spec(**settings), FolderStore(folder, durable=False)).run(output)
    return result.image.array, result


@pytest.fixture(scope="session")
def dummies():
    """Models that take no time, and jobs for them."""
    return SimpleNamespace(
        Dummy=Dummy, Blocks=Blocks, kl_autoencoder=kl_autoencoder, scene=scene, spec=spec, finish=finish
    )
