# SPDX-License-Identifier: Apache-2.0
"""Images of every form."""

import numpy as np
import pytest
import torch
from diffeat import images as module
from diffeat.images import fit, image_hash, load_images
from PIL import Image


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
        (found,) = load_images(form)
        torch.testing.assert_close(found, tensor.float() / 255)
    assert len(load_images(forms[:3])) == 3
    assert len({image_hash(found) for found in load_images(forms[:4])}) == 1


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
        (torch.rand(1, 5, 5), ValueError, r"image 0 must have 3 colours and 2 sides, got \(1, 5, 5\)"),
        (torch.rand(3, 5, 5) + 1, ValueError, r"image 0 must lie in \[0, 1\], got values from 1"),
        (torch.full((3, 5, 5), float("nan")), ValueError, "image 0 must lie in"),
        (np.zeros((5, 5)), ValueError, r"image 0 must be \(height, width, 3\), got \(5, 5\)"),
        ([3], TypeError, "image 0 must be a path, Pillow image, array or tensor, got int"),
        ("nothing.png", OSError, r"nothing\.png"),
    ],
)
def test_bad_images(image, error, message):
    with pytest.raises(error, match=message):
        load_images(image)


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 10)
    with pytest.raises(ValueError, match="has 4x3 pixels, more than the 10 allowed; shrink it first"):
        load_images(Image.new("RGB", (4, 3)))


def test_too_many_pixels_of_a_file_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    Image.new("RGB", (4, 3)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png is not an image that can be read"):
        load_images(tmp_path / "bomb.png")


def test_sixteen_bits_keep_their_range_and_floats_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    (found,) = load_images(tmp_path / "deep.png")
    torch.testing.assert_close(found[:, 0], torch.tensor([[0, 32768 / 65535, 1]]).expand(3, -1))
    Image.new("F", (4, 3)).save(tmp_path / "floats.tiff")
    with pytest.raises(ValueError, match=r"floats\.tiff holds pixels of mode F"):
        load_images(tmp_path / "floats.tiff")


def test_damaged_files_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:800])
    with pytest.raises(ValueError, match=r"cut\.png is damaged or cut short"):
        load_images(tmp_path / "cut.png")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg is not an image that can be read"):
        load_images(tmp_path / "text.jpg")
