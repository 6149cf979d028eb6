# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from common_kernels.runtime.images import (
    ImageError,
    ImageFile,
    encode_image,
    encoding,
    read_image,
    write_image,
)
from PIL import Image, ImageCms

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SHAPES = [(9, 7), (9, 7, 2), (9, 7, 3), (9, 7, 4)]


def noise(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    if dtype == np.float32:
        return values.astype(np.float32)
    return (values * (np.iinfo(dtype).max + 1)).astype(dtype)


def exif_bytes(**tags):
    exif = Image.Exif()
    exif[271] = "A camera"
    for tag, value in tags.items():
        exif[int(tag[1:])] = value
    return exif.tobytes()


def camera(block):
    exif = Image.Exif()
    exif.load(block)
    return exif.get(271), exif.get(274)


def round_trip(image, path):
    write_image(image, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_8_bit_is_kept(tmp_path, shape, suffix):
    pixels = noise(shape)
    back = round_trip(ImageFile(pixels, ICC, exif_bytes(), (300.0, 150.0)), tmp_path / f"a{suffix}")
    assert back.pixels.dtype == np.uint8
    if suffix == ".webp":  # knows only RGB and RGBA
        colour = (
            np.repeat(pixels.reshape(9, 7, -1)[..., :1], 3, -1) if pixels.shape[2:] in ((), (2,)) else None
        )
        pixels = (
            pixels if colour is None else np.dstack([colour, *([pixels[..., 1]] if pixels.ndim == 3 else [])])
        )
    else:
        assert back.dpi == pytest.approx((300, 150), abs=0.02)
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.icc_profile == ICC
    assert camera(back.exif) == ("A camera", None)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shape", SHAPES)
def test_16_bit_is_kept(tmp_path, shape, suffix):
    pixels = noise(shape, np.uint16)
    back = round_trip(ImageFile(pixels, ICC, exif_bytes(), (300.0, 150.0)), tmp_path / f"a{suffix}")
    assert back.pixels.dtype == np.uint16
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.icc_profile == ICC
    assert camera(back.exif) == ("A camera", None)
    assert back.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_float_tiff_is_kept(tmp_path, shape):
    pixels = noise(shape, np.float32) * 3 - 1
    back = round_trip(ImageFile(pixels, dpi=(72.0, 72.0)), tmp_path / "a.tif")
    assert back.pixels.dtype == np.float32
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.dpi == pytest.approx((72, 72))
    assert back.icc_profile is None


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp"])
@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_other_formats_keep_size_and_kind(tmp_path, shape, suffix):
    pixels = np.full(shape, 90, np.uint8)
    back = round_trip(ImageFile(pixels, ICC, exif_bytes(), (300.0, 300.0)), tmp_path / f"a{suffix}")
    np.testing.assert_allclose(back.pixels, pixels, atol=2)
    assert back.dpi == pytest.approx((300, 300), abs=0.1)
    if suffix != ".bmp":
        assert back.icc_profile == ICC
        assert camera(back.exif) == ("A camera", None)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "match"),
    [
        ("a.png", (4, 4), np.float32, "float"),
        ("a.jpg", (4, 4), np.uint16, "16 bits"),
        ("a.webp", (4, 4, 3), np.uint16, "16 bits"),
        ("a.jpg", (4, 4, 4), np.uint8, "transparency"),
        ("a.bmp", (4, 4, 2), np.uint8, "transparency"),
        ("a.gif", (4, 4), np.uint8, "no known image suffix"),
        ("a", (4, 4), np.uint8, "no known image suffix"),
    ],
)
def test_formats_that_cannot_hold_it(tmp_path, name, shape, dtype, match):
    with pytest.raises(ImageError, match=match):
        write_image(ImageFile(np.zeros(shape, dtype)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(ImageFile(noise((4, 4))), tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(ImageFile(noise((4, 4))), tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_long_names(tmp_path):
    path = tmp_path / f"{'n' * 250}.png"
    assert round_trip(ImageFile(noise((4, 4))), path).pixels.shape == (4, 4)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()]
)
def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    write_image(ImageFile(noise((4, 4))), path)
    before = path.read_bytes()

    def half(image, suffix, file, quality):
        file.write(b"half")
        raise error

    monkeypatch.setattr(encoding, "_encode", half)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ImageError
    with pytest.raises(expected):
        write_image(ImageFile(noise((4, 4))), path)
    with pytest.raises(expected):
        write_image(ImageFile(noise((4, 4))), tmp_path / "b.png")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_image_too_large_for_its_format(tmp_path):
    with pytest.raises(ImageError, match=r"cannot hold 17000 x 1 pixels: a side has at most 16383"):
        write_image(ImageFile(np.zeros((1, 17_000, 3), np.uint8)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_bytes_are_those_of_the_file(tmp_path, suffix):
    image = ImageFile(noise((8, 8, 3)), ICC, exif_bytes(), (300.0, 300.0))
    write_image(image, tmp_path / f"a{suffix}")
    assert encode_image(image, suffix.upper()) == (tmp_path / f"a{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lower_quality_makes_a_smaller_file(suffix):
    image = noise((64, 64, 3))
    assert len(encode_image(image, suffix, quality=50)) < len(encode_image(image, suffix)) / 2


def test_pillow_images_and_arrays_are_written(tmp_path):
    grey = noise((5, 6, 1), np.float32).astype(np.float64)
    write_image(grey, tmp_path / "new" / "a.tif")
    np.testing.assert_array_equal(
        read_image(tmp_path / "new" / "a.tif").pixels, grey[..., 0].astype(np.float32)
    )
    turned = Image.fromarray(noise((5, 6, 3)))
    turned.save(tmp_path / "b.png", exif=exif_bytes(_274=6), dpi=(72, 72))
    with Image.open(tmp_path / "b.png") as opened:
        write_image(opened, tmp_path / "c.png")
    back = read_image(tmp_path / "c.png")
    np.testing.assert_array_equal(back.pixels, np.rot90(np.asarray(turned), -1))
    assert camera(back.exif) == ("A camera", None)
    assert back.dpi == pytest.approx((72, 72), abs=0.02)


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        ("a.png", TypeError, "an ImageFile, a Pillow image or an array, got str"),
        (np.zeros((2, 2), np.int64), ImageError, "got int64"),
        (np.zeros((2, 2, 5), np.uint8), ImageError, r"got shape \(2, 2, 5\)"),
        (np.zeros((0, 2), np.uint8), ImageError, r"got shape \(0, 2\)"),
    ],
)
def test_what_is_no_image_is_not_written(image, error, match):
    with pytest.raises(error, match=match):
        encode_image(image, ".png")


def test_bytes_of_a_format_that_cannot_hold_it():
    with pytest.raises(ImageError, match=r"a \.jpg file cannot hold transparency"):
        encode_image(np.zeros((2, 2, 4), np.uint8), ".jpg")
    with pytest.raises(ImageError, match=r"a \.webp file cannot hold 17000 x 1 pixels"):
        encode_image(np.zeros((1, 17_000, 3), np.uint8), ".webp")
