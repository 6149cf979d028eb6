# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import struct
import zlib

import numpy as np
import png
import pytest
import tifffile
from common_kernels.runtime.images import ImageError, ImageFile, as_rgb, read_image, read_size, write_image
from PIL import Image, ImageCms

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


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


def test_palettes_become_colour(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[10, 20, 30]] * 4] * 3
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "b.png", transparency=0)
    pixels = read_image(tmp_path / "b.png").pixels
    assert pixels.shape == (3, 4, 4)
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]
    assert pixels[0, 1].tolist() == [10, 20, 30, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_bitmaps_become_grey(tmp_path, suffix):
    bits = noise((6, 11)) > 127
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels, bits * np.uint8(255))


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 255)])
def test_the_one_transparent_colour_of_a_png(tmp_path, mode, colour):
    image = Image.new(mode, (3, 2), 0)
    image.putpixel((1, 1), colour)
    image.save(tmp_path / "a.png", transparency=colour)
    alpha = read_image(tmp_path / "a.png").pixels[..., -1]
    assert alpha.tolist() == [[255, 255, 255], [255, 0, 255]]


@pytest.mark.parametrize(("grey", "colour"), [(True, (40000,)), (False, (40000, 1, 2))])
def test_the_one_transparent_colour_of_a_16_bit_png(tmp_path, grey, colour):
    pixels = np.zeros((2, 3, len(colour)), np.uint16)
    pixels[1, 1] = colour
    with (tmp_path / "a.png").open("wb") as file:
        writer = png.Writer(3, 2, greyscale=grey, bitdepth=16, transparent=colour[0] if grey else colour)
        writer.write(file, pixels.reshape(2, -1).tolist())
    back = read_image(tmp_path / "a.png").pixels
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
    image = read_image(tmp_path / "a.jpg")
    np.testing.assert_allclose(image.pixels, upright, atol=6)
    assert camera(image.exif) == ("A camera", None)
    write_image(image, tmp_path / "b.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "b.jpg").pixels, upright, atol=9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_orientation(tmp_path, orientation, dtype):
    upright = noise((5, 8, 3), dtype)
    stored = np.ascontiguousarray(turned(upright, orientation))
    extra = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=extra)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, upright)
    write_image(image, tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").pixels, upright)


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"planarconfig": "separate"}])
def test_tiff_layouts(tmp_path, options):
    pixels = noise((6, 5, 3), np.uint16)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    back = read_image(tmp_path / "a.tif").pixels
    assert back.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(back, pixels)


def test_tiff_resolution_in_centimetres(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", noise((3, 3), np.uint16), resolution=(100, 50), resolutionunit="CENTIMETER"
    )
    assert read_image(tmp_path / "a.tif").dpi == pytest.approx((254, 127))


