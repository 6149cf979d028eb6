# SPDX-License-Identifier: Apache-2.0
"""How each task is tested; imports no torch, so that command lines read it at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

Task = Literal["denoise", "jpeg", "sr", "demosaic", "deblur", "weather"]
Baseline = Literal["input", "bicubic", "nlm", "tv"]

_MADE = ("denoise", "jpeg", "sr", "demosaic")  # tasks whose degraded images can be made from clean ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How images are degraded and compared.

    Results are clipped and rounded to 8 bits; PSNR and SSIM are taken of each image, then their mean.

    Attributes:
        task: Task: denoise, jpeg, sr, demosaic, deblur or weather.
        sigma: Standard deviation of the noise of denoise, on the scale of [0, 255].
        quality: Quality of jpeg.
        scale: Factor of sr.
        grey: Test on grey images: denoise by their luma, jpeg by MATLAB's Y.
        luma: Compare MATLAB's Y of colour images; auto does for sr only.
        crop: Pixels cut off at each side before comparing; by default the scale for sr, else none.
        ssim: Definition of SSIM: matlab, as KAIR and BasicSR compute it, or grl, as SemanIR's tables do.
    """

    task: Task = "denoise"
    sigma: float = 25.0
    quality: int = 10
    scale: Literal[2, 3, 4] = 4
    grey: bool = False
    luma: Literal["auto", "yes", "no"] = "auto"
    crop: int | None = None
    ssim: Literal["matlab", "grl"] = "matlab"

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 255:
            raise ValueError(f"sigma must lie in [0, 255], got {self.sigma}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must lie in [1, 100], got {self.quality}")
        if self.crop is not None and self.crop < 0:
            raise ValueError(f"crop must be at least 0, got {self.crop}")
        if self.grey and self.task not in ("denoise", "jpeg"):
            raise ValueError(f"grey belongs to denoise and jpeg, got task={self.task}")

    @property
    def makes_input(self) -> bool:
        """Whether the degraded images can be made from the clean ones."""
        return self.task in _MADE

    @property
    def factor(self) -> int:
        """Side of the clean image over that of the degraded one."""
        return self.scale if self.task == "sr" else 1

    @property
    def border(self) -> int:
        """Pixels cut off at each side before comparing."""
        return self.crop if self.crop is not None else (self.scale if self.task == "sr" else 0)

    @property
    def compares_luma(self) -> bool:
        """Whether Y alone is compared."""
        return self.luma == "yes" or (self.luma == "auto" and self.task == "sr")

    @property
    def setting(self) -> str:
        """Level of the degradation, as published figures name it."""
        levels = {
            "denoise": f"sigma {self.sigma:g}",
            "jpeg": f"quality {self.quality}",
            "sr": f"x{self.scale}",
        }
        return levels.get(self.task, "") + (", grey" if self.grey else "")

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """Classical methods that are tested beside a network; nlm and tv where scikit-image is installed."""
        extra: dict[str, tuple[Baseline, ...]] = {
            "denoise": ("input", "nlm", "tv") if find_spec("skimage") else ("input",),
            "sr": ("bicubic",),  # the input has another size
        }
        return extra.get(self.task, ("input",))
