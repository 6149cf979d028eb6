# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from pixelsmith.io.margins import Extended, Framed, Margin
from pixelsmith.io.vae import TiledVAE, Tiling
from pixelsmith.store import Canvas
from pixelsmith.store.rows import ArrayRows
from torch import nn


@pytest.mark.parametrize("wraps", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("size", "margin"), [((9, 7), (4, 2)), ((3, 1), (5, 3)), ((6, 5), (0, 4))])
def test_images_are_extended_as_by_numpy(size, margin, wraps):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = Extended(ArrayRows(image), *margin, wraps)
    rows, columns = ("wrap" if joins else "reflect" for joins in wraps)
    expected = np.pad(image, ((margin[0],) * 2, (0, 0), (0, 0)), mode=rows)
    expected = np.pad(expected, ((0, 0), (margin[1],) * 2, (0, 0)), mode=columns)
    assert (found.height, found.width) == expected.shape[:2]
    np.testing.assert_array_equal(found.read(0, found.height), expected)
    for top in range(found.height - 1):
        np.testing.assert_array_equal(found.read(top, top + 2), expected[top : top + 2])


@pytest.mark.parametrize("wraps", [(False, False), (True, False), (False, True)])
def test_a_framed_canvas_reads_as_the_two_in_one(wraps):
    margin = Margin(3, 2, wraps)
    inner = torch.rand(2, 5, 6)
    outer = torch.rand(2, *margin.around((5, 6)))
    assert margin.inside(Canvas(outer)).size == (5, 6)
    whole, (above, beside) = outer.clone(), margin.border
    parts = [
        np.arange(out, side - out) % length
        for out, side, length in zip(margin.border, outer.shape[1:], (5, 6), strict=True)
    ]
    # the margin itself is not read from the canvas, but what continues it where sides join
    rows, columns = (part - shift for part, shift in zip(parts, (margin.rows, margin.columns), strict=True))
    part = inner[:, rows % 5][:, :, columns % 6]
    whole[:, above : outer.shape[1] - above, beside : outer.shape[2] - beside] = part
    framed = Framed(Canvas(inner), Canvas(outer), margin)
    for row in range(framed.height - 3):
        for column in range(framed.width - 4):
            assert torch.equal(framed.read(row, column, 4, 5), whole[:, row : row + 4, column : column + 5])


class Zeros(nn.Module):
    """An autoencoder of 2 x 2 pixels that sees zeros beyond its border, unevenly, as those of diffusers."""

    device, dtype, use_tiling = torch.device("cpu"), torch.float32, False

    def __init__(self):
        super().__init__()
        self.config = {"block_out_channels": (1, 1), "latent_channels": 3, "scaling_factor": 1.0}

    def encode(self, x):
        class Found:
            latents = nn.functional.avg_pool2d(nn.functional.pad(x, (0, 2, 0, 2)), 4, 2)

        return Found

    def decode(self, z, return_dict=True):
        return (nn.functional.interpolate(z, scale_factor=2.0, mode="nearest"),)


def test_the_border_of_the_autoencoder_lies_outside():
    """An even image keeps its colour to its borders."""
    image = ArrayRows(np.full((24, 32, 3), 200, dtype=np.uint8))
    vae = TiledVAE(Zeros(), Tiling(tile=4, halo=2))

    def passed(margin):
        parts = [latents for _, latents in vae.encode(margin.extend(image))]
        frame = Canvas(torch.cat(parts, dim=1))
        canvas = Framed(Canvas(margin.inside(frame).data.clone()), frame, margin)
        rows = list(margin.crop(vae.decode(canvas), (24, 32)))
        assert [top for top, _ in rows] == list(np.cumsum([0, *(len(part) for _, part in rows[:-1])]))
        return np.concatenate([part for _, part in rows])

    assert passed(Margin(0, 2, (False, False)))[:, -1].max() < 190
    assert (passed(Margin(2, 2, (False, False))) == 200).all()
