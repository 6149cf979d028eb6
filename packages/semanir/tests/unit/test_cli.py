# SPDX-License-Identifier: Apache-2.0
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import semanir
import torch
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.images import ImageError, read_image, write_image
from PIL import Image
from semanir import RestoreOptions, SemanIR, SemanIRConfig
from semanir.cli import app
from semanir.restorer import Restorer


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
def run(here, model, capfd):
    def call(*args, code=0, use=model):
        extra = ["--model", str(use), "--device", "cpu"] if args[0] in ("restore", "demo") else []
        capfd.readouterr()
        found = run_app(app, [*map(str, args), *extra])
        out, err = capfd.readouterr()
        assert found == code, out + err
        return SimpleNamespace(stdout=out, stderr=err)

    return call


def noise(*shape, dtype=np.uint8, seed=0):
    return (np.random.default_rng(seed).random(shape) * np.iinfo(dtype).max).astype(dtype)


def save(*names, shape=(10, 12, 3)):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_image(noise(*shape, seed=number), name)


def files(folder):
    found = (p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file())
    return sorted(str(path) for path in found if ".results" not in path.parts)


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
    expected = Restorer.from_pretrained(model, device="cpu").restore(read_image("a.png").pixels)
    np.testing.assert_array_equal(read_image("b.png").pixels, expected)
    assert files(".") == ["a.png", "b.png"]


def test_options_reach_the_restorer(run, monkeypatch):
    save("a.png")
    seen = []
    inner = Restorer.stream

    def spy(self, results, options, **rest):
        seen.append((self.batch_size, options))
        return inner(self, results, options, **rest)

    monkeypatch.setattr(Restorer, "stream", spy)
    options = ["--strength", "0.5", "--k", "3", "--self-ensemble", "--tile", "64", "--overlap", "8"]
    run("restore", "a.png", "-o", "b.png", *options, "--batch-size", "2")
    run("restore", "a.png", "-o", "c.png", "--tile", "auto")
    given = RestoreOptions(strength=0.5, k=3, self_ensemble=True, tile=64, overlap=8)
    assert seen == [(2, given), (1, RestoreOptions())]


