# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a photograph, noise, and what takes it away again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common_kernels.runtime.cli import OnProgress
from common_kernels.runtime.files import make_folder
from common_kernels.runtime.images import write_image
from common_kernels.runtime.pictures import Panel
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.restoration import denoise_nl_means

from semanir.options import DemoOptions, PhotographName
from semanir.pictures import compare_details
from semanir.restorer import Restorer

PHOTOGRAPHS: dict[PhotographName, Callable[[], NDArray[np.uint8]]] = {
    "chelsea": data.chelsea,
    "astronaut": data.astronaut,
    "coffee": data.coffee,
    "rocket": data.rocket,
}


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """What the demonstration measured; PSNR in dB, times in seconds."""

    photograph: str
    sigma: float
    psnr_noisy: float
    psnr_baseline: float
    psnr: float
    ssim_noisy: float
    ssim_baseline: float
    ssim: float
    seconds_baseline: float
    seconds: float

    def to_dict(self) -> dict[str, str | float]:
        """Return plain values, rounded to what is meaningful."""
        return {
            key: value if isinstance(value, str) else round(value, 4) for key, value in asdict(self).items()
        }


def run_demo(
    restorer: Restorer, output: Path, options: DemoOptions, *, progress: OnProgress | None = None
) -> DemoFigures:
    """Add noise to a photograph, remove it twice, measure, and write the images.

    Args:
        restorer: The denoiser.
        output: Folder for ``noisy.png``, ``baseline.png``, ``restored.png`` and ``comparison.png``.
        options: Photograph and noise.
        progress: Called with tiles done and tiles in all.

    Returns:
        The figures. The baseline, non-local means, knows the noise level; the network does not.
    """
    sigma = options.sigma
    make_folder(output)
    clean = PHOTOGRAPHS[options.photograph]()
    noisy = clean / 255 + np.random.default_rng(options.seed).normal(0, sigma / 255, clean.shape)
    start = time.perf_counter()
    baseline = denoise_nl_means(
        noisy, patch_size=5, patch_distance=6, h=0.8 * sigma / 255, sigma=sigma / 255, channel_axis=-1
    )
    middle = time.perf_counter()
    restored = restorer.restore(noisy.astype(np.float32), progress=progress)
    end = time.perf_counter()
    images = {"noisy": _to_8bit(noisy), "baseline": _to_8bit(baseline), "restored": _to_8bit(restored)}
    psnr = {key: float(peak_signal_noise_ratio(clean, image)) for key, image in images.items()}
    ssim = {key: _ssim(clean, image) for key, image in images.items()}
    for key, image in images.items():
        write_image(image, output / f"{key}.png")
    titles = {"noisy": f"noise, sigma {sigma:g}", "baseline": "non-local means", "restored": "SemanIR"}
    panels = [Panel("original", options.photograph, Image.fromarray(clean))]
    for key, image in images.items():
        panels.append(
            Panel(titles[key], f"PSNR {psnr[key]:.2f} dB   SSIM {ssim[key]:.3f}", Image.fromarray(image))
        )
    write_image(compare_details(panels), output / "comparison.png")
    return DemoFigures(
        photograph=options.photograph,
        sigma=sigma,
        psnr_noisy=psnr["noisy"],
        psnr_baseline=psnr["baseline"],
        psnr=psnr["restored"],
        ssim_noisy=ssim["noisy"],
        ssim_baseline=ssim["baseline"],
        ssim=ssim["restored"],
        seconds_baseline=middle - start,
        seconds=end - middle,
    )


def _ssim(clean: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    value: Any = structural_similarity(clean, image, channel_axis=-1)
    return float(value)


def _to_8bit(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.round(image.astype(np.float64).clip(0, 1) * 255).astype(np.uint8)
