# SPDX-License-Identifier: Apache-2.0
import io
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
import torch
from common_kernels.runtime.images import (
    ImageError,
    ImageFile,
    as_rgb,
    encode_image,
    read_frames,
    read_image,
    read_labels,
    read_rgb,
    read_size,
    write_image,
)
from common_kernels.runtime.images.decoding import image_errors
from PIL import Image, ImageCms


def fixed(*values):
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def make_profile(space, name="test", **tags):
    """The smallest ICC profile: a header, a description and the given tags."""
    text = name.encode() + b"\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    content = {"desc": desc, "cprt": b"text" + bytes(4) + b"free\0", **tags}
    table, data = b"", b""
    start = 132 + 12 * len(content)
    for tag, value in content.items():
        value += bytes(-len(value) % 4)
        table += tag.encode() + struct.pack(">II", start + len(data), len(value))
        data += value
    kind, pcs = (b"prtr", b"Lab ") if space == b"CMYK" else (b"mntr", b"XYZ ")
    header = struct.pack(">II", start + len(data), 0) + b"\x02\x40\0\0" + kind + space + pcs + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return header + struct.pack(">I", len(content)) + table + data


def xyz(*values):
    return b"XYZ " + bytes(4) + fixed(*values)


LINEAR = b"curv" + bytes(4) + struct.pack(">IH", 1, 256) + bytes(2)
RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
LINEAR_RGB = make_profile(
    b"RGB ",
    wtpt=xyz(0.9642, 1, 0.8249),
    rTRC=LINEAR,
    gTRC=LINEAR,
    bTRC=LINEAR,
    rXYZ=xyz(*RED),
    gXYZ=xyz(*GREEN),
    bXYZ=xyz(*BLUE),
)
LINEAR_GREY = make_profile(b"GRAY", wtpt=xyz(0.9642, 1, 0.8249), kTRC=LINEAR)
# a press on which cyan prints black and no other ink prints
_TABLE = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + bytes(range(256)) * 4
_CORNERS = bytes([255, 128, 128]) * 8 + bytes([0, 128, 128]) * 8
BLACK_CYAN = make_profile(
    b"CMYK", wtpt=xyz(0.9642, 1, 0.8249), A2B0=_TABLE + _CORNERS + bytes(range(256)) * 3
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("pixels", "rgb"),
    [
        (np.uint8(90), (90, 90, 90)),
        (np.uint16(257 * 90 + 128), (90, 90, 90)),
        (np.uint16(257 * 90 + 129), (91, 91, 91)),
        (np.float32(0.5), (128, 128, 128)),
        (np.uint8([10, 255]), (10, 10, 10)),
        (np.uint8([10, 0]), (200, 100, 0)),
        (np.uint16([0, 0, 65535]), (0, 0, 255)),
        (np.uint16([65535, 0, 0, 0]), (200, 100, 0)),
        (np.uint8([0, 0, 0, 51]), (160, 80, 0)),
        (np.float32([1, 0, 0, 0.5]), (227, 50, 0)),
        (np.float32([1.2, -0.2, 0]), (255, 0, 0)),
    ],
)
def test_every_depth_and_every_transparency_becomes_rgb(pixels, rgb):
    image = ImageFile(np.broadcast_to(pixels, (1, 2, *pixels.shape)))
    result = image.to_rgb((200, 100, 0))
    assert (result.mode, result.size) == ("RGB", (2, 1))
    np.testing.assert_allclose(result.getpixel((1, 0)), rgb, atol=1 if rgb == (227, 50, 0) else 0)