def test_a_failing_file_is_named_and_does_not_stop_the_others(run):
    save("in/a.png", "in/c.png")
    Path("in/b.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    result = run("restore", "in", "-o", "out", code=1)
    assert files("out") == ["a.png", "c.png"]
    named, counts = result.stderr.splitlines()
    assert named.startswith("semanir: in/b.png is damaged")
    assert counts == "2 done, 1 failed"


@pytest.mark.parametrize(
    ("error", "message"),
    [(ValueError("bad\nthing"), "bad thing"), (torch.OutOfMemoryError("full"), "out of memory")],
)
def test_errors_of_the_restorer_name_the_file(run, monkeypatch, error, message):
    save("in/a.png", "in/b.png")
    inner, bad = Restorer.stream, read_image("in/a.png").pixels

    def broken(self, results, *rest, **options):
        if np.array_equal(results[0].source.pixels, bad):
            raise error
        return inner(self, results, *rest, **options)

    monkeypatch.setattr(Restorer, "stream", broken)
    result = run("restore", "in", "-o", "out", code=1)
    assert f"semanir: in/a.png: {message}" in result.stderr
    assert files("out") == ["b.png"]


def test_a_missing_file_is_wrong_input(run):
    assert "none.png does not exist" in sentence(run("restore", "none.png", "-o", "b.png", code=2))


def test_a_mistyped_suffix_makes_no_folder(run):
    save("a.png")
    assert "b.pgn cannot be written" in sentence(run("restore", "a.png", "-o", "b.pgn", code=2))
    assert not Path("b.pgn").exists()


def test_debug_shows_the_error(here, model):
    Path("none.png").touch()
    with pytest.raises(ImageError):
        run_app(app, ["restore", "none.png", "-o", "b.png", "--debug", "--model", str(model)])


def test_a_result_is_skipped_only_if_nothing_changed(run, tmp_path):
    save("in/a.png", "in/b.png")

    def statuses(*options):
        lines = run("restore", "in", "-o", "out", "--json", *options).stdout.splitlines()
        return [json.loads(line)["status"] for line in lines]

    assert statuses() == ["done", "done"]
    assert statuses() == ["skipped", "skipped"]
    before = Path("out/a.png").read_bytes()
    assert statuses("--strength", "0.5") == ["done", "done"]
    assert Path("out/a.png").read_bytes() != before
    assert statuses("--strength", "0.5", "--batch-size", "2") == ["skipped", "skipped"]
    write_image(noise(10, 12, 3, seed=7), "in/b.png")
    assert statuses("--strength", "0.5") == ["skipped", "done"]
    assert statuses("--strength", "0.5", "--compare") == ["done", "done"]
    assert statuses("--strength", "0.5", "--overwrite") == ["done", "done"]


def test_another_model_of_the_same_name_restores_again(run, model, tmp_path):
    save("a.png")
    for scale, status in ((1.0, "done"), (1.0, "skipped"), (0.5, "done")):
        network = SemanIR.from_pretrained(model, device="cpu")
        with torch.no_grad():
            network.tail.weight.mul_(scale)
        network.save_pretrained("model")
        report = json.loads(run("restore", "a.png", "-o", "b.png", "--json", use="model").stdout)
        assert report["status"] == status


def test_a_file_of_the_user_is_not_replaced(run):
    save("a.png", "b.png")
    before = Path("b.png").read_bytes()
    assert "--overwrite replaces it" in sentence(run("restore", "a.png", "-o", "b.png", code=1))
    assert Path("b.png").read_bytes() == before
    run("restore", "a.png", "-o", "b.png", "--overwrite")
    assert Path("b.png").read_bytes() != before


def test_the_result_comes_last_so_that_a_stopped_job_is_done_again(run, monkeypatch):
    save("a.png")

    def broken(*images):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("semanir.restoring.files.before_after", broken)
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
    assert "a[bold].png: the results are there, skipped" in result.stderr


def test_suffix_and_format(run):
    save("in/a.png", "in/b.jpg")
    run("restore", "in", "-o", "out", "--suffix=-clean", "--format", "TIF")
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
        run("restore", "in", "-o", "in", "--suffix=-clean", "--compare")
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
        (["x/a.png", "x/a.jpg", "x/a-jpg.png"], ["x", "--format", "png"], "would both become"),
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
    both = ["in/a.png", "in/a-clean.png", "-o", "in", "--suffix=-clean", "--overwrite"]
    assert "would be overwritten by a result of" in sentence(run("restore", *both, code=2))
    Path("link.png").symlink_to("a.png")
    assert "overwritten" in sentence(run("restore", "a.png", "-o", "link.png", "--overwrite", code=2))
    assert Path("a.png").read_bytes() == before


def test_many_images_need_a_folder(run):
    save("a.png", "b.png", "c.png")
    assert "a folder is needed" in sentence(run("restore", "a.png", "b.png", "-o", "c.png", code=2))


def test_a_folder_that_cannot_be_made(run):
    save("in/a.png", "in/b.png")
    Path("file").touch()
    result = run("restore", "in", "-o", "file/out", code=1)
    assert "2 failed" in result.stderr
    assert len(result.stderr.splitlines()) == 3


def test_a_format_that_cannot_hold_the_image(run):
    write_image(noise(6, 6, 4), "a.png")
    assert "transparency" in sentence(run("restore", "a.png", "-o", "b.jpg", code=1))


def test_max_pixels(run):
    save("a.png")
    assert "raise max_pixels" in sentence(run("restore", "a.png", "-o", "b.png", "--max-pixels", "9", code=1))


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 2), (9, 8, 4)])
def test_compare(run, shape):
    write_image(noise(*shape, dtype=np.uint16), "a.png")
    run("restore", "a.png", "-o", "b.png", "--compare")
    assert files(".") == ["a.png", "b-compare.png", "b.png"]
    sheet = read_image("b-compare.png").pixels
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 800


