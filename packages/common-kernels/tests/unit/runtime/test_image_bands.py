# SPDX-License-Identifier: Apache-2.0
import io

import numpy as np
import pytest
from common_kernels.runtime.images import (
    ImageError,
    ImageFile,
    bands,
    check_format,
    read_image,
    read_pages,
    write_bands,
    write_image,
    write_pages,
)
from common_kernels.runtime.images.png_stream import write_png
from PIL import Image, ImageCms

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a"/></x:xmpmeta>'
UPRIGHT = XMP.replace(b'"6"', b'"1"')


def noise(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def smooth(shape, dtype=np.uint8):
    rows = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).reshape(*shape[:2], *[1] * len(shape[2:]))
    values = np.broadcast_to(rows / max(rows.max(), 1), shape)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def in_bands(pixels, count):
    return (pixels[top : top + count] for top in range(0, len(pixels), count))


def beside(pixels):
    exif = Image.Exif()
    exif[271] = "A camera"
    return ImageFile(pixels[:1], ICC, exif.tobytes(), (300.0, 300.0), "", UPRIGHT)


KINDS = [
    *[(".png", dtype) for dtype in (np.uint8, np.uint16)],
    *[(".tif", dtype) for dtype in (np.uint8, np.uint16, np.float32)],
    *[(suffix, np.uint8) for suffix in (".webp", ".bmp", ".jpg")],
]


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("shape", [(1, 1), (70, 9), (130, 17, 2), (65, 40, 3), (64, 5, 4)])
@pytest.mark.parametrize(("suffix", "dtype"), KINDS)
def test_bands_become_the_file_of_the_whole_image(tmp_path, suffix, dtype, shape, make):
    if shape[2:] in ((2,), (4,)) and suffix in (".bmp", ".jpg"):
        shape = shape[:2]
    pixels = make(shape, dtype)
    path = tmp_path / f"new/a{suffix}"
    write_bands(path, in_bands(pixels, 23), shape=shape, dtype=pixels.dtype, beside=beside(pixels))
    found, whole = read_image(path), tmp_path / f"whole{suffix}"
    write_image(ImageFile(pixels, ICC, beside(pixels).exif, (300.0, 300.0), "", UPRIGHT), whole)
    np.testing.assert_array_equal(found.pixels, read_image(whole).pixels)
    if suffix not in (".jpg", ".webp"):
        np.testing.assert_array_equal(found.pixels, pixels)
    if suffix != ".bmp":
        assert found.icc_profile == ICC
        assert found.xmp == UPRIGHT
        assert found.exif
    if suffix != ".tif" or dtype == np.uint8:  # by another reader
        with Image.open(path) as opened:
            assert opened.size == (shape[1], shape[0])


def test_filters_make_smooth_images_small():
    pixels, plain, packed = smooth((200, 300, 3), np.uint16), io.BytesIO(), io.BytesIO()
    write_png(plain, [pixels], shape=pixels.shape, dtype=pixels.dtype, level=0)
    write_png(packed, [pixels], shape=pixels.shape, dtype=pixels.dtype)
    assert len(packed.getvalue()) < 0.1 * len(plain.getvalue())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("rows", [9, 11])
def test_rows_that_lack_or_are_too_many(tmp_path, suffix, rows):
    pixels = noise((rows, 6, 3))
    with pytest.raises(ImageError, match="10 rows"):
        write_bands(
            tmp_path / f"a{suffix}", [pixels], shape=(10, 6, 3), dtype=pixels.dtype, beside=beside(pixels)
        )
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_stopped_writer_is_nothing(tmp_path):
    def stopping():
        yield noise((5, 6, 3))
        raise KeyboardInterrupt

    for suffix in (".png", ".tif", ".webp"):
        with pytest.raises(KeyboardInterrupt):
            write_bands(
                tmp_path / f"a{suffix}",
                stopping(),
                shape=(10, 6, 3),
                dtype=np.dtype(np.uint8),
                beside=beside(noise((1, 6, 3))),
            )
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_full_disk_is_one_sentence(tmp_path, suffix):
    def full():
        yield noise((5, 6, 3))
        raise OSError(28, "No space left on device")

    with pytest.raises(ImageError, match=rf"a\{suffix} cannot be written: No space left on device"):
        write_bands(
            tmp_path / f"a{suffix}",
            full(),
            shape=(10, 6, 3),
            dtype=np.dtype(np.uint8),
            beside=beside(noise((1, 6, 3))),
        )
    assert list(tmp_path.iterdir()) == []


def test_large_images_that_must_be_whole_lie_in_a_mapped_file(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "_MAPPED", 100)
    made, memmap = [], np.memmap
    monkeypatch.setattr(
        bands.np, "memmap", lambda *args, **options: made.append(1) or memmap(*args, **options)
    )
    pixels = noise((20, 10, 3))
    write_bands(
        tmp_path / "a.bmp", in_bands(pixels, 7), shape=pixels.shape, dtype=pixels.dtype, beside=beside(pixels)
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp").pixels, pixels)
    assert made == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["a.bmp"]


def test_pages_are_written_and_read_one_at_a_time(tmp_path):
    pages = [noise((70, 9, 3)), noise((5, 6), np.uint16), noise((8, 8, 4))]
    path = tmp_path / "a.tif"
    write_pages(path, ([in_bands(page, 9), page.shape, page.dtype, beside(page)] for page in pages))
    found = list(read_pages(path))
    assert [image.note for image in found] == [""] * 3
    for page, image in zip(pages, found, strict=True):
        np.testing.assert_array_equal(image.pixels, page)
        assert image.icc_profile == ICC
    assert read_image(path).note == "first of 3 pages"
    assert len(list(read_pages(_still(tmp_path)))) == 1


def _still(folder):
    write_image(noise((4, 4, 3)), folder / "still.png")
    return folder / "still.png"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_is_kept_and_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((6, 9, 3))).save(tmp_path / "in.jpg", exif=exif, xmp=XMP)
    image = read_image(tmp_path / "in.jpg")
    assert image.xmp == UPRIGHT
    write_image(image, tmp_path / f"out{suffix}")
    assert read_image(tmp_path / f"out{suffix}").xmp == UPRIGHT


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "match"),
    [
        ("a.jpg", (4, 4, 3), np.uint16, "16 bits"),
        ("a.png", (4, 4, 3), np.float32, "float pixels"),
        ("a.bmp", (4, 4, 4), np.uint8, "transparency"),
        ("a.jpg", (4, 70_000, 3), np.uint8, "at most 65500"),
        ("a.gif", (4, 4, 3), np.uint8, "no known image suffix"),
    ],
)
def test_what_a_format_cannot_hold_is_known_beforehand(name, shape, dtype, match):
    with pytest.raises(ImageError, match=match):
        check_format(name, shape, np.dtype(dtype))
