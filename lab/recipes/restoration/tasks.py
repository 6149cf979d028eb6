# SPDX-License-Identifier: Apache-2.0
"""What each small model learns to undo: mixtures of semanir's degradations, and the network for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from semanir import SemanIRConfig
from semanir.degradations import (
    JPEG,
    BayerMosaic,
    BicubicDownscale,
    CameraNoise,
    Chain,
    CorrelatedNoise,
    Degradation,
    GaussianNoise,
    MotionBlur,
    OneOf,
    resize_bicubic,
)
from torch import Tensor

TaskName = Literal["denoise", "jpeg", "demosaic", "sr-x2", "all"]


@dataclass(frozen=True, slots=True)
class Enlarge(Degradation):
    """Bicubic enlargement, so that what has fewer pixels enters a network in its final size.

    Attributes:
        scale: Output over input side.
    """

    scale: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the larger batch, clipped and rounded to 8 bits as a file would be."""
        return rounded(resize_bicubic(images, self.scale))


def rounded(images: Tensor) -> Tensor:
    """Return images as a file of 8 bits would hold them."""
    return (images.clamp(0, 1) * 255).round() / 255


NOTHING = GaussianNoise(sigma=0)


def jpeg(quality: int, quality_max: int) -> Degradation:
    """Return JPEG with colours of half and of full resolution, as cameras and web sites write it."""
    half = JPEG(quality=quality, quality_max=quality_max, subsampling="4:2:0")
    full = JPEG(quality=quality, quality_max=quality_max, subsampling="4:4:4")
    return OneOf([half, full], [2, 1])


def white(clean_share: float) -> Degradation:
    """Return white noise of unknown strength: often none, often little, where a blind network errs first."""
    low, any_level = GaussianNoise(sigma=0, sigma_max=15), GaussianNoise(sigma=0, sigma_max=55)
    return OneOf([NOTHING, low, any_level], [clean_share, 0.25, 0.75 - clean_share])


SENSOR = OneOf(
    [
        CameraNoise(shot=0.0, shot_max=0.012, read=0.5, read_max=5, mosaicked=True),
        CameraNoise(shot=0.005, shot_max=0.05, read=1, read_max=14, mosaicked=True),
        CameraNoise(shot=0.0, shot_max=0.05, read=0.5, read_max=14),
    ],
    [2, 2, 1],
)
SMOOTH = CorrelatedNoise(sigma=3, sigma_max=50, radius=0.3, radius_max=1.8)
SOME_WHITE = OneOf([GaussianNoise(sigma=2, sigma_max=20), GaussianNoise(sigma=2, sigma_max=55)], [1, 2])


def noise(clean_share: float) -> Degradation:
    """Return the noise that people have: white, in a JPEG, of a sensor, correlated; and clean JPEGs."""
    return OneOf(
        [
            white(clean_share),
            Chain([SOME_WHITE, jpeg(60, 98)]),
            SENSOR,
            Chain([SENSOR, jpeg(80, 98)]),
            SMOOTH,
            Chain([SMOOTH, jpeg(75, 98)]),
            jpeg(75, 98),
        ],
        [0.46, 0.16, 0.1, 0.13, 0.07, 0.03, 0.05],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a network learns.

    Attributes:
        phrase: What it does, for lists of models.
        limits: What a user has to know of it.
        evaluations: Tasks of ``semanir evaluate`` that it is for.
        colour: Degradation of colour crops.
        grey: Degradation of grey crops, of one channel.
        grey_share: Share of grey crops. A network that never saw any takes noise that all channels share for
            texture, and leaves grey photographs as they are.
        grain_share: Share of crops overlaid with faint grain that belongs to the image.
        period: Pixels to whose multiple a crop is cut from its degraded surroundings: 1 as where an image was
            cropped afterwards, 2 where the network may know the phase of a pixel.
        scale: Output over input side.
        changes: Fields of the configuration that differ from the preset ``"tiny"``.
    """

    phrase: str
    limits: str = ""
    evaluations: tuple[str, ...] = ()
    colour: Degradation
    grey: Degradation
    grey_share: float
    grain_share: float = 0.0
    period: int = 1
    scale: int = 1
    changes: dict[str, object] = field(default_factory=dict)

    def config(self, **changes: object) -> SemanIRConfig:
        """Return the configuration of the network, with further changes."""
        return SemanIRConfig.preset("tiny", **self.changes | changes)


def _any(clean_share: float) -> Degradation:
    """Return one of the degradations of the network for all of them."""
    choices: Sequence[tuple[Degradation, float]] = [
        (noise(clean_share), 0.4),
        (jpeg(5, 95), 0.2),
        (MotionBlur(length=2, length_max=13), 0.2),
        (Chain([BicubicDownscale(scale=2), Enlarge(2)]), 0.2),
    ]
    return OneOf([each for each, _ in choices], [weight for _, weight in choices])


TASKS: dict[TaskName, Task] = {
    "denoise": Task(
        phrase="removes noise of unknown kind and strength: white, of a camera, in a JPEG, correlated",
        limits=(
            "Camera noise is simulated, no camera was measured. Grain of a photograph may be taken for noise."
        ),
        evaluations=("denoise",),
        colour=noise(0.12),
        grey=noise(0.35),
        grey_share=0.3,
        grain_share=0.25,
    ),
    "jpeg": Task(
        phrase="removes the blocks and ringing of JPEG of unknown quality",
        limits="One compression by libjpeg's tables; repeated compression is not covered.",
        evaluations=("jpeg",),
        colour=jpeg(5, 95),
        grey=JPEG(quality=5, quality_max=95),
        grey_share=0.25,
        grain_share=0.1,
    ),
    "demosaic": Task(
        phrase="removes the colour fringes of a Bayer mosaic (RGGB) interpolated after Malvar",
        limits="Without noise, and red at the first pixel: an image cropped at an odd pixel is not covered.",
        evaluations=("demosaic",),
        colour=BayerMosaic(),
        grey=NOTHING,
        grey_share=0.0,
        period=2,
    ),
    "sr-x2": Task(
        phrase="doubles width and height",
        limits="For images that were shrunk bicubically, without noise and compression.",
        evaluations=("sr",),
        colour=BicubicDownscale(scale=2),
        grey=BicubicDownscale(scale=2),
        grey_share=0.1,
        period=2,
        scale=2,
        changes={"upscale": 2},
    ),
    "all": Task(
        phrase="removes noise, JPEG artefacts, slight motion blur, and softness after enlargement by 2",
        limits="One of these at a time.",
        colour=_any(0.12),
        grey=_any(0.35),
        grey_share=0.2,
        grain_share=0.1,
        changes={"degradation_dim": 32},
    ),
}
