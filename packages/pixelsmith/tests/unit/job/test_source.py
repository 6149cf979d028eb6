# SPDX-License-Identifier: Apache-2.0
import hashlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from pixelsmith.job.source import SourceError, digest, read_size, read_source

LIMIT = 100_000_000


def bomb(path, width, height):
    """A PNG of a few bytes whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.bmp", "a.ppm"])
def test_formats_without_loss_keep_every_pixel(dummies, tmp_path, name):
    image = dummies.scene((20, 30))
    Image.fromarray(image).save(tmp_path / name, lossless=True)
    assert read_size(tmp_path / name, LIMIT) == (20, 30)
    np.testing.assert_array_equal(read_source(tmp_path / name, LIMIT), image)


def test_pictures_stand_upright(dummies, tmp_path):
    image = Image.fromarray(dummies.scene((20, 30)))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    assert read_size(tmp_path / "a.png", LIMIT) == (30, 20)
    expected = np.rot90(np.asarray(image), k=-1)
    np.testing.assert_array_equal(read_source(tmp_path / "a.png", LIMIT), expected)


def test_other_kinds_of_pixels_become_rgb(tmp_path):
    grey = np.linspace(0, 65535, 20 * 30).reshape(20, 30)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    found = read_source(tmp_path / "deep.png", LIMIT)
    assert np.abs(found.astype(int) - (grey / 257)[..., None]).max() <= 1
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[:2] = (200, 0, 0, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = read_source(tmp_path / "clear.png", LIMIT)
    assert (found[:2] == (200, 0, 0)).all()
    assert (found[2:] == 255).all()
    few = Image.fromarray(np.zeros((4, 4), dtype=np.uint8), mode=None).convert("P")
    few.putpalette([10, 20, 30] * 256)
    few.save(tmp_path / "few.gif")
    assert (read_source(tmp_path / "few.gif", LIMIT) == (10, 20, 30)).all()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(SourceError, match="holds floating point numbers; convert it"):
        read_source(tmp_path / "a.tif", LIMIT)


def test_colours_follow_the_profile(dummies, tmp_path):
    image = dummies.scene((16, 16))
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "same.png", icc_profile=same)
    assert np.abs(read_source(tmp_path / "same.png", LIMIT).astype(int) - image).max() <= 1
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for name, profile in (("other.png", other), ("broken.png", b"no profile")):
        Image.fromarray(image).save(tmp_path / name, icc_profile=profile)
        assert read_source(tmp_path / name, LIMIT).shape == (16, 16, 3)


def test_bombs_are_refused_by_their_header(tmp_path):
    bomb(tmp_path / "a.png", 60_000, 60_000)
    for read in (read_size, read_source):
        with pytest.raises(SourceError, match="claims more than 100000000 pixels: raise --max-pixels"):
            read(tmp_path / "a.png", LIMIT)
    bomb(tmp_path / "b.png", 10_001, 10_000)
    with pytest.raises(SourceError, match="has 10001 x 10000 pixels, more than 100000000"):
        read_size(tmp_path / "b.png", LIMIT)
    with pytest.raises(SourceError, match="is damaged or cut short"):  # the size is no objection any more
        read_size(tmp_path / "b.png", 100_010_000)
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3  # as Pillow has it


def test_damage_is_named(dummies, tmp_path):
    Image.fromarray(dummies.scene((200, 300))).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(SourceError, match="is damaged or cut short"):
        read_source(tmp_path / "cut.png", LIMIT)
    for name in ("text.png", "empty.png"):
        with pytest.raises(SourceError, match="is no picture in one of the formats PNG, JPEG"):
            read_source(tmp_path / name, LIMIT)
    with pytest.raises(SourceError, match="does not exist"):
        read_source(tmp_path / "no.png", LIMIT)
    with pytest.raises(SourceError, match="is a folder, not a picture"):
        read_source(tmp_path, LIMIT)
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        digest(tmp_path / "no.png")
    assert digest(tmp_path / "a.png") == hashlib.sha256(whole).hexdigest()
