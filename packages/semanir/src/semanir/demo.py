# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a photograph, noise, and what takes it away again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.cli import OnProgress
from common_kernels.runtime.files import make_folder
from common_kernels.runtime.images import read_image, write_image
from common_kernels.runtime.pictures import Panel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semanir.evaluation.methods import run_baseline
from semanir.evaluation.protocol import Protocol
from semanir.metrics import psnr, ssim
from semanir.options import DemoOptions, PhotographName
from semanir.pictures import compare_details
from semanir.restorer import Restorer


def _inside() -> NDArray[np.uint8]:
    return np.asarray(read_image(Path(__file__).parent / "photographs" / "chelsea.webp").pixels, np.uint8)


def _sample(name: PhotographName) -> NDArray[np.uint8]:
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            f'the photograph {name} needs scikit-image: pip install "semanir[baselines]"'
        ) from error
    return getattr(data, name)()


PHOTOGRAPHS: dict[PhotographName, Callable[[], NDArray[np.uint8]]] = {
    "chelsea": _inside,
    "astronaut": partial(_sample, "astronaut"),
    "coffee": partial(_sample, "coffee"),
    "rocket": partial(_sample, "rocket"),
}


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """What the demonstration measured; PSNR in dB, times in seconds.

    The baseline is None where scikit-image is not installed.
    """

    photograph: str
    sigma: float
    psnr_noisy: float
    psnr_baseline: float | None
    psnr: float
    ssim_noisy: float
    ssim_baseline: float | None
    ssim: float
    seconds_baseline: float | None
    seconds: float

    def to_dict(self) -> dict[str, str | float | None]:
        """Return plain values, rounded to what is meaningful."""
        return {
            key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def run_demo(
    restorer: Restorer, output: Path, options: DemoOptions, *, progress: OnProgress | None = None
) -> DemoFigures:
    """Add noise to a photograph, remove it, measure, and write the images.

    Args:
        restorer: The denoiser.
        output: Folder for ``noisy.png``, ``restored.png``, ``comparison.png`` and, with scikit-image,
            ``baseline.png``.
        options: Photograph and noise.
        progress: Called with tiles done and tiles in all.

    Returns:
        The figures. The baseline, non-local means, knows the noise level; the network does not.
    """
    sigma = options.sigma
    make_folder(output)
    clean = PHOTOGRAPHS[options.photograph]()
    noisy = clean / 255 + np.random.default_rng(options.seed).normal(0, sigma / 255, clean.shape)
    images, seconds = {"noisy": _to_8bit(noisy)}, {}
    protocol = Protocol(task="denoise", sigma=sigma)
    if "nlm" in protocol.baselines:
        start = time.perf_counter()
        found = run_baseline("nlm", torch.from_numpy(noisy).permute(2, 0, 1), protocol)
        seconds["baseline"] = time.perf_counter() - start
        images["baseline"] = _to_8bit(found.permute(1, 2, 0).numpy())
    start = time.perf_counter()
    restored = restorer.restore(noisy.astype(np.float32), progress=progress)
    seconds["restored"] = time.perf_counter() - start
    images["restored"] = _to_8bit(restored)
    pairs = {key: (_to_tensor(image), _to_tensor(clean)) for key, image in images.items()}
    psnrs = {key: float(psnr(*pair)) for key, pair in pairs.items()}
    ssims = {key: float(ssim(*pair)) for key, pair in pairs.items()}
    titles = {"noisy": f"noise, sigma {sigma:g}", "baseline": "non-local means", "restored": "SemanIR"}
    panels = [Panel("original", options.photograph, Image.fromarray(clean))]
    for key, image in images.items():
        write_image(image, output / f"{key}.png")
        figures = f"PSNR {psnrs[key]:.2f} dB   SSIM {ssims[key]:.3f}"
        panels.append(Panel(titles[key], figures, Image.fromarray(image)))
    write_image(compare_details(panels), output / "comparison.png")
    return DemoFigures(
        photograph=options.photograph,
        sigma=sigma,
        psnr_noisy=psnrs["noisy"],
        psnr_baseline=psnrs.get("baseline"),
        psnr=psnrs["restored"],
        ssim_noisy=ssims["noisy"],
        ssim_baseline=ssims.get("baseline"),
        ssim=ssims["restored"],
        seconds_baseline=seconds.get("baseline"),
        seconds=seconds["restored"],
    )


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(image).permute(2, 0, 1).double() / 255  # (3, H, W)


def _to_8bit(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.round(image.astype(np.float64).clip(0, 1) * 255).astype(np.uint8)
