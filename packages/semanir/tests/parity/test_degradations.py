# SPDX-License-Identifier: Apache-2.0
"""Degradations against their formulas in float64, written again and differently."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from semanir.degradations import compress_jpeg, demosaic_malvar, mosaic, resize_bicubic
from semanir.degradations.compression import draw_offsets


def random_image(*shape):
    return np.random.default_rng(0).random(shape)


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_matrix(size, scale):
    """The matrix of MATLAB's imresize along one axis: 1-based positions, symmetric border."""
    rows = math.ceil(size * scale - 1e-9)
    matrix = np.zeros((rows, size))
    shrink = min(scale, 1)
    for out in range(1, rows + 1):
        u = out / scale + 0.5 * (1 - 1 / scale)
        for place in range(math.floor(u - 2 / shrink) - 1, math.ceil(u + 2 / shrink) + 2):
            inside = (place - 1) % (2 * size)
            inside = inside if inside < size else 2 * size - 1 - inside
            matrix[out - 1, inside] += shrink * cubic(shrink * (u - place))
        matrix[out - 1] /= matrix[out - 1].sum()
    return matrix


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4, 0.37], ids="x{:.2f}".format)
@pytest.mark.parametrize("size", [(12, 24), (7, 5), (1, 3)])
def test_bicubic_is_the_matrix_of_imresize(scale, size):
    image = random_image(*size)
    expected = resize_matrix(size[0], scale) @ image @ resize_matrix(size[1], scale).T
    found = resize_bicubic(torch.from_numpy(image), scale)
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_keeps_constants_and_ramps(factor):
    assert torch.allclose(resize_bicubic(torch.full((1, 24, 24), 0.3), 1 / factor), torch.tensor(0.3))
    ramp = torch.arange(48, dtype=torch.float64).expand(4 * factor, -1) / 48
    small = resize_bicubic(ramp, 1 / factor)
    centres = (torch.arange(48 // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    inside = slice(2, -2)
    assert (small[0] - centres / 48)[inside].abs().max() < 1e-12


def test_bicubic_is_that_of_torch_inside():
    image = torch.from_numpy(random_image(1, 3, 40, 44))
    theirs = torch.nn.functional.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True)
    ours = resize_bicubic(image, 0.25)
    assert (ours - theirs)[..., 2:-2, 2:-2].abs().max() < 1e-12


def malvar(raw):
    """Bilinear interpolation and the Laplacian of the measured colour: ICASSP 2004, Eq. 3 to 5."""
    H, W = raw.shape
    padded = np.pad(raw, 2, mode="reflect")
    result = np.zeros((3, H, W))
    for y in range(H):
        for x in range(W):

            def at(dy, dx, y=y, x=x):
                return padded[y + 2 + dy, x + 2 + dx]

            here = at(0, 0)
            own = (y % 2) + (x % 2)
            beside = (at(0, -1) + at(0, 1), at(-1, 0) + at(1, 0))
            diagonal = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
            far = (at(0, -2) + at(0, 2), at(-2, 0) + at(2, 0))
            if own != 1:  # red or blue
                laplacian = here - sum(far) / 4
                result[own, y, x] = here
                result[1, y, x] = sum(beside) / 4 + laplacian / 2
                result[2 - own, y, x] = diagonal / 4 + laplacian * 3 / 4
            else:
                result[1, y, x] = here
                for axis in (0, 1):
                    laplacian = here - (diagonal + far[axis] - far[1 - axis] / 2) / 5
                    # the colour of this row lies beside, that of this column above and below
                    colour = (0 if y % 2 == 0 else 2) if axis == 0 else (2 if y % 2 == 0 else 0)
                    result[colour, y, x] = beside[axis] / 2 + laplacian * 5 / 8
    return result


@pytest.mark.parametrize("size", [(9, 10), (8, 7), (3, 3)])
def test_malvar_is_its_formula(size):
    raw = random_image(*size)
    found = demosaic_malvar(torch.from_numpy(raw)[None, None])[0]
    assert np.abs(found.numpy() - malvar(raw)).max() < 1e-12


def test_the_pattern_is_rggb_and_what_was_measured_stays():
    image = torch.from_numpy(random_image(1, 3, 6, 8))
    raw = mosaic(image)
    for (y, x), colour in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2, (4, 6): 0, (5, 7): 2}.items():
        assert raw[0, 0, y, x] == image[0, colour, y, x]
    assert torch.equal(mosaic(demosaic_malvar(raw)), raw)


def test_a_grey_ramp_survives_the_mosaic_inside():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    grey = ((2 * x + 3 * y).double() / 80).expand(1, 3, -1, -1)
    assert (demosaic_malvar(mosaic(grey)) - grey)[..., 2:-2, 2:-2].abs().max() < 1e-12


def decoded(pixels, **options):
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="JPEG", **options)
        return np.array(Image.open(file))


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
def test_jpeg_is_what_the_codec_makes_of_the_file(subsampling):
    pixels = (random_image(21, 19, 3) * 255).astype(np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    found = compress_jpeg(image, 30, subsampling=subsampling)
    expected = decoded(pixels, quality=30, subsampling=subsampling)
    assert np.array_equal((found[0].permute(1, 2, 0) * 255).round().byte().numpy(), expected)
    grey = compress_jpeg(image[:, :1], 30)
    expected = decoded(pixels[..., 0], quality=30)
    assert np.array_equal((grey[0, 0] * 255).round().byte().numpy(), expected)


def test_an_offset_moves_the_blocks():
    smooth = torch.from_numpy(random_image(1, 1, 8, 8)).float()
    image = torch.nn.functional.interpolate(smooth, size=(64, 64), mode="bicubic").clamp(0, 1)

    def steps(found):  # mean step between neighbouring columns, by the place in a block of eight
        jumps = (found[..., 1:] - found[..., :-1]).abs().mean(dim=(0, 1, 2))
        return torch.stack([jumps[place::8].mean() for place in range(8)]).argmax().item()

    assert steps(compress_jpeg(image, 3)) == 7
    assert steps(compress_jpeg(image, 3, offset=torch.tensor([[2, 5]]))) == 2


def test_half_of_the_grids_are_aligned():
    offsets = draw_offsets(4000, torch.Generator().manual_seed(0))
    aligned = (offsets == 0).all(dim=1).double().mean().item()
    expected = 0.5 + 0.5 / 256
    assert aligned == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))
    assert offsets.min() == 0
    assert offsets.max() == 15


def test_qualities_are_drawn_from_the_whole_range(monkeypatch):
    from semanir.degradations import JPEG, compression

    drawn = []
    monkeypatch.setattr(
        compression, "compress_jpeg", lambda images, quality, **_: drawn.extend(quality.tolist())
    )
    JPEG(quality=10, quality_max=13)(torch.zeros(2000, 1, 2, 2), torch.Generator().manual_seed(0))
    assert set(drawn) == {10, 11, 12, 13}
    assert all(abs(drawn.count(each) - 500) < 5 * math.sqrt(375) for each in set(drawn))
