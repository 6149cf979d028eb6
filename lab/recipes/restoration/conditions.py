# SPDX-License-Identifier: Apache-2.0
"""What the small models are judged on, and what they must reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from semanir.degradations import (
    JPEG,
    BayerMosaic,
    BicubicDownscale,
    CameraNoise,
    CorrelatedNoise,
    Degradation,
    GaussianNoise,
    MotionBlur,
)

from recipes.restoration.photographs import noisy, to_8bit
from recipes.restoration.tasks import Enlarge, TaskName

CROP = 256  # pixels: side of the crop from the middle of a photograph, for all but white noise
SEED = 1  # of the degradations, but white noise: that of published protocols, seed 0
CLASSICAL = ("tv", "nlm")

Image = NDArray[np.floating]  # (H, W) or (H, W, 3), nominally in [0, 1]
Photo = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How photographs are degraded, always in the same way.

    Attributes:
        name: Name in tables and cards.
        steps: Degradations, the first first; the result is a file of 8 bits. None for a clean photograph.
        sigma: Deviation of white noise on whole photographs, neither clipped nor rounded, in place of steps.
        baselines: Classical methods that are run, each told the deviation of the input from the truth.
        is_colour: Whether grey photographs are left out.
        scale: Output over input side.
    """

    name: str
    steps: tuple[Degradation, ...] = ()
    sigma: int | None = None
    baselines: tuple[str, ...] = CLASSICAL
    is_colour: bool = False
    scale: int = 1

    def apply(self, photo: Photo, seed: int | None = None, *, side: int = CROP) -> tuple[Image, Photo]:
        """Return the degraded image and the part of the photograph that is to be restored.

        Args:
            photo: ``(H, W)`` or ``(H, W, 3)`` uint8.
            seed: Random seed of the degradations; by default ``SEED``, and that of published protocols for
                white noise.
            side: Largest side in pixels of the middle that is taken, but for white noise.
        """
        if self.sigma is not None:
            return noisy(photo, self.sigma, seed or 0), photo
        clean = middle(photo, side) if self.steps else photo
        x = torch.from_numpy(np.atleast_3d(clean).astype(np.float32) / 255).permute(2, 0, 1)[None]
        generator = torch.Generator().manual_seed(SEED if seed is None else seed)
        for step in self.steps:
            x = step(x, generator)
        image = to_8bit(x[0].permute(1, 2, 0).numpy()) / 255
        return (image if photo.ndim == 3 else image[..., 0]), clean


def middle(photo: Photo, side: int = CROP) -> Photo:
    """Return the middle of a photograph, both sides even, as a Bayer pattern asks."""
    rows, columns = (slice((n - min(n, side)) // 2, None) for n in photo.shape[:2])
    cut = photo[rows, columns][:side, :side]
    height, width = (n // 2 * 2 for n in cut.shape[:2])
    return cut[:height, :width]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a model has to reach under one condition.

    Attributes:
        condition: Its name.
        over: Methods; the best of them on each photograph is the one to beat.
        mean_gain: Gain in dB that the mean over the colour photographs needs.
        worst_loss: Loss in dB that any one photograph may suffer.
        floor: PSNR in dB that every photograph must keep.
        is_target: Whether it is only aimed at: a miss is told, and the model passes all the same.
    """

    condition: str
    over: tuple[str, ...] = ()
    mean_gain: float | None = None
    worst_loss: float | None = None
    floor: float | None = None
    is_target: bool = False


def _jpeg(quality: int) -> JPEG:
    return JPEG(quality=quality)


_SENSOR = CameraNoise(shot=0.01, read=4, mosaicked=True)
_DARK = CameraNoise(shot=0.03, read=8, mosaicked=True)
_WHITE = tuple(Condition(name=f"white {sigma}", sigma=sigma) for sigma in (15, 25, 50))
_CAMERA = (
    Condition(name="camera", steps=(_SENSOR,)),
    Condition(name="camera, JPEG 90", steps=(_SENSOR, _jpeg(90))),
    Condition(name="dark camera, JPEG 90", steps=(_DARK, _jpeg(90))),
)
_NOISE = (
    Condition(name="white 25, JPEG 98", steps=(GaussianNoise(sigma=25), _jpeg(98))),
    Condition(name="white 15, JPEG 75", steps=(GaussianNoise(sigma=15), _jpeg(75))),
    Condition(
        name="white 25, JPEG 90 4:4:4",
        steps=(GaussianNoise(sigma=25), JPEG(quality=90, subsampling="4:4:4")),
    ),
    Condition(name="correlated 25", steps=(CorrelatedNoise(sigma=25, radius=0.8),)),
)
_QUALITIES = (
    *(Condition(name=f"JPEG {quality}", steps=(_jpeg(quality),)) for quality in (10, 20, 40, 80)),
    Condition(name="JPEG 10 4:4:4", steps=(JPEG(quality=10, subsampling="4:4:4"),), is_colour=True),
)
_BLUR = Condition(name="motion blur 7", steps=(MotionBlur(length=7),), baselines=())
_ENLARGED = Condition(name="x2, enlarged", steps=(BicubicDownscale(scale=2), Enlarge(2)), baselines=())
_MALVAR = Condition(name="Malvar", steps=(BayerMosaic(),), baselines=(), is_colour=True)
_HALF = Condition(name="x2", steps=(BicubicDownscale(scale=2),), baselines=(), scale=2)

CONDITIONS: dict[TaskName, tuple[Condition, ...]] = {
    "denoise": (
        *_WHITE,
        *_NOISE,
        *_CAMERA,
        Condition(name="JPEG 90", steps=(_jpeg(90),), baselines=()),
        Condition(name="clean", baselines=()),
    ),
    "jpeg": _QUALITIES,
    "demosaic": (_MALVAR,),
    "sr-x2": (_HALF,),
    "all": (_NOISE[0], *_CAMERA, *_QUALITIES[:3], _BLUR, _ENLARGED),
}


def _no_loss(condition: Condition) -> Requirement:
    """Return the target that no photograph loses."""
    return Requirement(condition=condition.name, over=("input",), worst_loss=0.0, is_target=True)


REQUIREMENTS: dict[TaskName, tuple[Requirement, ...]] = {
    "denoise": (
        *(
            Requirement(condition=f"white {sigma}", over=CLASSICAL, mean_gain=gain, worst_loss=0.2)
            for sigma, gain in {15: 1.2, 25: 1.6, 50: 1.8}.items()
        ),
        *(Requirement(condition=each.name, over=CLASSICAL, mean_gain=0.0) for each in (*_NOISE, *_CAMERA)),
        *(Requirement(condition=each.name, over=("input",), worst_loss=0.0) for each in _CAMERA),
        Requirement(condition="JPEG 90", over=("input",), mean_gain=0.0),
        Requirement(condition="clean", floor=40.0),
    ),
    "jpeg": (
        Requirement(condition="JPEG 10", over=("input",), mean_gain=0.5),
        *(Requirement(condition=each.name, over=("input",), mean_gain=0.0) for each in _QUALITIES[1:]),
        *(_no_loss(each) for each in _QUALITIES),
    ),
    "demosaic": (Requirement(condition="Malvar", over=("input",), mean_gain=2.0), _no_loss(_MALVAR)),
    "sr-x2": (Requirement(condition="x2", over=("input",), mean_gain=0.7), _no_loss(_HALF)),
    "all": tuple(
        Requirement(condition=name, over=("input",), mean_gain=0.0)
        for name in (each.name for each in (_NOISE[0], *_CAMERA, *_QUALITIES[:3], _BLUR, _ENLARGED))
    ),
}