def test_contents_count_and_not_the_suffix(tmp_path):
    pixels = noise((4, 5, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.png", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)
    Image.fromarray(noise((4, 5))).save(tmp_path / "b.tif", format="PNG")
    assert read_image(tmp_path / "b.tif").pixels.shape == (4, 5)


def test_the_layout_tags_of_a_tiff_stay_behind(tmp_path):
    image = Image.fromarray(noise((4, 5, 3)))
    image.save(tmp_path / "a.tif", compression="tiff_lzw", exif=exif_bytes())
    exif = Image.Exif()
    exif.load(read_image(tmp_path / "a.tif").exif)
    assert dict(exif) == {271: "A camera"}


def test_deep_pnm(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n# deep\n2 1\n65535\n" + bytes([1, 2, 200, 3]))
    assert read_image(tmp_path / "a.pgm").pixels.tolist() == [[258, 51203]]
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 # deep\n1023\n" + bytes([0, 0, 2, 0, 3, 255]))
    assert read_image(tmp_path / "a.ppm").pixels.tolist() == [[[0, 32800, 65535]]]
    (tmp_path / "b.ppm").write_bytes(b"P6\n1 1\n255\n" + bytes([1, 2, 3]))
    assert read_image(tmp_path / "b.ppm").pixels.tolist() == [[[1, 2, 3]]]


def test_the_preview_beside_a_photograph_is_no_animation(tmp_path):
    first, second = Image.new("RGB", (16, 16), (9, 9, 9)), Image.new("RGB", (8, 8))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.jpg").pixels.shape == (16, 16, 3)


def test_missing_folder_and_text(tmp_path):
    with pytest.raises(ImageError, match=r"none.png does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_text("hello, no image here")
        with pytest.raises(ImageError, match=f"{name} is not an image"):
            read_image(tmp_path / name)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty.png is empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.png" / "b.png")


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.tif", "deep.tif", "a.webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(tmp_path, name, share):
    pixels = noise((40, 40, 3), np.uint16 if "deep" in name else np.uint8)
    write_image(ImageFile(pixels), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"is damaged or cut short|is not an image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.tif", "deep.tif", "float.tif"])
def test_damage_is_never_another_error(tmp_path, name):
    dtype = {"d": np.uint16, "f": np.float32, "a": np.uint8}[name[0]]
    write_image(ImageFile(noise((12, 12, 3), dtype), ICC), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(data)
        for place in generator.integers(4, len(data), 6):
            damaged[place] = generator.integers(256)
        (tmp_path / name).write_bytes(damaged)
        with contextlib.suppress(ImageError):
            read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "JPEG", "BMP", "ICO", "TGA", "JPEG2000"])
def test_damage_of_what_pillow_reads_is_never_another_error(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow knows no {kind}")
    Image.fromarray(noise((12, 12, 3))).save(tmp_path / "a", format=kind)
    data = (tmp_path / "a").read_bytes()
    generator = np.random.default_rng(2)
    for _ in range(40):
        damaged = bytearray(data)
        for place in generator.integers(4, min(len(data), 400), 6):
            damaged[place] = generator.integers(256)
        (tmp_path / "a").write_bytes(damaged)
        with contextlib.suppress(ImageError):
            read_image(tmp_path / "a", max_pixels=10_000)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 6)])
