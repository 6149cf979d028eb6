# SPDX-License-Identifier: Apache-2.0
"""Files that libvips writes are those of our writers: pixels, transparency, metadata, tiles."""

import errno
import sys
from itertools import pairwise

import numpy as np
import pytest
import pyvips
import tifffile
from common_kernels.runtime.images import read_image
from PIL import ExifTags, Image
from pixelsmith.io import vips
from pixelsmith.io.metadata import Metadata
from pixelsmith.io.writers import disk_needed, write_image, writer_name
from pixelsmith.store.rows import ArrayRows, RawImage

SIZE = 300, 517
WRITERS = ["pixelsmith", "pyvips"]


def make_pixels(channels=3):
    smooth = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1]))[..., None] * np.arange(1, channels + 1) // 4
    return ((smooth + np.random.default_rng(0).integers(0, 9, smooth.shape)) % 256).astype(np.uint8)


def make_metadata():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Zeiss"
    exif[ExifTags.Base.Artist] = "J. Świt"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.0
    return Metadata(settings={"prompt": "a „red“ circle", "seed": 3}, exif=exif.tobytes(), dpi=(300, 150.5))


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvips", None)
    vips.find_vips.cache_clear()
    yield
    vips.find_vips.cache_clear()


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_files_hold_what_ours_hold(tmp_path, suffix, has_alpha):
    found = {}
    for writer in WRITERS:
        path = tmp_path / f"{writer}.{suffix}"
        alpha = ArrayRows(make_pixels(4)[..., 1:]) if has_alpha else None
        write_image(path, ArrayRows(make_pixels()), metadata=make_metadata(), alpha=alpha, writer=writer)
        with Image.open(path) as image:
            exif = {**image.getexif(), **image.getexif().get_ifd(ExifTags.IFD.Exif)}
            texts = getattr(image, "text", {})
            found[writer] = image.mode, image.info.get("dpi"), texts, np.asarray(image).tolist()
        tags = (ExifTags.Base.Make, ExifTags.Base.Artist, ExifTags.Base.FNumber)
        found[writer] += ({tag: exif.get(tag) for tag in tags},)
        held = read_image(path)
        found[writer] += (held.pixels.shape, held.icc_profile)
    assert found["pyvips"] == found["pixelsmith"]
    assert found["pyvips"][0] == ("RGBA" if has_alpha else "RGB")
    assert found["pyvips"][1] == pytest.approx((300, 150.5), abs=0.02)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{name}.{suffix}" for name in WRITERS]


def test_tags_of_a_tiff_are_ours(tmp_path):
    found = {}
    for writer in WRITERS:
        rows, alpha = ArrayRows(make_pixels()), ArrayRows(make_pixels() // 2 + 128)
        write_image(tmp_path / "a.tif", rows, metadata=make_metadata(), alpha=alpha, writer=writer)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_bigtiff
            page = file.pages[0]
            assert (page.is_tiled, page.tile) == (True, (256, 256))
            names = "ImageDescription Software Make Artist ExtraSamples Predictor Compression ResolutionUnit"
            found[writer] = {name: page.tags[name].value for name in names.split()}
            found[writer] |= {name: page.tags[name].value for name in ("XResolution", "YResolution")}
            levels = [level.asarray() for level in file.series[0].levels]
        assert [level.shape[:2] for level in levels][1:] in ([(150, 259), (75, 130)], [(150, 258), (75, 129)])
        for finer, coarser in pairwise(levels):
            height, width = coarser.shape[0], finer.shape[1] // 2
            means = finer[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 4).mean(axis=(1, 3))
            # libvips weighs colours by their opacity
            assert np.abs(coarser[:, :width] - means)[..., 3].max() <= 1
            assert np.abs(coarser[:, :width] - means).mean() < 1
    assert found["pyvips"] == found["pixelsmith"]


def test_a_file_without_a_photo_says_how_it_was_made(tmp_path):
    for name in ("a.tif", "a.png"):
        write_image(tmp_path / name, ArrayRows(make_pixels()), metadata=Metadata(settings={"seed": 1}))
        with Image.open(tmp_path / name) as image:
            assert "dpi" not in image.info or image.info["dpi"] == (1, 1)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].tags["Software"].value.startswith("pixelsmith ")
        assert '"seed": 1' in file.pages[0].tags["ImageDescription"].value


def test_deep_zoom_has_the_tiles_of_ours(tmp_path):
    found = {}
    for writer in WRITERS:
        write_image(tmp_path / "a.dzi", ArrayRows(make_pixels()), writer=writer)
        tiles = sorted((tmp_path / "a_files").rglob("*.*"))
        found[writer] = {
            str(tile.relative_to(tmp_path)): np.asarray(Image.open(tile)).astype(float) for tile in tiles
        } | {"text": (tmp_path / "a.dzi").read_text()}
    ours, theirs = found["pixelsmith"], found["pyvips"]
    assert list(theirs) == list(ours)
    assert theirs.pop("text") == ours.pop("text")
    for name, tile in theirs.items():
        assert tile.shape == ours[name].shape
        assert np.abs(tile - ours[name]).mean() < 1.5, name


def test_mapped_files_are_read_where_they_lie(tmp_path):
    raw = RawImage.create(tmp_path / "raw.npy", *SIZE)
    raw.write(0, make_pixels())
    raw.flush()
    write_image(tmp_path / "a.png", RawImage(tmp_path / "raw.npy"), writer="pyvips")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), make_pixels())


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(vips._PNGStream, "_write", full)
        with pytest.raises(OSError, match="No space left on device"):
            write_image(tmp_path / "a.png", ArrayRows(make_pixels()), writer="pyvips")

    def refuse(*args, **options):
        raise pyvips.Error("unable to call tiffsave", "write error\n")

    with monkeypatch.context() as patch:
        patch.setattr(pyvips.Image, "tiffsave", refuse)
        with pytest.raises(OSError, match=r"a\.tif could not be written, with \d+ MiB free there: unable to"):
            write_image(tmp_path / "a.tif", ArrayRows(make_pixels()), writer="pyvips")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "function"), [("png", "write_png"), ("tif", "write_tiff"), ("dzi", "write_dzi")]
)
def test_libvips_writes_where_it_is_installed(tmp_path, monkeypatch, suffix, function):
    path = tmp_path / f"a.{suffix}"
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(vips, function, lambda path, rows, **settings: calls.append(path))
        patch.setattr("pixelsmith.io.writers.write_viewer", lambda path: path)
        write_image(path, ArrayRows(make_pixels()))
    assert calls == [path]
    assert f"pyvips {pyvips.__version__} (libvips {pyvips.version(0)}." in writer_name(path)
    assert writer_name(path.with_suffix(".jpg")) == "Pillow"


@pytest.mark.parametrize("suffix", ["png", "tif", "dzi"])
def test_without_it_ours_write(tmp_path, absent, suffix):
    path = tmp_path / f"a.{suffix}"
    assert write_image(path, ArrayRows(make_pixels()))[0].is_file()
    assert 'pip install "pixelsmith[vips]"' in writer_name(path)
    with pytest.raises(ImportError, match=r'this needs pyvips: pip install "pixelsmith\[vips\]"'):
        write_image(path, ArrayRows(make_pixels()), writer="pyvips")


def test_a_copy_of_transparent_pixels_is_counted(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    with_copy = disk_needed(path, 100, 100, alpha=True)
    monkeypatch.setattr(vips, "find_vips", lambda: None)
    assert with_copy - disk_needed(path, 100, 100, alpha=True) == 40_000
