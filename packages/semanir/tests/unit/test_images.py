# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageCms
from semanir import images
from semanir.images import ImageError, Picture, read_picture, write_picture

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


def round_trip(picture, path):
    write_picture(picture, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_8_bit_is_kept(tmp_path, shape, suffix):
    pixels = noise(shape)
    back = round_trip(Picture(pixels, ICC, exif_bytes(), (300.0, 150.0)), tmp_path / f"a{suffix}")
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
    assert back.icc == ICC
    assert camera(back.exif) == ("A camera", None)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shape", SHAPES)
def test_16_bit_is_kept(tmp_path, shape, suffix):
    pixels = noise(shape, np.uint16)
    back = round_trip(Picture(pixels, ICC, exif_bytes(), (300.0, 150.0)), tmp_path / f"a{suffix}")
    assert back.pixels.dtype == np.uint16
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.icc == ICC
    assert camera(back.exif) == ("A camera", None)
    assert back.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_float_tiff_is_kept(tmp_path, shape):
    pixels = noise(shape, np.float32) * 3 - 1
    back = round_trip(Picture(pixels, dpi=(72.0, 72.0)), tmp_path / "a.tif")
    assert back.pixels.dtype == np.float32
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.dpi == pytest.approx((72, 72))
    assert back.icc is None


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp"])
@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_other_formats_keep_size_and_kind(tmp_path, shape, suffix):
    pixels = np.full(shape, 90, np.uint8)
    back = round_trip(Picture(pixels, ICC, exif_bytes(), (300.0, 300.0)), tmp_path / f"a{suffix}")
    np.testing.assert_allclose(back.pixels, pixels, atol=2)
    assert back.dpi == pytest.approx((300, 300), abs=0.1)
    if suffix != ".bmp":
        assert back.icc == ICC
        assert camera(back.exif) == ("A camera", None)


def test_palettes_become_colour(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").pixels.tolist() == [[[10, 20, 30]] * 4] * 3
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "b.png", transparency=0)
    pixels = read_picture(tmp_path / "b.png").pixels
    assert pixels.shape == (3, 4, 4)
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]
    assert pixels[0, 1].tolist() == [10, 20, 30, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_bitmaps_become_grey(tmp_path, suffix):
    bits = noise((6, 11)) > 127
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}").pixels, bits * np.uint8(255))


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 255)])
def test_the_one_transparent_colour_of_a_png(tmp_path, mode, colour):
    image = Image.new(mode, (3, 2), 0)
    image.putpixel((1, 1), colour)
    image.save(tmp_path / "a.png", transparency=colour)
    alpha = read_picture(tmp_path / "a.png").pixels[..., -1]
    assert alpha.tolist() == [[255, 255, 255], [255, 0, 255]]