@pytest.mark.parametrize("side", [100_000, 16_000])
def test_a_huge_header_is_refused_before_decoding(tmp_path, side, depth, colour, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", None)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"claims .*raise max_pixels"):
        read_image(tmp_path / "a.png")
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.tif", "deep.tif"])
def test_max_pixels(tmp_path, name):
    write_image(ImageFile(noise((10, 10), np.uint16 if "deep" in name else np.uint8)), tmp_path / name)
    assert read_image(tmp_path / name, max_pixels=100).pixels.shape == (10, 10)
    with pytest.raises(ImageError, match=r"more than 99: raise max_pixels"):
        read_image(tmp_path / name, max_pixels=99)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames(tmp_path, kind):
    frames = [Image.new("RGB", (5, 5), (i, 0, 0)) for i in (1, 100, 200)]
    frames[0].save(tmp_path / "a.x", format=kind, save_all=True, append_images=frames[1:], lossless=True)
    image = read_image(tmp_path / "a.x")
    assert image.note == f"first of 3 {'pages' if kind == 'TIFF' else 'frames'}"
    assert image.pixels.tolist() == [[[1, 0, 0]] * 5] * 5


def test_smaller_copies_are_no_pages(tmp_path):
    large, small = noise((8, 8, 3), np.uint16), noise((4, 4, 3), np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(small, photometric="rgb", subfiletype=1)
        tiff.write(large, photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, large)
    assert image.note == ""


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile(tmp_path, suffix):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / f"a{suffix}", quality=100)
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(image.pixels, np.full((8, 8, 3), (255, 0, 0)), atol=3)
    assert (image.icc_profile, image.note) == (None, "converted from CMYK")


def test_deep_cmyk(tmp_path):
    pixels = np.full((4, 6, 4), (0, 65535, 0, 0), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="separated")
    image = read_image(tmp_path / "a.tif")
    assert image.pixels.tolist() == [[[255, 0, 255]] * 6] * 4
    assert image.note == "converted from CMYK"


def test_lab(tmp_path):
    Image.new("LAB", (3, 2), (255, 128, 128)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").pixels, 255, atol=2)


def test_premultiplied_transparency_becomes_straight(tmp_path):
    straight = np.array([[[60000, 30000, 10, 32768], [0, 0, 0, 0]]], np.uint16)
    pixels = straight.copy()
    pixels[..., :3] = (straight[..., :3].astype(np.float64) * straight[..., 3:] / 65535).round()
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").pixels, straight, atol=1)


def test_a_channel_of_unknown_meaning(tmp_path):
    pixels = noise((4, 6, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, pixels[..., :3])
    assert image.note == "a channel of unknown meaning left out"


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero(tmp_path, dtype):
    pixels = noise((4, 6), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    white = 65535 if dtype == np.uint16 else np.float32(1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, white - pixels)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    pixels = noise((4, 6), np.float32).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    back = read_image(tmp_path / "a.tif").pixels
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, pixels.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiled_tiff(tmp_path, dtype):
    pixels = noise((40, 50, 3), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(16, 32), bigtiff=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)


def pack_lzw(data):
    """The LZW bytes that Pillow makes of a row of grey pixels."""
    file = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(file, format="TIFF", compression="tiff_lzw")
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        [page] = tiff.pages
        file.seek(page.dataoffsets[0])
        return file.read(page.databytecounts[0])


@pytest.mark.parametrize(
    "layout", [{"rowsperstrip": 5}, {"tile": (16, 16)}, {"rowsperstrip": 4, "planarconfig": "separate"}]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_lzw_keeps_its_depth(tmp_path, layout, dtype):
    pixels = noise((18, 21, 3), dtype)
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in layout else pixels
    if "tile" in layout:
        padded = np.pad(pixels, ((0, 14), (0, 11), (0, 0)))
        segments = [padded[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)]
    else:
        step = layout["rowsperstrip"]
        planes = stored if "planarconfig" in layout else [stored]
        segments = [plane[top : top + step] for plane in planes for top in range(0, 18, step)]
    tifffile.imwrite(
        tmp_path / "a.tif",
        iter([pack_lzw(segment.tobytes()) for segment in segments]),
        shape=stored.shape,
        dtype=dtype,
        photometric="rgb",
        compression="deflate",  # of which nothing is done to finished segments
        **layout,
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(5)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.note == ""


def test_lzw_with_differences(tmp_path):
    Image.fromarray(noise((8, 8), np.uint16)).save(
        tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={317: 2}
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, noise((8, 8), np.uint16))


@pytest.mark.parametrize(
    ("pixels", "options", "match"),
    [
        (np.zeros((4, 4), np.int32), {}, "int32"),
        (np.zeros((4, 4), np.int16), {}, "int16"),
        (np.zeros((4, 4), np.uint16), {"photometric": "cfa"}, "camera raw"),
        (np.zeros((4, 4, 3), np.uint16), {"photometric": "cielab"}, "deep cielab"),
        (
            np.zeros((4, 4, 5), np.uint16),
            {"photometric": "rgb", "extrasamples": ["unspecified"] * 2, "planarconfig": "contig"},
            "has 5 channels",
        ),
    ],
)
def test_tiffs_without_a_known_range(tmp_path, pixels, options, match):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(ImageError, match=match):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize("block", [b"Exif\0\0garbage!", b"xx"], ids=["text", "short"])
def test_a_broken_exif_block_does_not_cost_the_pixels(tmp_path, suffix, block):
    path = tmp_path / f"a.{suffix}"
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 4, 3)
    Image.fromarray(pixels).save(path, exif=block, lossless=True)
    found = read_image(path)
    assert (found.pixels.shape, found.exif) == ((8, 4, 3), None)
    assert read_size(path) == (8, 4)
    if suffix != "jpg":
        assert found.note == "without its EXIF block, which is damaged"
        np.testing.assert_array_equal(found.pixels, pixels)
    with Image.open(path) as opened:
        opened.load()
        before = dict(opened.info)
        assert as_rgb(opened).size == (4, 8)
        assert opened.info == before


def test_a_cut_png_is_damaged_whatever_its_exif_block(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"xx")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:4000])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_image(tmp_path / "a.png")
