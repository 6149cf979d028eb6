# SPDX-License-Identifier: Apache-2.0
"""Degradations as configurations that can be called; imports no torch, so that help texts come fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Degradation(ABC):
    """Spoils a batch of images: the base of all kinds, and of your own."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the spoilt batch.

        Args:
            images: ``(B, C, H, W)``, fp32 in [0, 1], ``C`` of 1 or 3.
            generator: Source of everything random.

        Returns:
            ``(B, C, H', W')``, fp32, clipped or not as the real thing is.
        """


def _check_range(name: str, low: float, high: float | None, least: float, most: float) -> None:
    for label, value in ((name, low), (f"{name}_max", high)):
        if value is not None and not least <= value <= most:
            raise ValueError(f"{label} must lie in [{least:g}, {most:g}], got {value}")
    if high is not None and high < low:
        raise ValueError(f"{name}_max must be at least {name}, got {low} and {high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise(Degradation):
    """White Gaussian noise.

    On tensors it is neither clipped nor rounded, as the published protocols ask.

    Attributes:
        sigma: Standard deviation on the scale of [0, 255].
        sigma_max: Upper end of a range that starts at sigma; each image draws its own level.
    """

    sigma: float = 25.0
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, self.sigma_max, 0, 255)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with noise; see :func:`semanir.degradations.add_gaussian_noise`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.noise import add_gaussian_noise

        sigma = draw(len(images), self.sigma, self.sigma_max, generator)
        return add_gaussian_noise(images, sigma, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelatedNoise(Degradation):
    """Gaussian noise whose neighbours are alike, as after demosaicking or resizing.

    Attributes:
        sigma: Standard deviation on the scale of [0, 255].
        sigma_max: Upper end of a range that starts at sigma; each image draws its own level.
        radius: Standard deviation of the smoothing in pixels; 0 is white noise.
        radius_max: Upper end of a range that starts at radius.
    """

    sigma: float = 25.0
    sigma_max: float | None = None
    radius: float = 0.8
    radius_max: float | None = None

    def __post_init__(self) -> None:
        _check_range("sigma", self.sigma, self.sigma_max, 0, 255)
        _check_range("radius", self.radius, self.radius_max, 0, 32)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with noise; see :func:`semanir.degradations.add_correlated_noise`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.noise import add_correlated_noise

        sigma = draw(len(images), self.sigma, self.sigma_max, generator)
        radius = draw(len(images), self.radius, self.radius_max, generator)
        return add_correlated_noise(images, sigma, radius, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraNoise(Degradation):
    """Noise of a camera: photons that are counted (Poisson), and an amplifier (Gaussian).

    Attributes:
        shot: Variance per unit of light, on the scale of [0, 1]: one over the electrons of white.
        shot_max: Upper end of a range that starts at shot; each image draws its own level.
        read: Standard deviation of the amplifier, on the scale of [0, 255].
        read_max: Upper end of a range that starts at read.
        gamma: Exponent that turns images into linear light, where the noise is added; 1 if they are linear.
        mosaicked: Measure one colour per pixel of a Bayer pattern and interpolate the others.
    """

    shot: float = 0.01
    shot_max: float | None = None
    read: float = 3.0
    read_max: float | None = None
    gamma: float = 2.2
    mosaicked: bool = False

    def __post_init__(self) -> None:
        _check_range("shot", self.shot, self.shot_max, 0, 1)
        _check_range("read", self.read, self.read_max, 0, 255)
        _check_range("gamma", self.gamma, None, 0.1, 10)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with noise; see :func:`semanir.degradations.add_camera_noise`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.noise import add_camera_noise

        shot = draw(len(images), self.shot, self.shot_max, generator)
        read = draw(len(images), self.read, self.read_max, generator)
        mosaicked = self.mosaicked and images.shape[1] == 3
        return add_camera_noise(images, shot, read, generator, gamma=self.gamma, mosaicked=mosaicked)


@dataclass(frozen=True, slots=True, kw_only=True)
class JPEG(Degradation):
    """Blocks and ringing of a JPEG file; a grey image becomes a grey JPEG.

    Attributes:
        quality: Quality, 1 to 100.
        quality_max: Upper end of a range that starts at quality; each image draws its own.
        subsampling: Resolution of the colours.
        grid: Blocks that begin at the corner of the image, or in half of the images somewhere else, as
            where a file was cropped afterwards.
    """

    quality: int = 40
    quality_max: int | None = None
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0"
    grid: Literal["aligned", "random"] = "aligned"

    def __post_init__(self) -> None:
        _check_range("quality", self.quality, self.quality_max, 1, 100)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch as decoded; see :func:`semanir.degradations.compress_jpeg`."""
        from semanir.degradations.compression import compress_jpeg, draw_offsets
        from semanir.degradations.drawing import draw

        # the upper end is as likely as any other quality
        high = None if self.quality_max is None else self.quality_max + 1 - 1e-3
        quality = draw(len(images), self.quality, high, generator).flatten().floor().long()
        offset = draw_offsets(len(images), generator) if self.grid == "random" else None
        return compress_jpeg(images, quality, subsampling=self.subsampling, offset=offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class BicubicDownscale(Degradation):
    """Fewer pixels, as MATLAB's imresize makes them: bicubic, antialiased, rounded to 8 bits.

    Attributes:
        scale: Factor of both sides; what does not fill a pixel at the right and at the bottom is cut off.
        rounded: Round to 8 bits, as the files of the data sets are.
    """

    scale: Literal[2, 3, 4] = 2
    rounded: bool = True

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {self.scale}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the smaller batch; see :func:`semanir.degradations.resize_bicubic`."""
        from semanir.degradations.drawing import check_images
        from semanir.degradations.scaling import crop_to_multiple, resize_bicubic

        check_images(images)
        small = resize_bicubic(crop_to_multiple(images, self.scale), 1 / self.scale).clamp(0, 1)
        return (small * 255).round() / 255 if self.rounded else small


@dataclass(frozen=True, slots=True, kw_only=True)
class BayerMosaic(Degradation):
    """One colour per pixel (RGGB), the others interpolated linearly after Malvar; colour images only."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the interpolated batch; see :func:`semanir.degradations.demosaic_malvar`."""
        from semanir.degradations.mosaic import demosaic_malvar, mosaic

        return demosaic_malvar(mosaic(images)).clamp(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionBlur(Degradation):
    """Blur of a camera that moves while its shutter is open.

    Attributes:
        length: Length of the path in pixels.
        length_max: Upper end of a range that starts at length; each image draws its own.
        curvature: Standard deviation of the turn from beginning to end, in radians; 0 is a straight line.
        gamma: Exponent that turns images into linear light, in which light adds up; 1 if they are.
    """

    length: float = 15.0
    length_max: float | None = None
    curvature: float = 1.0
    gamma: float = 2.2

    def __post_init__(self) -> None:
        _check_range("length", self.length, self.length_max, 1, 255)
        _check_range("curvature", self.curvature, None, 0, 10)
        _check_range("gamma", self.gamma, None, 0.1, 10)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the blurred batch; see :func:`semanir.degradations.motion_kernels`."""
        from semanir.degradations.blur import blur, motion_kernels
        from semanir.degradations.drawing import draw

        length = draw(len(images), self.length, self.length_max, generator).flatten()
        kernels = motion_kernels(length, generator, curvature=self.curvature)
        return blur(images, kernels, gamma=self.gamma)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rain(Degradation):
    """Streaks of rain, and the haze behind them; a simple rendering.

    Attributes:
        density: Streaks per thousand pixels.
        density_max: Upper end of a range that starts at density; each image draws its own.
        length: Length of a streak in pixels.
        length_max: Upper end of a range that starts at length.
        veil: Share of the light that the haze replaces.
    """

    density: float = 4.0
    density_max: float | None = None
    length: float = 20.0
    length_max: float | None = None
    veil: float = 0.1

    def __post_init__(self) -> None:
        _check_range("density", self.density, self.density_max, 0, 1000)
        _check_range("length", self.length, self.length_max, 1, 255)
        _check_range("veil", self.veil, None, 0, 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch in rain; see :func:`semanir.degradations.add_rain`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.weather import add_rain

        density = draw(len(images), self.density, self.density_max, generator)
        length = draw(len(images), self.length, self.length_max, generator)
        return add_rain(images, density, length, generator, veil=self.veil)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snow(Degradation):
    """Falling flakes of three sizes; a simple rendering.

    Attributes:
        density: Flakes per thousand pixels.
        density_max: Upper end of a range that starts at density; each image draws its own.
        size: Diameter of the largest flakes in pixels.
        size_max: Upper end of a range that starts at size.
    """

    density: float = 3.0
    density_max: float | None = None
    size: float = 8.0
    size_max: float | None = None

    def __post_init__(self) -> None:
        _check_range("density", self.density, self.density_max, 0, 1000)
        _check_range("size", self.size, self.size_max, 0.5, 127)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch in snow; see :func:`semanir.degradations.add_snow`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.weather import add_snow

        density = draw(len(images), self.density, self.density_max, generator)
        size = draw(len(images), self.size, self.size_max, generator)
        return add_snow(images, density, size, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raindrops(Degradation):
    """Drops on the lens, each of which shows the scene upside down; a simple rendering.

    Attributes:
        count: Number of drops.
        count_max: Upper end of a range that starts at count; each image draws its own.
        size: Diameter of the largest drops, as a share of the shorter side of the image.
        size_max: Upper end of a range that starts at size.
    """

    count: int = 20
    count_max: int | None = None
    size: float = 0.1
    size_max: float | None = None

    def __post_init__(self) -> None:
        _check_range("count", self.count, self.count_max, 0, 1000)
        _check_range("size", self.size, self.size_max, 0, 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with drops; see :func:`semanir.degradations.add_raindrops`."""
        from semanir.degradations.drawing import draw
        from semanir.degradations.weather import add_raindrops

        count = draw(len(images), self.count, self.count_max, generator)
        size = draw(len(images), self.size, self.size_max, generator)
        return add_raindrops(images, count, size, generator)


class Chain(Degradation):
    """One degradation after the other.

    Args:
        steps: Degradations, the first first.
    """

    def __init__(self, steps: Sequence[Degradation]) -> None:
        self.steps = tuple(steps)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch after all steps."""
        for step in self.steps:
            images = step(images, generator)
        return images


class OneOf(Degradation):
    """One degradation per image, drawn at random; all must keep the size.

    Args:
        choices: Degradations.
        weights: How often each is drawn; equally often if ``None``.

    Raises:
        ValueError: If there are no choices, or not one positive weight for each.
    """

    def __init__(self, choices: Sequence[Degradation], weights: Sequence[float] | None = None) -> None:
        self.choices = tuple(choices)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.choices)
        if not self.choices or len(self.weights) != len(self.choices) or min(self.weights) <= 0:
            raise ValueError(
                f"choices need one positive weight each, got {len(self.choices)} and {self.weights}"
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch, each image after its degradation."""
        import torch

        weights = torch.tensor(self.weights, dtype=torch.float64, device=generator.device)
        drawn = torch.multinomial(weights, len(images), replacement=True, generator=generator)
        results = [
            self.choices[number](image[None], generator)
            for number, image in zip(drawn.tolist(), images, strict=True)
        ]
        return torch.cat(results)
