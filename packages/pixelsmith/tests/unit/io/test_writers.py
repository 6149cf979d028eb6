# SPDX-License-Identifier: Apache-2.0
import os
from itertools import pairwise

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from pixelsmith.io.dzi import OVERLAP, TILE
from pixelsmith.io.metadata import Metadata
from pixelsmith.io.png import write_png
from pixelsmith.io.pyramid import build_pyramid, halve, halved, shrink
from pixelsmith.io.tiff import write_tiff
from pixelsmith.io.viewer import write_viewer
from pixelsmith.io.writers import check_output, disk_needed, write_image
from pixelsmith.store.rows import ArrayRows, RawImage, bands, read_wrapped


@pytest.fixture(params=["pixelsmith", "pyvips"])
def writer(request):
    return request.param


def make_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(height), np.arange(width))[..., None] + np.array([0, 40, 90])
    return ((smooth + rng.integers(0, 20, (height, width, 3))) % 256).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (200, 3), (65, 130), (64, 1)])
@pytest.mark.parametrize("kind", ["noise", "flat", "smooth"])
def test_png_holds_the_pixels(tmp_path, size, kind):
    image = {
        "noise": np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8),
        "flat": np.full((*size, 3), 255, dtype=np.uint8),
        "smooth": make_image(*size),
    }[kind]
    write_png(tmp_path / "a.png", ArrayRows(image))
    with Image.open(tmp_path / "a.png") as found:
        found.load()
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), image)


def test_png_uses_its_neighbours(tmp_path):
    image = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)[..., None].repeat(3, axis=2)
    write_png(tmp_path / "a.png", ArrayRows(image))
    assert (tmp_path / "a.png").stat().st_size < image.size / 40


