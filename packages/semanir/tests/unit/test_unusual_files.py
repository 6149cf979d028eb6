# SPDX-License-Identifier: Apache-2.0
"""Files that people have, through ``semanir restore`` and ``semanir degrade``."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.images import bands, read_image, read_pages, write_image
from PIL import Image
from semanir import RestoreOptions, Restorer, SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.restoring import files
from semanir.restoring.source import Result, Source


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    changes = {"embed_dims": (8, 8), "num_heads": (1, 1), "depths": (1, 1, 1, 1)}
    changes |= {"window_size": 4, "k": 6, "conv_blocks": ()}
    return SemanIR(SemanIRConfig.preset("tiny", **changes))


@pytest.fixture
def run(network, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    network.save_pretrained("model")

    def call(command, *arguments, code=0):
        capfd.readouterr()
        extra = ["--model", "model", "--device", "cpu"] if command == "restore" else []
        found = run_app(app, [command, *arguments, *extra])
        out, err = capfd.readouterr()
        assert found == code, out + err
        assert "Traceback" not in err
        return SimpleNamespace(out=out, err=err, lines=err.splitlines())

    return call


def noise(*shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("command", [("restore",), ("degrade", "noise")])
def test_a_folder_of_formats_becomes_one_format_and_nothing_is_lost(run, command):
    Path("in").mkdir()
    for number, name in enumerate(["a.jpg", "a.png", "b.bmp", "b.tif"]):
        write_image(noise(9, 8, 3, seed=number), f"in/{name}")
    run(*command, "in", "-o", "out", "--format", "png")
    assert names("out") == ["a-jpg.png", "a.png", "b-bmp.png", "b-tif.png"]
    again = run(*command, "in", "-o", "out", "--format", "png", "--json")
    assert [json.loads(line)["status"] for line in again.out.splitlines()] == ["skipped"] * 4


def test_a_tiff_keeps_all_its_pages(run, network):
    pages = [noise(20, 18, 3), noise(9, 8, dtype=np.uint16), noise(7, 6, 4)]
    with tifffile.TiffWriter("pages.tif") as file:
        for page in pages:
            kind = "rgb" if page.ndim == 3 else "minisblack"
            extra = ["unassalpha"] if page.shape[2:] == (4,) else None
            file.write(page, photometric=kind, extrasamples=extra, metadata=None)
    shown = run("restore", "pages.tif", "-o", "out.tif")
    assert "3 pages" in shown.err
    for before, after in zip(pages, read_pages("out.tif"), strict=True):
        np.testing.assert_array_equal(after.pixels, Restorer(network).restore(before))
    shown = run("restore", "pages.tif", "-o", "first.png")
    assert "first of 3 pages (a .tif file as output keeps all)" in shown.err
    np.testing.assert_array_equal(read_image("first.png").pixels, Restorer(network).restore(pages[0]))


def test_pages_are_not_kept_once_they_are_written(network, tmp_path):
    import gc
    import weakref

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number in range(5):
            file.write(noise(12, 10, 3, seed=number), photometric="rgb", metadata=None)
    restorer, seen, most = Restorer(network), weakref.WeakSet(), []
    inner = restorer.stream

    def stream(results, options, progress=None):
        seen.update(results)
        gc.collect()
        most.append(len(seen))
        return inner(results, options, progress)

    restorer.stream = stream
    restorer.restore_file(tmp_path / "a.tif", tmp_path / "b.tif")
    assert max(most) <= 2


def test_an_animated_image_tells_how_to_keep_all_its_frames(run):
    frames = [Image.fromarray(noise(9, 8, 3, seed=seed)) for seed in range(3)]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:], lossless=True)
    shown = run("restore", "a.webp", "-o", "out")
    assert "first of 3 frames (an .mp4 or .gif file as output keeps all)" in shown.err


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("out.heic", "its suffix must be one of"),
        ("out.jxl", "its suffix must be one of"),
        ("out.avif", "its suffix must be one of"),
    ],
)
def test_a_name_that_cannot_be_written_becomes_no_folder(run, name, match):
    write_image(noise(9, 8, 3), "a.png")
    assert match in run("restore", "a.png", "-o", name, code=2).err
    assert not Path(name).exists()


def test_what_a_folder_holds_is_done_named_or_told(run):
    Path("in").mkdir()
    write_image(noise(9, 8, 3), "in/a.png")
    Image.fromarray(noise(9, 8, 3)).save("in/b.avif")
    Image.fromarray(noise(9, 8, 4), "CMYK").save("in/c.jpg")
    Path("in/d.nef").write_bytes(b"II*\0" + bytes(400))
    Path("in/e.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Path("in/f.mov").write_bytes(b"x")
    Path("in/loop.png").symlink_to("loop.png")
    shown = run("restore", "in", "-o", "in/out", "-r", code=1)
    assert names("in/out") == ["a.png", "b.png", "c.jpg"]
    for name in ("in/d.nef is ", "in/e.heic is ", "left out, of a kind that is not read from folders: f.mov"):
        assert name in shown.err
    assert shown.lines[-1] == "3 done, 2 failed"


def test_a_link_that_leads_to_itself_is_one_sentence(run):
    Path("loop.png").symlink_to("loop.png")
    assert len(run("restore", "loop.png", "-o", "out.png", code=1).lines) == 1


@pytest.mark.parametrize("command", [("restore",), ("degrade", "noise")])
def test_pixels_that_are_no_numbers_fail_alone(run, command):
    Path("in").mkdir()
    broken = noise(9, 8, 3, dtype=np.float32)
    broken[2, 3] = np.nan
    write_image(broken, "in/a.tif")
    write_image(noise(9, 8, 3, dtype=np.float32), "in/b.tif")
    shown = run(*command, "in", "-o", "out", "--format", "tif", code=1)
    assert "in/a.tif: " in shown.lines[0]
    assert "NaN" in shown.lines[0]
    assert names("out") == ["b.tif"]


@pytest.mark.parametrize("command", [("restore",), ("degrade", "noise")])
def test_a_depth_that_the_format_cannot_hold_is_known_before_the_work(run, command, monkeypatch):
    write_image(noise(9, 8, 3, dtype=np.uint16), "a.png")
    monkeypatch.setattr(SemanIR, "forward", None)
    shown = run(*command, "a.png", "-o", "b.jpg", code=1)
    assert "b.jpg cannot hold 16 bits per channel; write a .png or .tif" in shown.err


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_full_disk_fails_one_image_and_leaves_nothing_of_it(run, monkeypatch, suffix, streamed):
    Path("in").mkdir()
    write_image(noise(40, 30, 3), "in/a.png")
    write_image(noise(9, 8, 3), "in/b.png")
    monkeypatch.setattr(files, "_STREAMED", 0 if streamed else 10**9)
    stored = Restorer.stream

    def stream(self, results, options, progress=None):
        for number, parts in enumerate(stored(self, results, options, progress)):
            if results[number].source.height == 40:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield parts

    monkeypatch.setattr(Restorer, "stream", stream)
    shown = run("restore", "in", "-o", "out", "--format", suffix[1:], code=1)
    assert "No space left on device" in shown.lines[0]
    assert shown.lines[-1] == "1 done, 1 failed"
    assert names("out") == [f"b{suffix}"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_large_results_are_written_band_by_band(run, network, monkeypatch, suffix):
    monkeypatch.setattr(files, "_STREAMED", 0)
    monkeypatch.setattr(bands, "_MAPPED", 100)
    exif = Image.Exif()
    exif[271] = "A camera"
    Image.fromarray(noise(90, 70, 3)).save("a.jpg", exif=exif, dpi=(300, 300), xmp=b"<x:xmpmeta/>")
    run("restore", "a.jpg", "-o", f"b{suffix}", "--tile", "48")
    before, after = read_image("a.jpg"), read_image(f"b{suffix}")
    expected = Restorer(network).restore(before.pixels, RestoreOptions(tile=48))
    if suffix == ".jpg":
        assert np.abs(after.pixels.astype(int) - expected).mean() < 8
    else:
        np.testing.assert_array_equal(after.pixels, expected)
    assert (after.xmp, after.dpi) == (b"<x:xmpmeta/>", pytest.approx((300, 300), abs=0.1))
    assert b"A camera" in (after.exif or b"")


def test_a_result_that_hardly_differs_is_told(run, network):
    smooth = np.add.outer(np.arange(20), 3 * np.arange(20)).astype(np.uint8)
    write_image(smooth, "a.png")
    real = smooth.astype(np.float32) / 255
    expected = 255 * np.sqrt(np.mean((Restorer(network).restore(real) - real) ** 2))
    report = json.loads(run("restore", "a.png", "-o", "b.png", "--json").out)
    assert report["change"] == pytest.approx(expected, rel=1e-2)
    assert report["note"] == files.remark_on_change(expected, 0)
    shown = run("restore", "a.png", "-o", "b.png", "--strength", str(0.5 / max(expected, 0.5)))
    (line,) = shown.lines
    assert f"a.png: hardly changed, by {min(expected, 0.5):.2f} of 255 levels: there is little" in line


@pytest.mark.parametrize(
    ("change", "noise", "told"),
    [
        (None, 9, ""),
        (0.0, 0, "by 0.00 of 255 levels: there is little"),
        (0.99, 2, "by 0.99 of 255 levels: there is little"),
        (1.0, 2, ""),
        (1.9, 14, "by 1.90 of 255 levels, where 14 look like noise: there is little"),
        (3.6, 14, ""),
    ],
)
def test_the_rule_of_what_hardly_differs(change, noise, told):
    found = files.remark_on_change(change, noise)
    assert bool(found) is bool(told)
    assert told in found


@pytest.mark.parametrize("sigma", [0, 5, 25])
def test_what_looks_like_noise_is_estimated_band_by_band(sigma):
    rng = np.random.default_rng(0)
    image = np.add.outer(np.arange(120), np.arange(90))[..., None] + np.full(3, 20)
    image = (image + rng.normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8)
    result = Result(Source(image), 1, 1.0)
    for top in range(0, 120, 40):
        result.rows(top, result.source.colour(top, top + 40))
    assert result.noise == pytest.approx(sigma, rel=0.1, abs=0.5)
    assert result.change == 0


def test_pixels_in_memory_are_bounded_whatever_the_number_of_threads():
    import threading

    from semanir.restoring.budget import PixelBudget

    budget, held, most = PixelBudget(10), [], []

    def work(pixels):
        with budget.hold(pixels):
            held.append(pixels)
            most.append(sum(held))
            held.remove(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (4, 5, 6, 99, 3, 8) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert max(total for total in most if total < 99) <= 10
    assert not [total for total in most if total > 99]