def test_json_lines(run):
    save("in/a.png", "in/b.png", "in/c.png")
    Path("in/b.png").write_text("no image")
    run("restore", "in/c.png", "-o", "out")
    result = run("restore", "in", "-o", "out", "--json", code=1)
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["status"] for report in reports] == ["done", "failed", "skipped"]
    assert [Path(report["input"]).name for report in reports] == ["a.png", "b.png", "c.png"]
    assert (reports[0]["width"], reports[0]["height"]) == (12, 10)
    assert "not an image" in reports[1]["error"]
    assert all(report["seconds"] >= 0 for report in reports)


def test_two_processes_share_the_images(here, model):
    save(*(f"in/{number}.png" for number in range(3)), shape=(6, 6, 3))
    Path("in/3.png").write_text("no image")
    code = "import sys; from semanir.cli import app; from common_kernels.runtime.cli import run_app\n"
    code += "raise SystemExit(run_app(app))"
    arguments = ["restore", "in", "-o", "out", "--json", "--device", "cpu", "--model", str(model)]
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | address | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [1, 1], results
    reports = [[json.loads(line) for line in out.splitlines()] for out, _ in results]
    assert [[Path(each["input"]).name for each in part] for part in reports] == [
        ["0.png", "2.png"],
        ["1.png", "3.png"],
    ]
    assert files("out") == ["0.png", "1.png", "2.png"]
    assert "3 done, 1 failed" in results[0][1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_unknown_model(run):
    save("a.png")
    assert "no model" in sentence(run("restore", "a.png", "-o", "b.png", use="nothing", code=2))


def test_a_tile_that_is_too_small(run):
    save("a.png")
    assert "tile must be at least" in sentence(run("restore", "a.png", "-o", "b.png", "--tile", "1", code=2))


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore"],
        ["restore", "a.png"],
        ["restore", "a.png", "-o", "b.png", "--strength", "2"],
        ["restore", "a.png", "-o", "b.png", "--k", "0"],
        ["restore", "a.png", "-o", "b.png", "--tile", "large"],
        ["restore", "a.png", "-o", "b.png", "--batch-size", "0"],
        ["restore", "a.png", "-o", "b.png", "--no-such-option"],
        ["nothing"],
    ],
)
def test_wrong_usage(run, arguments):
    save("a.png")
    sentence(run(*arguments, code=2))


def test_a_device_that_is_not_there(here, capfd):
    save("a.png")
    assert run_app(app, ["restore", "a.png", "-o", "b.png", "--device", "cuda:77"]) == 2
    out, err = capfd.readouterr()
    assert "'cuda:77' is not present" in sentence(SimpleNamespace(stdout=out, stderr=err))


def test_a_run_that_is_stopped(here, model, monkeypatch, capfd):
    save("a.png")

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Restorer, "stream", stop)
    assert run_app(app, ["restore", "a.png", "-o", "b.png", "--device", "cpu", "--model", str(model)]) == 130
    assert "run the same command again" in capfd.readouterr().err
    assert files(here) == ["a.png"]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["restore", "--help"], ["demo", "-h"], ["models", "-h"]]
)
def test_help_shows_examples(run, arguments):
    shown = run(*arguments, use="x").stdout
    assert "Examples" in shown
    assert f"semanir {arguments[0] if len(arguments) > 1 else 'restore'}" in shown


def test_version(run):
    assert run("--version").stdout == f"semanir {semanir.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["restore", "a.png"]])
def test_help_and_wrong_usage_do_not_wait_for_torch(arguments):
    code = "import sys; from semanir.cli import app; from common_kernels.runtime.cli import run_app\n"
    code += "run_app(app); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0


def test_demo(run, monkeypatch):
    from semanir.demo import PHOTOGRAPHS

    monkeypatch.setitem(PHOTOGRAPHS, "chelsea", lambda: noise(24, 24, 3))
    figures = json.loads(run("demo", "-o", "d", "--json").stdout)
    assert figures["photograph"] == "chelsea"
    assert files("d") == ["baseline.png", "comparison.png", "noisy.png", "restored.png"]
    assert str(Path("d") / "comparison.png") in run("demo", "-o", "d").stdout
    assert "--photograph" in sentence(run("demo", "--photograph", "x", code=2))
    assert "sigma must lie in (0, 100]" in sentence(run("demo", "--sigma", "0", code=2))
