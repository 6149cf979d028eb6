# SPDX-License-Identifier: Apache-2.0
"""Images of every form."""

import numpy as np
import pytest
import torch
from diffeat.images import count_images, fit, image_hash, load_images, to_pillow
from PIL import Image


def load(images):
    return list(load_images(images))


def test_every_form_of_one_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(pixels),
        pixels,
        (pixels / 255).astype(np.float32),
        tensor,
        tensor / 255,
        tensor[None] / 255,
    ]
    forms[3].flags.writeable = False
    for form in forms:
        (found,) = load(form)
        torch.testing.assert_close(found, tensor.float() / 255)
        assert count_images(form) == 1
    assert len(load(forms[:3])) == count_images(forms[:3]) == 3
    assert len({image_hash(found) for found in load(forms[:4])}) == 1
    assert np.array_equal(np.asarray(to_pillow(found)), pixels)


def test_floats_keep_their_precision():
    exact = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(exact)[0], exact)
    assert torch.equal(load(exact.permute(1, 2, 0).numpy())[0], exact)


def test_hashes_tell_size_and_values():
    ones = torch.ones(3, 2, 8)
    assert len({image_hash(x) for x in (ones, torch.ones(3, 4, 4), torch.zeros(3, 2, 8))}) == 3


def test_fitting_ignores_the_aspect_ratio():
    image = torch.rand(3, 5, 9)
    assert fit(image, (8, 4)).shape == (3, 8, 4)
    assert fit(image, (5, 9)) is image
    torch.testing.assert_close(fit(torch.full((3, 5, 9), 0.25), (2, 2)), torch.full((3, 2, 2), 0.25))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([], ValueError, "at least one image, got none"),
        (torch.rand(5, 5, 5), ValueError, r"image 0 as a tensor must be .* got \(5, 5, 5\)"),
        (torch.rand(3, 5, 5) + 1, ValueError, r"image 0 must lie in \[0, 1\], got values from 1"),
        (torch.full((3, 5, 5), float("nan")), ValueError, "image 0 must lie in"),
        ([3], TypeError, "image 0 must be a path, .* got int"),
        ("nothing.png", ValueError, r"nothing\.png does not exist"),
    ],
)
def test_bad_images(image, error, message):
    with pytest.raises(error, match=message):
        load(image)


def test_files_are_upright_and_transparency_is_white(tmp_path):
    red = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    red.save(tmp_path / "turned.png", exif=exif)
    assert load(tmp_path / "turned.png")[0].shape == (3, 4, 2)
    Image.new("RGBA", (4, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(load(tmp_path / "clear.png")[0], torch.ones(3, 2, 4))


def test_a_large_file_is_no_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # Pillow refuses twice as many
    Image.new("RGB", (4, 3)).save(tmp_path / "large.png")
    assert load(tmp_path / "large.png")[0].shape == (3, 3, 4)


def test_sixteen_bits_span_the_whole_range(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    (found,) = load(tmp_path / "deep.png")
    torch.testing.assert_close(found[:, 0], torch.tensor([[0, 128 / 255, 1]]).expand(3, -1))