@pytest.mark.parametrize("value", [-0.3, 1.3, 255.0, np.nan, np.inf])
def test_floats_of_another_range_are_refused(tmp_path, value):
    pixels = np.full((2, 2), value, np.float32)
    write_image(pixels, tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif holds (floats .*scale them first|NaN)"):
        read_rgb(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="the image holds"):
        as_rgb(pixels)


def test_a_float_tiff_is_not_black(tmp_path):
    write_image(np.full((2, 3, 3), 0.25, np.float32), tmp_path / "a.tif")
    assert read_rgb(tmp_path / "a.tif").getpixel((0, 0)) == (64, 64, 64)


@pytest.mark.parametrize(("profile", "pixels"), [(LINEAR_RGB, (2, 2, 3)), (LINEAR_GREY, (2, 2))])
def test_profiles_are_converted_to_srgb(tmp_path, profile, pixels):
    write_image(ImageFile(np.full(pixels, 128, np.uint8), profile), tmp_path / "a.png")
    np.testing.assert_allclose(read_rgb(tmp_path / "a.png").getpixel((0, 0)), 188, atol=2)
    kept = read_image(tmp_path / "a.png")
    assert kept.icc_profile == profile
    assert kept.to_rgb(srgb=False).getpixel((0, 0)) == (128, 128, 128)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_allclose(as_rgb(opened).getpixel((0, 0)), 188, atol=2)


@pytest.mark.parametrize("profile", [SRGB, b"damaged", BLACK_CYAN])
def test_profiles_that_say_nothing_about_the_colours(profile):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(np.asarray(ImageFile(pixels, profile).to_rgb()), pixels)


def test_transparent_parts_keep_the_background_under_a_profile():
    pixels = np.full((1, 1, 4), (128, 128, 128, 0), np.uint8)
    assert ImageFile(pixels, LINEAR_RGB).to_rgb((1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(("inks", "grey"), [((0, 255, 255, 255), 255), ((255, 0, 0, 0), 0)])
def test_cmyk_through_its_profile(tmp_path, inks, grey):
    image = Image.new("CMYK", (8, 8), inks)
    image.save(tmp_path / "a.jpg", icc_profile=BLACK_CYAN)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").pixels, grey, atol=3)
    assert read_image(tmp_path / "a.jpg").icc_profile is None
    image.info["icc_profile"] = BLACK_CYAN
    np.testing.assert_allclose(as_rgb(image).getpixel((0, 0)), grey, atol=3)


def palette_with_transparency():
    image = Image.new("P", (3, 2), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((2, 1), 1)
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "corner"),
    [
        (Image.new("1", (3, 2), 1), (255, 255, 255)),
        (Image.new("L", (3, 2), 7), (7, 7, 7)),
        (Image.new("LA", (3, 2), (0, 0)), (255, 255, 255)),
        (palette_with_transparency(), (200, 100, 50)),
        (Image.new("RGBA", (3, 2), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBa", (3, 2), (50, 0, 0, 128)), (177, 127, 127)),
        (Image.new("RGBX", (3, 2), (5, 6, 7, 0)), (5, 6, 7)),
        (Image.new("YCbCr", (3, 2), (90, 128, 128)), (90, 90, 90)),
        (Image.new("HSV", (3, 2), (0, 0, 9)), (9, 9, 9)),
        (Image.new("LAB", (3, 2), (255, 128, 128)), (255, 255, 255)),
        (Image.new("I", (3, 2), 257 * 8), (8, 8, 8)),
        (Image.new("I;16", (3, 2), 257 * 8), (8, 8, 8)),
        (Image.new("F", (3, 2), 1.0), (255, 255, 255)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_pillow_images_of_every_mode(image, corner):
    before = image.copy()
    result = as_rgb(image)
    assert (result.mode, result.size) == ("RGB", (3, 2))
    np.testing.assert_allclose(result.getpixel((2, 1)), corner, atol=1)
    assert image.tobytes() == before.tobytes()
    if "transparency" in image.info:
        assert as_rgb(image, background=(1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)


def test_integers_without_a_range():
    with pytest.raises(ImageError, match="img 3 holds integers of 32 bits"):
        as_rgb(Image.new("I", (2, 2), 65536), name="img 3")


GRADIENT = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    "source",
    [
        GRADIENT,
        GRADIENT.astype(np.uint16) * 257,
        GRADIENT.astype(np.float16) / 255,
        GRADIENT / 255,
        np.dstack([GRADIENT, np.full((2, 4), 255, np.uint8)]),
        GRADIENT[:, ::-1][:, ::-1],
        torch.from_numpy(GRADIENT).permute(2, 0, 1),
        (torch.from_numpy(GRADIENT).permute(2, 0, 1) / 255).bfloat16(),
        (torch.from_numpy(GRADIENT).permute(2, 0, 1) / 255).double().requires_grad_(),
        Image.fromarray(GRADIENT),
        encode_image(GRADIENT, ".png"),
        bytearray(encode_image(GRADIENT, ".tif")),
        io.BytesIO(encode_image(GRADIENT, ".webp")),
    ],
    ids=lambda source: f"{type(source).__name__}-{getattr(source, 'dtype', '')}",
)
def test_images_of_every_form(source):
    atol = 1 if getattr(source, "dtype", None) == torch.bfloat16 else 0
    np.testing.assert_allclose(np.asarray(as_rgb(source)).astype(int), GRADIENT, atol=atol)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_paths(tmp_path, kind):
    write_image(GRADIENT, tmp_path / "a.png")
    np.testing.assert_array_equal(as_rgb(kind(tmp_path / "a.png")), GRADIENT)
    with pytest.raises(ImageError, match=r"b\.png does not exist"):
        as_rgb(kind(tmp_path / "b.png"))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2)])
def test_grey_arrays_and_tensors(shape):
    array = np.full(shape, 255, np.uint8)
    tensor = torch.from_numpy(array if len(shape) == 2 else np.moveaxis(array, -1, 0).copy())
    for source in (array, tensor):
        assert as_rgb(source).size == (5, 4)
        assert as_rgb(source).getpixel((4, 3)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        (None, TypeError, "the image must be a path, bytes, .* got NoneType"),
        ([GRADIENT], TypeError, "got list"),
        (GRADIENT.astype(np.int64), TypeError, "must be uint8, uint16 or floating, got int64"),
        (torch.zeros(3, 2, 2, dtype=torch.int32), TypeError, "must be uint8, uint16 or floating, got int32"),
        (GRADIENT > 3, TypeError, "got bool"),
        (GRADIENT[None], ValueError, r"array must be .* got \(1, 2, 4, 3\)"),
        (GRADIENT.transpose(2, 0, 1)[:, :, :0], ValueError, r"got \(3, 2, 0\)"),
        (torch.zeros(1, 3, 2, 2), ValueError, r"tensor must be .* got \(1, 3, 2, 2\)"),
        (torch.zeros(8, 8, 3), ValueError, r"tensor must be .* got \(8, 8, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"must have pixels, got shape \(0, 4, 3\)"),
        (io.StringIO("text"), TypeError, "open for reading bytes, not text"),
        (b"", ImageError, "the image is empty"),
        (b"hello, no image here", ImageError, "the image is not an image that can be read"),
        (encode_image(GRADIENT, ".png")[:48], ImageError, "the image is damaged or cut short"),
    ],
)
def test_what_is_no_image(source, error, match):
    with pytest.raises(error, match=match):
        as_rgb(source)


def test_an_opened_image_that_is_cut_short(tmp_path):
    data = encode_image(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8), ".jpg")
    with (
        Image.open(io.BytesIO(data[: len(data) // 2])) as opened,
        pytest.raises(ImageError, match="cut short"),
    ):
        as_rgb(opened)
    with Image.open(io.BytesIO(data)) as opened, pytest.raises(ImageError, match="raise max_pixels"):
        as_rgb(opened, max_pixels=64 * 64 - 1)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypcrx ", "a camera raw file"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\xff\x0a..", "a JPEG XL image"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE\n", "a Radiance HDR image"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", "a PostScript document"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="">', "an SVG drawing"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, start, kind):
    (tmp_path / "a.jpg").write_bytes(start + bytes(64))
    with pytest.raises(ImageError, match=rf"a\.jpg is {kind}, which is not supported: convert it to PNG"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(tmp_path / "a.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission(tmp_path):
    (tmp_path / "a.png").touch(mode=0)
    with pytest.raises(ImageError, match="may not be read: check its permissions"):
        read_image(tmp_path / "a.png")


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: File name too long"):
        read_image(tmp_path / ("n" * 300))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_one_pixel(tmp_path, suffix):
    write_image(np.full((1, 1, 3), 200, np.uint8), tmp_path / f"a{suffix}")
    assert read_rgb(tmp_path / f"a{suffix}").getpixel((0, 0)) == (200, 200, 200)
    assert read_size(tmp_path / f"a{suffix}") == (1, 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_size_without_decoding(tmp_path, name, orientation, monkeypatch):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (6, 3)).save(tmp_path / name, exif=exif)
    whole = read_image(tmp_path / name)
    monkeypatch.setattr(Image.Image, "load", None)
    assert (
        read_size(tmp_path / name) == (whole.height, whole.width) == ((6, 3) if orientation == 6 else (3, 6))
    )
    with pytest.raises(ImageError, match="more than 17: raise max_pixels"):
        read_size(tmp_path / name, max_pixels=17)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_all_frames(kind):
    frames = [Image.new("RGB", (5, 4), (i, 0, 0)) for i in (1, 100, 200)]
    file = io.BytesIO()
    frames[0].save(file, format=kind, save_all=True, append_images=frames[1:], lossless=True)
    read = read_frames(file.getvalue())
    assert [frame.getpixel((4, 3)) for frame in read] == [(1, 0, 0), (100, 0, 0), (200, 0, 0)]
    with pytest.raises(ImageError, match=r"a.gif has 3 frames, more than 2"):
        read_frames(file.getvalue(), max_frames=2, name="a.gif")
    assert len(read_frames(file.getvalue(), max_pixels=60)) == 3
    with pytest.raises(ImageError, match="the image claims 3 x 5 x 4 pixels, more than 59"):
        read_frames(file.getvalue(), max_pixels=59)


def test_a_still_image_is_one_frame(tmp_path):
    write_image(GRADIENT.astype(np.uint16) * 257, tmp_path / "a.png")
    (frame,) = read_frames(tmp_path / "a.png")
    np.testing.assert_array_equal(frame, GRADIENT)


def test_transparent_frames_lie_on_the_background():
    frames = [Image.new("RGBA", (5, 4), (0, 0, 0, 0)), Image.new("RGBA", (5, 4), (9, 9, 9, 255))]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], disposal=2)
    first, second = read_frames(file.getvalue(), background=(255, 0, 0))
    assert (first.getpixel((0, 0)), second.getpixel((0, 0))) == ((255, 0, 0), (9, 9, 9))


@pytest.mark.parametrize("kind", ["palette", "grey", "bitmap", "deep", "deep tiff"])
def test_label_maps_keep_their_numbers(tmp_path, kind):
    labels = np.arange(12).reshape(3, 4) % (2 if kind == "bitmap" else 12) * (300 if "deep" in kind else 1)
    if kind == "bitmap":
        image = Image.fromarray(labels.astype(bool))
    else:
        image = Image.fromarray(labels.astype(np.uint16 if "deep" in kind else np.uint8))
    if kind == "palette":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
        image.info["transparency"] = 0
    path = tmp_path / ("a.tif" if kind == "deep tiff" else "a.png")
    image.save(path)
    np.testing.assert_array_equal(read_labels(path), labels)
    with pytest.raises(ImageError, match="more than 11"):
        read_labels(path, max_pixels=11)


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA"])
def test_colours_are_no_labels(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=rf"a\.png holds colours \({mode}\), but a label map"):
        read_labels(tmp_path / "a.png")


def test_the_cut_of_a_codec_that_is_missing_is_said(tmp_path, monkeypatch):
    def refuse(page):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4, 3), 40000, np.uint16), photometric="rgb")
    image = read_image(tmp_path / "a.tif")
    assert (image.pixels.dtype, image.pixels.max()) == (np.uint8, 40000 >> 8)
    assert image.note == "cut to 8 bits: the package imagecodecs would keep 16"
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    with pytest.raises(ImageError, match="needs the package imagecodecs"):
        read_image(tmp_path / "a.tif")


def test_readers_do_not_wait_for_each_other():
    both, limit = threading.Barrier(2, timeout=20), Image.MAX_IMAGE_PIXELS

    def read(_):
        with image_errors(io.BytesIO(), "a"):
            both.wait()
            return Image.MAX_IMAGE_PIXELS

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, range(2))) == [None, None]
    assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_leave_the_global_state_as_it_was(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    data = encode_image(GRADIENT, ".png")
    with ThreadPoolExecutor(4) as pool:
        assert all(image.size == (4, 2) for image in pool.map(as_rgb, [data] * 64))
    assert before == Image.MAX_IMAGE_PIXELS
