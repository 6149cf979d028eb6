# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest
import tifffile
from common_kernels.runtime.images import ImageError, read_image, read_size
from PIL import Image

PIXELS = np.add.outer(np.arange(32), 2 * np.arange(48))[..., None] * np.array([2, 1, 1]) + np.array(
    [0, 60, 9]
)


def write_raw(path):
    """A DNG of a grey field: a mosaic of one value, as a camera of neutral filters would see it."""
    mosaic = np.full((64, 96), 20_000, np.uint16)
    extra = [
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),
        (50707, 1, 4, bytes([1, 1, 0, 0]), True),
        (50708, 2, 5, b"Test\0", True),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        (50717, 4, 1, 65535, True),
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),
        (50778, 3, 1, 21, True),
    ]
    tifffile.imwrite(path, mosaic, photometric="cfa", metadata=None, extratags=extra)


def test_heic_images_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[271] = "A camera"
    image = Image.fromarray(PIXELS.clip(0, 255).astype(np.uint8))
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    assert "HEIF" not in Image.OPEN  # no plug-in is registered for the whole process
    found = read_image(tmp_path / "a.heic")
    assert np.abs(found.pixels.astype(int) - PIXELS.clip(0, 255)).mean() < 4
    assert b"A camera" in found.exif
    assert read_size(tmp_path / "a.heic") == (32, 48)


def test_heic_without_its_package_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setattr("common_kernels.runtime.images.decoding.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"a\.heic is a HEIC image, which needs pillow-heif: pip install"):
        read_image(tmp_path / "a.heic")


def test_raw_files_are_developed(tmp_path):
    pytest.importorskip("rawpy")
    write_raw(tmp_path / "a.dng")
    found = read_image(tmp_path / "a.dng")
    assert (found.pixels.dtype, found.pixels.shape) == (np.uint16, (64, 96, 3))
    assert found.note == "developed from camera raw"
    assert found.pixels.std() < 0.02 * found.pixels.mean()
    assert read_size(tmp_path / "a.dng") == (64, 96)
    with pytest.raises(ImageError, match="raise max_pixels"):
        read_image(tmp_path / "a.dng", max_pixels=99)


def test_damaged_raw_files_are_one_sentence(tmp_path):
    pytest.importorskip("rawpy")
    (tmp_path / "a.nef").write_bytes(b"II*\0" + bytes(400))
    with pytest.raises(ImageError, match=r"a\.nef is damaged, or a raw file of an unknown camera"):
        read_image(tmp_path / "a.nef")


def test_raw_files_without_their_package_name_it(tmp_path, monkeypatch):
    write_raw(tmp_path / "a.dng")
    monkeypatch.setitem(sys.modules, "rawpy", None)
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match=r"a\.dng is a camera raw file, which needs rawpy: pip install"):
            read(tmp_path / "a.dng")


def test_raw_files_under_another_name_are_not_taken_for_images(tmp_path):
    write_raw(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="give it its suffix"):
        read_image(tmp_path / "a.tif")
