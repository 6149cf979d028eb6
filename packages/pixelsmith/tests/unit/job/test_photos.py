# SPDX-License-Identifier: Apache-2.0
"""What belongs to a photo, and how it was made larger, goes on in the file."""

import json

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from pixelsmith.job import FolderStore, Job, JobInterrupted
from pixelsmith.job.source import digest_image, fit_pixels

MAKER = ExifTags.Base.Make.value


@pytest.fixture
def photo(dummies, tmp_path):
    """A photo on its side, with a maker, a resolution and a transparent corner."""
    pixels = np.dstack([dummies.scene((24, 28)), np.full((24, 28), 255, np.uint8)])
    pixels[:8, :10, 3] = 0
    pixels[8:12, :10, 3] = 128
    exif = Image.Exif()
    exif[MAKER], exif[ExifTags.Base.Orientation.value] = "Somebody", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth.value] = 24
    path = tmp_path / "photo.png"
    Image.fromarray(np.rot90(pixels)).save(path, exif=exif, dpi=(240, 240))
    return path


def enlarge(dummies, photo, folder, output, **settings):
    spec = dummies.spec(source=photo, source_digest=digest_image(photo), **settings)
    Job(dummies.Dummy(), spec, FolderStore(folder, durable=False)).run(output)
    return spec


def opened(path):
    image = Image.open(path)
    image.load()
    return image


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_exif_resolution_and_alpha_are_kept(dummies, photo, tmp_path, suffix):
    enlarge(dummies, photo, tmp_path / "job", tmp_path / f"a.{suffix}")
    image = opened(tmp_path / f"a.{suffix}")
    exif = image.getexif()
    assert image.size == (56, 48)  # upright
    assert exif[MAKER] == "Somebody"
    assert ExifTags.Base.Orientation.value not in exif
    assert ExifTags.Base.ExifImageWidth.value not in exif.get_ifd(ExifTags.IFD.Exif)
    if suffix != "webp":  # which has none
        assert image.info["dpi"] == pytest.approx((240, 240), abs=0.1)
    assert image.mode == ("RGB" if suffix == "jpg" else "RGBA")
    if suffix != "jpg":
        alpha = np.asarray(image)[..., 3]
        assert alpha[:12, :16].max() < 10
        assert alpha[30:].min() > 245


def test_a_tiff_keeps_them_too(dummies, photo, tmp_path):
    enlarge(dummies, photo, tmp_path / "job", tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert page.shape == (48, 56, 4)
        assert page.tags["Make"].value == "Somebody"
        upper, lower = page.tags["XResolution"].value
        assert upper / lower == pytest.approx(240, abs=0.1)
        assert json.loads(page.tags["ImageDescription"].value)["prompt"] == "a boat"
        assert page.tags["Software"].value.startswith("pixelsmith ")
        assert page.asarray()[:12, :16, 3].max() < 10


def test_on_white_a_transparent_result_is_what_the_model_made(dummies, photo, tmp_path):
    enlarge(dummies, photo, tmp_path / "job", tmp_path / "a.png")
    made = np.load(tmp_path / "job" / "stage-00" / "image.npy").astype(int)
    image = opened(tmp_path / "a.png")
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    shown, alpha = np.asarray(on_white)[..., :3].astype(int), np.asarray(image)[..., 3]
    opaque = alpha == 255
    assert np.abs(shown - made)[opaque].max() == 0
    # elsewhere what is no mixture with white cannot be shown
    possible = made >= 255 - alpha[..., None].astype(int)
    assert np.abs(shown - made)[possible].max() <= 2


def test_files_say_how_they_were_made(dummies, tmp_path):
    settings = {"prompt": "ein Boot, 船", "negative_prompt": "fog", "guidance_scale": 3.5}
    spec = dummies.spec(seed=7)
    Job(dummies.Dummy(**settings), spec, FolderStore(tmp_path / "job")).run(tmp_path / "a.png")
    texts = opened(tmp_path / "a.png").text
    said = json.loads(texts["pixelsmith"])
    assert (said["prompt"], said["seed"], said["model"]) == ("ein Boot, 船", 7, "dummy")
    assert said["settings"]["config"]["band"] == 3
    assert texts["parameters"] == "ein Boot, 船\nNegative prompt: fog\nCFG scale: 3.5, Seed: 7, Model: dummy"
    assert texts["Software"].startswith("pixelsmith ")


def test_a_photo_that_is_gone_still_gives_its_metadata(dummies, photo, tmp_path):
    whole = tmp_path / "whole.png"
    spec = enlarge(dummies, photo, tmp_path / "whole", whole)
    job = Job(
        dummies.Dummy(), spec, FolderStore(tmp_path / "job", durable=False),
        on_progress=lambda progress: (progress.phase, progress.done) == ("denoise", 3),
    )  # fmt: skip
    with pytest.raises(JobInterrupted):
        job.run(tmp_path / "a.png")
    photo.unlink()
    Job(dummies.Dummy(), spec, FolderStore(tmp_path / "job", durable=False)).run(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("fit", "size"), [("crop", (20, 28)), ("pad", (24, 40))])
def test_photos_are_cropped_and_padded_with_their_alpha(dummies, photo, tmp_path, fit, size):
    sizes = ((2 * size[0], 2 * size[1]),)
    enlarge(dummies, photo, tmp_path / "job", tmp_path / "a.png", fit=fit, source_size=size, sizes=sizes)
    source = np.load(tmp_path / "job" / "source.npy")
    scene = dummies.scene((24, 28))
    if fit == "crop":
        np.testing.assert_array_equal(source[12:], scene[14:22])
    else:
        np.testing.assert_array_equal(source[13:, 6:34], scene[13:])
        assert source[:, :6].min() == source[:, 34:].min() == 255
        assert np.asarray(opened(tmp_path / "a.png"))[:, :8, 3].max() < 10


def test_images_in_memory_are_fitted_as_files_are(dummies):
    pixels = dummies.scene((9, 7))
    np.testing.assert_array_equal(fit_pixels(pixels, (5, 7), "crop"), pixels[2:7])
    padded = fit_pixels(pixels, (9, 10), "pad")
    np.testing.assert_array_equal(padded[:, 1:8], pixels)
    assert fit_pixels(pixels, (9, 7), None) is pixels
