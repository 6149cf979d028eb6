# SPDX-License-Identifier: Apache-2.0
import io
from pathlib import Path

import numpy as np
import pytest
from itaclip.images import ImageError, encode, read_image, save_file, shrink
from PIL import Image


def test_reads_upright_rgb(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 0] = 255  # a mark in the top left corner
    exif = Image.Exif()
    exif[274] = 6  # to be turned right by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.size == (4, 6)
    assert image.getpixel((3, 0)) == (255, 255, 255)


def test_what_is_transparent_lies_on_white(tmp_path):
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (0, 0, 0)
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    place = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (5, 3)).save(place)
    image = read_image(place)
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (300, 200)).save(buffer, format="PNG")
    cut = buffer.getvalue()[:60]  # decoding this would fail in another way
    (tmp_path / "a.png").write_bytes(cut)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"a\.png has 300 x 200 pixels, more than 50000.*--max-pixels"):
        read_image(tmp_path / "a.png", max_pixels=50_000)
    with pytest.raises(ImageError, match="claims more than 1000 pixels"):
        read_image(tmp_path / "a.png", max_pixels=1000)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_bad_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        tmp_path / "whole.png"
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    Image.fromarray(np.ones((3, 3), dtype=np.float32)).save(tmp_path / "float.tif")
    reasons = {
        "text.png": "not an image",
        "cut.png": "damaged or cut short",
        "float.tif": "holds floats",
        "gone.png": "does not exist",
        ".": "is a folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


def test_shrink_keeps_the_ratio_and_never_enlarges():
    image = Image.new("RGB", (400, 100))
    assert shrink(image, 200).size == (200, 50)
    assert shrink(image, 400) is image
    assert shrink(image, 0) is image
    assert shrink(Image.new("RGB", (1, 900)), 100).size == (1, 100)


def test_files_are_whole_or_not_there(tmp_path):
    save_file(tmp_path / "new" / "a.bin", b"abc")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"abc"
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.bin"]
    with pytest.raises(ImageError, match="cannot be written"):
        save_file(tmp_path / "new" / "a.bin" / "b.bin", b"abc")


def test_encode_refuses_unknown_suffixes():
    with pytest.raises(ImageError, match=r"a picture must be a \.png"):
        encode(Image.new("RGB", (2, 2)), ".xyz")
    assert Image.open(io.BytesIO(encode(Image.new("RGB", (2, 2)), Path("a.JPG").suffix))).format == "JPEG"