@pytest.mark.parametrize("size", [(70, 100), (513, 300), (16, 16)])
def test_tiff_holds_the_pixels_and_a_pyramid(tmp_path, size):
    image = make_image(*size)
    write_tiff(tmp_path / "a.tif", ArrayRows(image), tile=32, smallest=64)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        assert file.pages[0].is_tiled
        levels = [level.asarray() for level in file.series[0].levels]
    np.testing.assert_array_equal(levels[0], image)
    assert [level.shape[:2] for level in levels] == halved(size, 64)
    for finer, coarser in pairwise(levels):
        rows = finer if len(finer) % 2 == 0 else np.concatenate([finer, finer[-1:]])
        np.testing.assert_array_equal(coarser, halve(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_uncompressed_tiff_and_wrong_tiles(tmp_path):
    image = make_image(40, 40)
    write_tiff(tmp_path / "a.tif", ArrayRows(image), tile=16, compression="none")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)
    with pytest.raises(ValueError, match="multiple of 16, got 20"):
        write_tiff(tmp_path / "b.tif", ArrayRows(image), tile=20)


def test_dzi_levels_halve_to_one_pixel(tmp_path, writer):
    image = make_image(600, 300)
    written = write_image(tmp_path / "a.dzi", ArrayRows(image), writer=writer)
    assert [path.name for path in written] == ["a.dzi", "a_files", "a.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dzi", "a.html", "a_files"]
    folders = sorted((int(path.name) for path in (tmp_path / "a_files").iterdir()), reverse=True)
    assert folders == list(range(10, -1, -1))
    for number, (height, width) in zip(folders, halved((600, 300)), strict=True):
        found = sorted((tmp_path / "a_files" / str(number)).iterdir())
        assert len(found) == -(-height // TILE) * -(-width // TILE)
        covered = 0
        for file in found:
            column, row = map(int, file.stem.split("_"))
            with Image.open(file) as tile:
                w, h = tile.size
            covered += (w - OVERLAP * ((column > 0) + ((column + 1) * TILE < width))) * (
                h - OVERLAP * ((row > 0) + ((row + 1) * TILE < height))
            )
        assert covered == height * width
    assert halved((600, 300))[-1] == (1, 1)
    corner = Image.open(tmp_path / "a_files" / "10" / "1_2.jpg")
    difference = np.asarray(corner).astype(int) - image[2 * TILE - 1 :, TILE - 1 :]
    assert np.abs(difference).mean() < 5
    assert 'Height="600" Width="300"' in (tmp_path / "a.dzi").read_text()


def test_dzi_replaces_what_was_there(tmp_path, writer):
    write_image(tmp_path / "a.dzi", ArrayRows(make_image(600, 600)), writer=writer)
    write_image(tmp_path / "a.dzi", ArrayRows(make_image(20, 20)), writer=writer)
    assert len(list((tmp_path / "a_files").iterdir())) == len(halved((20, 20)))


def test_the_viewer_is_one_page_without_network(tmp_path):
    write_image(tmp_path / "a b<.dzi", ArrayRows(make_image(30, 20)))
    page = (tmp_path / "a b<.html").read_text("utf-8")
    assert "a%20b%3C_files" in page
    assert '"width": 20' in page
    assert "<title>a b&lt;</title>" in page
    assert "@@" not in page
    assert "http" not in page
    (tmp_path / "c.dzi").write_text("<Image/>")
    with pytest.raises(ValueError, match="it lacks width, height, tile"):
        write_viewer(tmp_path / "c.dzi")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp"])
def test_files_appear_whole_or_not_at_all(tmp_path, writer, name):
    class Failing:
        height = width = 9

        def read(self, top, bottom):
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_image(tmp_path / name, Failing(), writer=writer)
    assert list(tmp_path.iterdir()) == []
    assert write_image(tmp_path / name, ArrayRows(make_image(9, 9)), writer=writer) == [tmp_path / name]
    with Image.open(tmp_path / name) as found:
        assert found.size == (9, 9)


@pytest.mark.parametrize("name", ["a.tif", "a.dzi"])
def test_what_a_killed_run_left_is_removed(tmp_path, writer, name):
    left = tmp_path / f".{name}.scratch"
    left.mkdir()
    (left / "level-1.npy").write_bytes(b"half")
    write_image(tmp_path / name, ArrayRows(make_image(300, 20)), writer=writer)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_raw_images_take_their_space_at_once(tmp_path, monkeypatch):
    RawImage.create(tmp_path / "a.npy", 512, 512)
    assert os.stat(tmp_path / "a.npy").st_blocks * 512 >= 3 * 512 * 512

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pixelsmith.store.rows.os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        RawImage.create(tmp_path / "b.npy", 512, 512)


def test_outputs_are_checked_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of .png, .*, got a.bmp"):
        check_output(tmp_path / "a.bmp", 9, 9)
    with pytest.raises(ValueError, match=r"at most 65500 pixels a side, got height 70000 and width 9; write"):
        check_output(tmp_path / "a.jpg", 70_000, 9)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, but a folder is needed"):
        check_output(tmp_path / "file" / "a.png", 9, 9)
    assert disk_needed(tmp_path / "a.tif", 100, 100) == 60_000


def test_full_disks_are_told_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("common_kernels.runtime.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"a\.png needs 273 bytes, but only 10 bytes are free there"):
        write_image(tmp_path / "a.png", ArrayRows(make_image(9, 9)))
    assert list(tmp_path.iterdir()) == []


def test_raw_images_are_written_in_bands(tmp_path):
    image = make_image(30, 20)
    raw = RawImage.create(tmp_path / "a.npy", 30, 20)
    for top, band in bands(ArrayRows(image), 7):
        raw.write(top, band)
    raw.flush()
    again = RawImage(tmp_path / "a.npy")
    np.testing.assert_array_equal(again.read(3, 29), image[3:29])
    np.testing.assert_array_equal(read_wrapped(again, -3, 65), np.tile(image, (4, 1, 1))[27:95])
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a whole image"):
        RawImage(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) or \(H, W, 4\) uint8"):
        ArrayRows(np.zeros((4, 4), dtype=np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (700, 5), (513, 300)])
def test_pyramids_built_in_bands_equal_the_whole(tmp_path, size):
    image = make_image(*size)
    levels = build_pyramid(ArrayRows(image), tmp_path)
    assert [(level.height, level.width) for level in levels] == halved(size)
    expected = image
    for level in levels[1:]:
        rows = expected if len(expected) % 2 == 0 else np.concatenate([expected, expected[-1:]])
        expected = halve(rows)
        np.testing.assert_array_equal(level.read(0, level.height), expected)
    small = shrink(ArrayRows(image), 64)
    assert max(small.shape) <= 64
    np.testing.assert_array_equal(small, next(l for l in levels if max(l.height, l.width) <= 64).read(0, 64))


@pytest.mark.parametrize(("length", "kept"), [(100, "both"), (65_300, "photo"), (70_000, "neither")])
def test_a_jpeg_leaves_out_what_its_exif_block_cannot_hold(tmp_path, length, kept):
    """The segment of a JPEG has 64 kB, and a file that cannot be written loses hours."""
    photo = Image.Exif()
    photo.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"m" * length
    metadata = Metadata(settings={"prompt": "x" * 400}, exif=photo.tobytes())
    write_image(tmp_path / "a.jpg", ArrayRows(make_image(8, 8)), metadata=metadata)
    with Image.open(tmp_path / "a.jpg") as found:
        exif = found.getexif()
    assert (ExifTags.Base.ImageDescription in exif) == (kept == "both")
    assert (ExifTags.Base.MakerNote in exif.get_ifd(ExifTags.IFD.Exif)) == (kept != "neither")
    assert exif[ExifTags.Base.Software].startswith("pixelsmith")