@pytest.mark.parametrize(("grey", "colour"), [(True, (40000,)), (False, (40000, 1, 2))])
def test_the_one_transparent_colour_of_a_16_bit_png(tmp_path, grey, colour):
    pixels = np.zeros((2, 3, len(colour)), np.uint16)
    pixels[1, 1] = colour
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(3, 2, greyscale=grey, bitdepth=16, transparent=colour[0] if grey else colour)
        writer.write(file, pixels.reshape(2, -1).tolist())
    back = read_picture(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(back[..., :-1], pixels)
    assert back[..., -1].tolist() == [[65535] * 3, [65535, 0, 65535]]


def turned(pixels, orientation):
    """What a camera that was held so would store: the inverse of what orientation asks a viewer to do."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation(tmp_path, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 200
    upright[8:, :16] = 100
    stored = Image.fromarray(np.ascontiguousarray(turned(upright, orientation)))
    stored.save(tmp_path / "a.jpg", quality=100, exif=exif_bytes(_274=orientation))
    picture = read_picture(tmp_path / "a.jpg")
    np.testing.assert_allclose(picture.pixels, upright, atol=6)
    assert camera(picture.exif) == ("A camera", None)
    write_picture(picture, tmp_path / "b.jpg")
    np.testing.assert_allclose(read_picture(tmp_path / "b.jpg").pixels, upright, atol=9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation(tmp_path, orientation, dtype):
    upright = noise((5, 8, 3), dtype)
    stored = np.ascontiguousarray(turned(upright, orientation))
    extra = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=extra)
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, upright)
    write_picture(picture, tmp_path / "b.tif")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, upright)


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"planarconfig": "separate"}])
def test_tiff_layouts(tmp_path, options):
    pixels = noise((6, 5, 3), np.uint16)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    back = read_picture(tmp_path / "a.tif").pixels
    assert back.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(back, pixels)


def test_tiff_resolution_in_centimetres(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise((3, 3), np.uint16), resolution=(100, 50), resolutionunit="CENTIMETER"
    )
    assert read_picture(tmp_path / "a.tif").dpi == pytest.approx((254, 127))


def test_contents_count_and_not_the_suffix(tmp_path):
    pixels = noise((4, 5, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.png", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, pixels)
    Image.fromarray(noise((4, 5))).save(tmp_path / "b.tif", format="PNG")
    assert read_picture(tmp_path / "b.tif").pixels.shape == (4, 5)


def test_the_layout_tags_of_a_tiff_stay_behind(tmp_path):
    image = Image.fromarray(noise((4, 5, 3)))
    image.save(tmp_path / "a.tif", compression="tiff_lzw", exif=exif_bytes())
    exif = Image.Exif()
    exif.load(read_picture(tmp_path / "a.tif").exif)
    assert dict(exif) == {271: "A camera"}


def test_deep_pnm(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n# deep\n2 1\n65535\n" + bytes([1, 2, 200, 3]))
    assert read_picture(tmp_path / "a.pgm").pixels.tolist() == [[258, 51203]]
    (tmp_path / "a.ppm").write_bytes(b"P6\n1 1\n65535\n" + bytes(6))
    with pytest.raises(ImageError, match="more than 8 bits"):
        read_picture(tmp_path / "a.ppm")
    (tmp_path / "b.ppm").write_bytes(b"P6\n1 1\n255\n" + bytes([1, 2, 3]))
    assert read_picture(tmp_path / "b.ppm").pixels.tolist() == [[[1, 2, 3]]]


def test_the_preview_beside_a_photograph_is_no_animation(tmp_path):
    first, second = Image.new("RGB", (16, 16), (9, 9, 9)), Image.new("RGB", (8, 8))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "a.jpg").pixels.shape == (16, 16, 3)


def test_missing_folder_and_text(tmp_path):
    with pytest.raises(ImageError, match=r"none.png does not exist"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_picture(tmp_path)
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_text("hello, no image here")
        with pytest.raises(ImageError, match=f"{name} is not an image"):
            read_picture(tmp_path / name)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="is not an image"):
        read_picture(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="does not exist"):
        read_picture(tmp_path / "a.png" / "b.png")


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.tif", "deep.tif", "a.webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(tmp_path, name, share):
    pixels = noise((40, 40, 3), np.uint16 if "deep" in name else np.uint8)
    write_picture(Picture(pixels), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"is damaged or cut short|is not an image"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.tif", "deep.tif", "float.tif"])
def test_damage_is_never_another_error(tmp_path, name):
    dtype = {"d": np.uint16, "f": np.float32, "a": np.uint8}[name[0]]
    write_picture(Picture(noise((12, 12, 3), dtype), ICC), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        for place in generator.integers(4, len(data), 6):
            damaged[place] = generator.integers(256)
        (tmp_path / name).write_bytes(damaged)
        with contextlib.suppress(ImageError):
            read_picture(tmp_path / name)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 6)])
@pytest.mark.parametrize("side", [100_000, 11_000])
def test_a_huge_header_is_refused_before_decoding(tmp_path, side, depth, colour, monkeypatch):
    monkeypatch.setattr(images, "_read_deep_png", None)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"claims .*--max-pixels"):
        read_picture(tmp_path / "a.png")
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.tif", "deep.tif"])
def test_max_pixels(tmp_path, name):
    write_picture(Picture(noise((10, 10), np.uint16 if "deep" in name else np.uint8)), tmp_path / name)
    assert read_picture(tmp_path / name, max_pixels=100).pixels.shape == (10, 10)
    with pytest.raises(ImageError, match=r"more than 99.*--max-pixels"):
        read_picture(tmp_path / name, max_pixels=99)


def test_animations_and_pages(tmp_path):
    frames = [Image.new("RGB", (5, 5), (i, 0, 0)) for i in (1, 100, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "gif.png", format="GIF", save_all=True, append_images=frames[1:])
    for name in ("a.png", "gif.png"):
        with pytest.raises(ImageError, match="animation"):
            read_picture(tmp_path / name)
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="3 pages"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    Image.new("CMYK", (8, 8)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match="mode CMYK"):
        read_picture(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("pixels", "options", "match"),
    [
        (np.zeros((4, 4), np.int32), {}, "int32"),
        (np.zeros((4, 4), np.float64), {}, "float64"),
        (np.zeros((4, 4, 4), np.uint16), {"photometric": "separated"}, "separated"),
        (np.zeros((4, 4, 4), np.uint16), {"photometric": "rgb", "extrasamples": ["assocalpha"]}, "premulti"),
        (
            np.zeros((4, 4, 5), np.uint16),
            {"photometric": "rgb", "extrasamples": ["unspecified"] * 2, "planarconfig": "contig"},
            r"shape \(4, 4, 5\)",
        ),
    ],
)
def test_tiffs_that_would_lose(tmp_path, pixels, options, match):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(ImageError, match=match):
        read_picture(tmp_path / "a.tif")


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
        write_picture(Picture(np.zeros(shape, dtype)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.png", tmp_path / "none" / "a.png"):
        with pytest.raises(ImageError, match="cannot be written"):
            write_picture(Picture(noise((4, 4))), path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="cannot be written"):
        write_picture(Picture(noise((4, 4))), tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_long_names(tmp_path):
    path = tmp_path / f"{'n' * 250}.png"
    assert round_trip(Picture(noise((4, 4))), path).pixels.shape == (4, 4)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()]
)
def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    write_picture(Picture(noise((4, 4))), path)
    before = path.read_bytes()

    def half(picture, suffix, file: io.BufferedWriter):
        file.write(b"half")
        raise error

    monkeypatch.setattr(images, "_encode", half)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ImageError
    with pytest.raises(expected):
        write_picture(Picture(noise((4, 4))), path)
    with pytest.raises(expected):
        write_picture(Picture(noise((4, 4))), tmp_path / "b.png")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_too_large_for_its_format(tmp_path):
    with pytest.raises(ImageError, match="cannot be written"):
        write_picture(Picture(np.zeros((1, 17_000, 3), np.uint8)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []
