# SPDX-License-Identifier: Apache-2.0
"""Ways between resolutions: down, up, the reconstruction of an image, and the guess at its degradation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

_HEAD_DIM = 64  # channels in front of the last convolution, as in SwinIR


def downsample(dim: int, out_dim: int, kind: Literal["conv", "linear"]) -> nn.Module:
    """Return a module ``(B, dim, H, W) -> (B, out_dim, H/2, W/2)``."""
    if kind == "conv":
        return nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * dim, out_dim, 1))


def upsample(dim: int, out_dim: int, kind: Literal["conv", "linear"]) -> nn.Module:
    """Return a module ``(B, dim, H, W) -> (B, out_dim, 2H, 2W)``."""
    kernel_size = 3 if kind == "conv" else 1
    conv = nn.Conv2d(dim, 4 * out_dim, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(conv, nn.PixelShuffle(2))


def reconstruction(
    dim: int,
    out_channels: int,
    upscale: int,
    kind: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"],
) -> nn.Module:
    """Return a module ``(B, dim, H, W) -> (B, out_channels, upscale * H, upscale * W)``.

    Args:
        dim: Channels of the features.
        out_channels: Channels of the image.
        upscale: 1, a power of two, or 3; ``"nearest+conv"`` takes powers of two.
        kind: ``"pixelshuffle"``: classical tail; ``"pixelshuffledirect"``: one convolution, for light
            networks; ``"nearest+conv"``: for real-world images, without checkerboards.

    Raises:
        ValueError: If the tail cannot reach ``upscale``.

    Source: SwinIR, arXiv 2108.10257, Sec. 3.1; the published SemanIR parameter counts agree with it.
    """
    if kind == "pixelshuffledirect":
        conv = nn.Conv2d(dim, out_channels * upscale**2, 3, padding=1)
        return nn.Sequential(conv, nn.PixelShuffle(upscale))
    doublings = upscale.bit_length() - 1
    if upscale != 2**doublings and (upscale != 3 or kind == "nearest+conv"):
        raise ValueError(f"upscale={upscale} is not supported by upsampler={kind!r}")
    layers: list[nn.Module] = [nn.Conv2d(dim, _HEAD_DIM, 3, padding=1), nn.LeakyReLU(inplace=True)]
    factors = [3] if upscale == 3 else [2] * doublings
    for factor in factors:
        if kind == "pixelshuffle":
            layers += [nn.Conv2d(_HEAD_DIM, _HEAD_DIM * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
        else:
            layers += [
                nn.Upsample(scale_factor=factor, mode="nearest"),
                nn.Conv2d(_HEAD_DIM, _HEAD_DIM, 3, padding=1),
                nn.LeakyReLU(0.2, inplace=True),
            ]
    layers.append(nn.Conv2d(_HEAD_DIM, out_channels, 3, padding=1))
    return nn.Sequential(*layers)


class DegradationEncoder(nn.Module):
    """Guesses from the first features what degraded an image, and says it to every stage.

    Args:
        dim: Channels of the first features.
        degradation_dim: Numbers of the embedding.
        stage_dims: Channels of each stage.

    Shape:
        - x: ``(B, dim, H, W)``
        - output: for each stage scale and shift of its channels, ``(B, 2 * C, 1, 1)``, zero before training

    Source: ours; scale and shift after FiLM, arXiv 1709.07871, Eq. 2.
    """

    def __init__(self, dim: int, degradation_dim: int, stage_dims: Sequence[int]) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(dim, degradation_dim, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(degradation_dim, degradation_dim, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(degradation_dim, degradation_dim, 1),
            nn.ReLU(inplace=True),
        )
        self.heads = nn.ModuleList(nn.Conv2d(degradation_dim, 2 * each, 1) for each in stage_dims)
        for head in self.heads:
            assert isinstance(head, nn.Conv2d), "nothing else is in the list"
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # pyright: ignore[reportArgumentType] - a bias there is

    def forward(self, x: Tensor) -> list[Tensor]:  # noqa: D102
        embedding = self.embed(x)
        return [head(embedding) for head in self.heads]
