# SPDX-License-Identifier: Apache-2.0
"""The frozen judge of images: a small U-Net that names every pixel, and the image's only thing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from shapeworld.vocabulary import COLOURS, MATERIALS, SHAPES, Attribute
from torch import Tensor, nn

NAMES: dict[Attribute, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS}
WIDTHS = (32, 64, 96)


class Opinion(NamedTuple):
    """What the probe says of ``B`` images, as logits by attribute.

    Attributes:
        pixels: ``(B, 1 + names, H, W)``; channel 0 is the ground.
        things: ``(B, names)``: the kind of the only thing, if there is but one.
    """

    pixels: dict[Attribute, Tensor]
    things: dict[Attribute, Tensor]


class Probe(nn.Module):
    """U-Net with a head per attribute for the pixels and one for the whole image.

    It works at half size and enlarges its logits: full size would cost four times as much and an image is
    judged by what is in it, not by its outlines.

    Shape:
        - x: ``(B, 3, H, W)`` in [0, 1], sides divisible by 8
        - output: :class:`Opinion`
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.down = nn.ModuleList(_block(i, o, stride=2) for i, o in zip(inputs, WIDTHS, strict=True))
        self.up = nn.ModuleList(
            _block(deep + shallow, shallow)
            for deep, shallow in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)
        )
        self.pixels = nn.ModuleDict(
            {key: nn.Conv2d(WIDTHS[0], 1 + len(names), 1) for key, names in NAMES.items()}
        )
        self.things = nn.ModuleDict(
            {key: nn.Linear(2 * WIDTHS[-1], len(names)) for key, names in NAMES.items()}
        )

    def forward(self, x: Tensor) -> Opinion:  # noqa: D102
        x = 2 * x - 1
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        # the mean shows what there is most of, the maximum what there is at all
        pooled = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)  # (B, 2 * WIDTHS[-1])
        skips.pop()
        for block in self.up:
            x = block(torch.cat((nn.functional.interpolate(x, scale_factor=2.0), skips.pop()), dim=1))
        return Opinion(
            {
                key: nn.functional.interpolate(head(x), scale_factor=2.0, mode="bilinear")
                for key, head in self.pixels.items()
            },
            {key: head(pooled) for key, head in self.things.items()},
        )


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 2 + stride, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )
