# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest
import semanir
import torch
from PIL import Image
from semanir import SemanIR, SemanIRConfig
from semanir.cli import batch
from semanir.cli.app import app
from semanir.cli.batch import collect_jobs
from semanir.images import ImageError, Picture, read_picture, write_picture
from semanir.restorer import Restorer
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = SemanIRConfig.preset(
        "tiny",
        embed_dims=(8, 8),
        num_heads=(1, 1),
        depths=(1, 1, 1, 1),
        window_size=4,
        k=6,
        conv_blocks=(),
    )
    folder = tmp_path_factory.mktemp("weights") / "model"
    SemanIR(config).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    yield tmp_path
    assert list(tmp_path.rglob("*.part")) == []


@pytest.fixture
def run(here, model):
    def call(*args, code=0, use=model):
        extra = ["--model", str(use), "--device", "cpu"] if args[0] in ("restore", "demo") else []
        result = CliRunner().invoke(app, [*map(str, args), *extra])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call


def noise(*shape, dtype=np.uint8, seed=0):
    return (np.random.default_rng(seed).random(shape) * np.iinfo(dtype).max).astype(dtype)


def save(*names, shape=(10, 12, 3)):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(noise(*shape, seed=number)), Path(name))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def sentence(result):
    """The one line on stderr, with nothing on stdout."""
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("semanir: ")
    return line


def test_one_file(run, model):
    save("a.png")
    result = run("restore", "a.png", "-o", "b.png")
    assert result.stdout == ""
    expected = Restorer.from_pretrained(model, device="cpu").restore(read_picture(Path("a.png")).pixels)
    np.testing.assert_array_equal(read_picture(Path("b.png")).pixels, expected)
    assert files(".") == ["a.png", "b.png"]


def test_what_is_beside_the_pixels_is_kept(run):
    exif = Image.Exif()
    exif[271] = "A camera"
    picture = Picture(noise(9, 8, 4, dtype=np.uint16), b"profile", exif.tobytes(), (300.0, 300.0))
    write_picture(picture, Path("a.png"))
    run("restore", "a.png", "-o", "b.png", "--strength", "0")
    back = read_picture(Path("b.png"))
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    assert back.icc == picture.icc
    assert back.exif == read_picture(Path("a.png")).exif
    assert back.dpi == pytest.approx((300, 300), abs=0.1)


def test_options_reach_the_restorer(run, monkeypatch):
    save("a.png")
    seen = []
    inner = Restorer.restore

    def spy(self, image, **options):
        options.pop("progress")
        seen.append((self.tile, self.batch_size, options))
        return inner(self, image, **options)

    monkeypatch.setattr(Restorer, "restore", spy)
    options = ["--strength", "0.5", "--k", "3", "--self-ensemble", "--tile", "64", "--batch-size", "2"]
    run("restore", "a.png", "-o", "b.png", *options)
    assert seen == [(64, 2, {"strength": 0.5, "k": 3, "self_ensemble": True})]


def test_a_failing_file_is_named_and_does_not_stop_the_others(run):
    save("in/a.png", "in/c.png")
    Path("in/b.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    result = run("restore", "in", "-o", "out", code=1)
    assert files("out") == ["a.png", "c.png"]
    assert [line for line in result.stderr.splitlines() if line.startswith("semanir:")] == [
        line for line in result.stderr.splitlines() if "b.png is " in line
    ]
    assert "2 restored, 1 failed" in result.stderr
    assert len([line for line in result.stderr.splitlines() if line]) == 2


@pytest.mark.parametrize("error", [ValueError("bad\nthing"), torch.OutOfMemoryError("full"), MemoryError()])
def test_errors_of_the_restorer_name_the_file(run, monkeypatch, error):
    save("in/a.png", "in/b.png")
    inner = Restorer.restore

    def broken(self, image, **options):
        if np.array_equal(image, read_picture(Path("in/a.png")).pixels):
            raise error
        return inner(self, image, **options)

    monkeypatch.setattr(Restorer, "restore", broken)
    result = run("restore", "in", "-o", "out", code=1)
    assert (
        f"semanir: {Path('in/a.png')}: {' '.join(str(error).split()) or 'out of memory'}\n" in result.stderr
    )
    assert files("out") == ["b.png"]


def test_a_missing_file_fails(run):
    assert "none.png does not exist" in sentence(run("restore", "none.png", "-o", "b.png", code=1))


def test_debug_shows_the_error(here, model):
    arguments = ["restore", "none.png", "-o", "b.png", "--debug", "--device", "cpu", "--model", str(model)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ImageError)


def test_resuming_and_overwriting(run):
    save("in/a.png", "in/b.png")
    run("restore", "in", "-o", "out")
    Path("out/b.png").unlink()
    marked = read_picture(Path("in/a.png"))
    write_picture(marked, Path("out/a.png"))
    result = run("restore", "in", "-o", "out")
    assert "a.png is there already, skipped" in result.stderr
    assert "1 restored, 1 skipped" in result.stderr
    np.testing.assert_array_equal(read_picture(Path("out/a.png")).pixels, marked.pixels)
    run("restore", "in", "-o", "out", "--overwrite")
    assert (read_picture(Path("out/a.png")).pixels != marked.pixels).any()


def test_the_result_comes_last_so_that_a_stopped_job_is_done_again(run, monkeypatch):
    save("a.png")

    def broken(panels):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(batch, "comparison", broken)
        run("restore", "a.png", "-o", "b.png", "--compare", code=1)
    assert files(".") == ["a.png"]
    run("restore", "a.png", "-o", "b.png", "--compare")
    assert files(".") == ["a.png", "b-compare.png", "b.png"]


def test_folders(run):
    save("in/a.png", "in/sub/deep/b.jpg", "in/sub/c.tif")
    Path("in/notes.txt").write_text("no image")
    Path("in/.hidden.png").write_bytes(b"no image")
    run("restore", "in", "-o", "flat")
    assert files("flat") == ["a.png"]
    run("restore", "in", "-o", "out", "-r")
    assert files("out") == ["a.png", "sub/c.tif", "sub/deep/b.jpg"]


def test_globs(run):
    save("in/a1.png", "in/a2.png", "in/b.png")
    run("restore", "in/a*.png", "-o", "out")
    assert files("out") == ["a1.png", "a2.png"]
    assert "no image found in x*.png" in sentence(run("restore", "x*.png", "-o", "out", code=2))


def test_names_with_brackets(run):
    save("in/a[bold].png", "in/b[1].png")
    result = run("restore", "in/a[bold].png", "in/b[1].png", "-o", "out")
    assert files("out") == ["a[bold].png", "b[1].png"]
    result = run("restore", "in/a[bold].png", "-o", "out")
    assert "a[bold].png is there already" in result.stderr


def test_suffix_and_format(run):
    save("in/a.png", "in/b.jpg")
    run("restore", "in", "-o", "out", "--suffix", "-clean", "--format", "TIF")
    assert files("out") == ["a-clean.tif", "b-clean.tif"]
    assert "--format must be one of" in sentence(run("restore", "in", "-o", "o", "--format", "gif", code=2))
    assert "--suffix" in sentence(run("restore", "in", "-o", "o", "--suffix", "a/b", code=2))


def test_formats_that_can_only_be_read_become_png(run):
    Image.fromarray(noise(6, 6)).save("a.pgm")
    run("restore", "a.pgm", "-o", "out")
    assert files("out") == ["a.png"]
    assert "cannot be written" in sentence(run("restore", "a.pgm", "-o", "b.pgm", code=2))


def test_results_beside_their_sources_are_not_restored_again(run):
    save("in/a.png", "in/b.png")
    for _ in range(2):
        run("restore", "in", "-o", "in", "--suffix", "-clean", "--compare")
    assert files("in") == [
        "a-clean-compare.png",
        "a-clean.png",
        "a.png",
        "b-clean-compare.png",
        "b-clean.png",
        "b.png",
    ]


def test_results_inside_the_source_folder_are_not_restored_again(run):
    save("in/a.png")
    for _ in range(2):
        run("restore", "in", "-o", "in/out", "-r")
    assert files("in") == ["a.png", "out/a.png"]


@pytest.mark.parametrize(
    ("names", "arguments", "match"),
    [
        (["x/a.png", "y/a.png"], ["x/a.png", "y/a.png"], "would both become"),
        (["x/a.png", "x/a.jpg"], ["x", "--format", "png"], "would both become"),
        (["x/a.png", "x/a.jpg"], ["x", "--compare"], "would both become"),
        (["x/a.png", "x/a-compare.png"], ["x", "--compare"], "would both become"),
    ],
)
def test_collisions_are_refused(run, names, arguments, match):
    save(*names)
    assert match in sentence(run("restore", *arguments, "-o", "out", code=2))
    assert not Path("out").exists()


def test_sources_are_not_overwritten(run):
    save("a.png", "in/a.png", "in/a-clean.png")
    before = Path("a.png").read_bytes()
    for arguments in (["a.png", "-o", "a.png"], ["a.png", "-o", "."], ["in", "-o", "in"]):
        assert "would be overwritten by" in sentence(run("restore", *arguments, "--overwrite", code=2))
    both = ["in/a.png", "in/a-clean.png", "-o", "in", "--suffix", "-clean", "--overwrite"]
    assert "would be overwritten by the result of" in sentence(run("restore", *both, code=2))
    Path("link.png").symlink_to("a.png")
    assert "overwritten" in sentence(run("restore", "a.png", "-o", "link.png", "--overwrite", code=2))
    assert Path("a.png").read_bytes() == before


def test_many_images_need_a_folder(run):
    save("a.png", "b.png", "c.png")
    assert "give a folder" in sentence(run("restore", "a.png", "b.png", "-o", "c.png", code=2))


def test_a_folder_that_cannot_be_made(run):
    save("in/a.png", "in/b.png")
    Path("file").touch()
    result = run("restore", "in", "-o", "file/out", code=1)
    assert result.stderr.count("cannot be made") == 2


def test_a_format_that_cannot_hold_the_image(run):
    write_picture(Picture(noise(6, 6, 4)), Path("a.png"))
    assert "transparency" in sentence(run("restore", "a.png", "-o", "b.jpg", code=1))


def test_max_pixels(run):
    save("a.png")
    assert "--max-pixels" in sentence(run("restore", "a.png", "-o", "b.png", "--max-pixels", "9", code=1))


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 2), (9, 8, 4)])
def test_compare(run, shape):
    write_picture(Picture(noise(*shape, dtype=np.uint16)), Path("a.png"))
    run("restore", "a.png", "-o", "b.png", "--compare")
    assert files(".") == ["a.png", "b-compare.png", "b.png"]
    sheet = read_picture(Path("b-compare.png")).pixels
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 800


def test_json_lines(run):
    save("in/a.png", "in/b.png", "in/c.png")
    Path("in/b.png").write_text("no image")
    run("restore", "in/c.png", "-o", "out")
    result = run("restore", "in", "-o", "out", "--json", code=1)
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["status"] for report in reports] == ["restored", "failed", "skipped"]
    assert [Path(report["input"]).name for report in reports] == ["a.png", "b.png", "c.png"]
    assert (reports[0]["width"], reports[0]["height"]) == (12, 10)
    assert "not an image" in reports[1]["error"]
    assert all(report["seconds"] >= 0 for report in reports)


def test_shares_cover_every_job_once(run, monkeypatch):
    save(*(f"in/{number}.png" for number in range(5)), shape=(6, 6, 3))
    done = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        output = run("restore", "in", "-o", "out", "--json").stdout
        reports = [json.loads(line) for line in output.splitlines()]
        assert {report["status"] for report in reports} == {"restored"}
        done += [report["output"] for report in reports]
    assert len(done) == 5
    assert sorted(done) == [str(Path("out") / name) for name in files("out")]
    monkeypatch.setenv("RANK", "3")
    assert "RANK must lie in" in sentence(run("restore", "in", "-o", "out", code=2))


def test_unknown_model(run):
    save("a.png")
    assert "no model" in sentence(run("restore", "a.png", "-o", "b.png", use="nothing", code=2))


def test_a_tile_that_is_too_small(run):
    save("a.png")
    assert "tile must be at least" in sentence(run("restore", "a.png", "-o", "b.png", "--tile", "1", code=2))


@pytest.mark.parametrize(
    "arguments",
    [["restore"], ["restore", "a.png"], ["restore", "a.png", "-o", "b.png", "--strength", "2"], ["nothing"]],
)
def test_wrong_usage(run, arguments):
    assert run(*arguments, code=2).stdout == ""


def test_a_run_that_is_stopped(here, model, monkeypatch):
    save("a.png")

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Restorer, "restore", stop)
    arguments = ["restore", "a.png", "-o", "b.png", "--device", "cpu", "--model", str(model)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr
    assert files(here) == ["a.png"]


def test_models(run, monkeypatch):
    card = {"task": "denoise", "parameters": 1234, "mean_gain_db": {"25": 1.5}}
    monkeypatch.setattr("semanir.weights.shipped_models", lambda: ["mine", "other"])
    monkeypatch.setattr("semanir.weights.read_card", lambda name: card if name == "mine" else {})
    assert json.loads(run("models", "--json").stdout) == {"mine": card, "other": {}}
    shown = run("models").stdout
    assert "mine" in shown
    assert "1,234" in shown
    assert "+1.50" in shown


def test_version_and_help(run):
    assert run("--version").stdout == f"semanir {semanir.__version__}\n"
    for arguments in (["--help"], ["-h"], ["restore", "--help"]):
        shown = run(*arguments, use="x").stdout
        assert "Examples" in shown
        assert "semanir restore" in shown


def test_demo(run, monkeypatch):
    from semanir.demo import PHOTOS

    monkeypatch.setitem(PHOTOS, "chelsea", lambda: noise(24, 24, 3))
    figures = json.loads(run("demo", "--out", "d", "--json").stdout)
    assert figures["photo"] == "chelsea"
    assert files("d") == ["baseline.png", "comparison.png", "noisy.png", "restored.png"]
    assert str(Path("d") / "comparison.png") in run("demo", "--out", "d").stdout
    assert "no photo 'x'" in sentence(run("demo", "--photo", "x", code=2))
    assert "sigma must be positive" in sentence(run("demo", "--sigma", "0", code=2))


def test_stable_order(here):
    save("in/b.png", "in/a.png", "in/sub/a.png")
    jobs = collect_jobs(["in/b.png", "in"], Path("out"), recursive=True)
    assert [str(job.source) for job in jobs] == ["in/b.png", "in/a.png", "in/sub/a.png"]
