# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from pixelsmith import adapters
from pixelsmith.cli import app
from pixelsmith.cli.options import file_stem, parse_sliders
from pixelsmith.config import LoadingConfig, SamplingConfig


@pytest.fixture
def model(dummies, tmp_path, monkeypatch):
    """A model that every command gets; records the arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    dummy = dummies.Dummy()
    dummy.asked = []

    def load(name, prompt, announce, **options):
        dummy.asked.append({"name": name, "prompt": prompt, **options})
        if name == "nothing":
            raise FileNotFoundError("no model 'nothing': it is neither shipped, nor a folder, nor a hub id")
        dummy.options = {"prompt": prompt}
        return dummy

    monkeypatch.setattr(adapters, "load_model", load)
    monkeypatch.setattr(adapters, "read_outline", lambda *args, **settings: None)
    return dummy


@pytest.fixture
def run(model, capsys):
    def call(*args, code=0):
        found = run_app(app, [*map(str, args)])
        shown = capsys.readouterr()
        assert found == code, shown
        assert "Traceback" not in shown.err
        return SimpleNamespace(stdout=shown.out, stderr=shown.err)

    return call


def sentence(result):
    """The one line on stderr, with nothing on stdout."""
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("pixelsmith: ")
    return line


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def photo(dummies, tmp_path):
    Image.fromarray(dummies.scene((24, 28))).save(tmp_path / "photo.png")
    return Path("photo.png")


def test_words_become_an_image_of_the_size_asked_for(run, model, dummies, tmp_path):
    result = run("generate", "A red circle!", "--size", "60x44", "--seed", 3, "--batch-size", 2, "--json")
    said = json.loads(result.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".results", "a-red-circle-60x44.png"]
    assert said["outputs"] == {"image": str(tmp_path / "a-red-circle-60x44.png")}
    assert (said["input"], said["status"]) == ("A red circle!", "done")
    assert (said["width"], said["height"], said["job"]) == (60, 44, None)
    assert said["denoiser_calls"] == sum(count for _, count in model.calls)
    assert pixels(said["outputs"]["image"]).shape == (44, 60, 3)
    # the base image has the aspect of the result and about the area that the model knows
    assert model.bases == [((28, 36), 3)]
    assert model.asked[0] == {
        "name": "tiny-sdxl", "prompt": "A red circle!", "device": "auto", "dtype": "auto",
        "loading": LoadingConfig(), **asdict(SamplingConfig()),
    }  # fmt: skip


def test_options_reach_the_model_and_the_loop(run, model, dummies, tmp_path):
    run(
        "generate", "x", "--size", "64", "--via", "48", "--slider", "2,1", "--plan", "jitter", "--wrap",
        "both", "--mode", "official", "--conditioning", "base", "--num-inference-steps", 3,
        "--guidance-scale", 2.5, "--negative-prompt", "fog", "--model", "some/model", "--band", 2,
        "--start", "noise", "--canvas", "float16", "--base", "32", "--device", "cpu",
        "--dtype", "float32", "-o", "a.png", "--job", "work", "--keep",
    )  # fmt: skip
    asked = model.asked[0]
    assert (asked["name"], asked["negative_prompt"], asked["device"]) == ("some/model", "fog", "cpu")
    assert (asked["num_inference_steps"], asked["guidance_scale"], asked["dtype"]) == (3, 2.5, "float32")
    held = json.loads(Path("work/job.json").read_text())
    assert held["sizes"] == [[48, 48], [64, 64]]
    assert held["source_size"] == [32, 32]
    assert held["sliders"] == [2, 1]
    assert held["canvas"] == "float16"
    settings = {name: held["config"][name] for name in ("plan", "wrap", "mode", "band", "start", "patch")}
    assert settings == {
        "plan": "jitter", "wrap": "both", "mode": "official", "band": 2, "start": "noise", "patch": 16,
    }  # fmt: skip


def test_an_image_of_native_size_takes_no_stage(run, model, dummies):
    result = json.loads(run("generate", "x", "--size", "32", "-o", "a.png", "--json").stdout)
    assert result["denoiser_calls"] == 0
    np.testing.assert_array_equal(pixels("a.png"), dummies.scene((32, 32)))


def test_a_photo_is_enlarged(run, model, photo):
    result = run("upscale", photo, "--scale", 2, "--model", "real", "--prompt", "a boat")
    assert result.stderr == ""
    assert "photo-56x48.png: 56 x 48" in result.stdout
    assert pixels("photo-56x48.png").shape == (48, 56, 3)
    assert model.asked[0]["prompt"] == "a boat"
    assert model.bases == []
    run("upscale", photo, "--size", "84", "-o", "b.dzi", "--model", "real")
    assert sorted(path.name for path in Path().iterdir()) == [
        ".results", "b.dzi", "b.html", "b_files", "photo-56x48.png", "photo.png",
    ]  # fmt: skip
    assert 'Height="72" Width="84"' in Path("b.dzi").read_text()
    assert "knows drawn shapes only" in run("upscale", photo, "--scale", 1, "-o", "c.png").stderr


def test_a_dry_run_tells_what_it_takes(run, model, photo, tmp_path):
    result = run("upscale", photo, "--scale", 4, "--via", "56x48", "--dry-run", "--model", "real")
    words = (
        "112 x 96",
        "56 x 48",
        "patches",
        "disk",
        "memory",
        "time",
        "photo-112x96.png",
        "writer  pyvips 3",
    )
    for word in words:
        assert word in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]
    reported = json.loads(
        run("upscale", photo, "--scale", 2, "--dry-run", "--json", "--model", "real").stdout
    )
    assert reported["calls"] == reported["stages"][0]["calls"] > 0
    assert reported["writer"].startswith("pyvips 3")
    assert reported["seconds"] >= 0
    assert reported["output"] == str(tmp_path / "photo-56x48.png")


def test_a_dry_run_without_stages_says_so(run, model):
    said = run("generate", "x", "--size", "32", "--dry-run").stdout
    assert "stages  none: the model generates 32 x 32 itself" in said
    assert "guided steps" not in said
    assert "0 patches" not in said
    assert "time    not measured" in said


@pytest.fixture
def whole(run, model):
    """The bytes of a job without a stop."""
    run("generate", "a boat", "--size", "56x48", "--base", "28x24", "-o", "whole.png")
    found = Path("whole.png").read_bytes()
    Path("whole.png").unlink()
    for held in (model.calls, model.bases, model.asked):
        held.clear()
    return found


def interrupt(model, at, error):
    def before_call(number):
        if number == at:
            raise error

    model.before_call = before_call


@pytest.mark.parametrize("at", [1, 4, 9])
def test_control_c_leaves_a_job_that_goes_on(run, model, whole, tmp_path, at):
    interrupt(model, at, KeyboardInterrupt)
    asked = ("generate", "a boat", "--size", "56x48", "--base", "28x24", "-o", "out.png")
    line = sentence(run(*asked, code=130))
    folder = tmp_path / "out.png.job"
    assert line == f"pixelsmith: interrupted, nothing is lost; resume with: pixelsmith resume {folder}"
    state = json.loads(run("inspect", folder, "--json").stdout)
    assert state["stages"][0]["status"] == "denoising"
    assert not state["is_complete"]
    assert "denoising" in run("inspect", folder).stdout
    taken = len(model.calls)
    run("resume", folder, "--batch-size", 3)
    assert Path("out.png").read_bytes() == whole
    assert not folder.exists()
    assert model.bases == [((24, 28), 0)]
    assert taken == at


def test_the_same_command_goes_on_too(run, model, whole):
    interrupt(model, 5, KeyboardInterrupt)
    asked = ("generate", "a boat", "--size", "56x48", "--base", "28x24", "-o", "out.png")
    run(*asked, code=130)
    Path("out.png").write_bytes(b"of somebody else")  # while the job was stopped
    run(*asked)
    assert Path("out.png").read_bytes() == whole
    assert model.bases == [((24, 28), 0)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory: take a smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: take a"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_on_the_way_can_be_resumed(run, model, whole, tmp_path, error, said):
    interrupt(model, 4, error)
    asked = ("generate", "a boat", "--size", "56x48", "--base", "28x24", "-o", "out.png")
    line = sentence(run(*asked, code=1))
    assert said in line
    assert line.endswith(f"resume with: pixelsmith resume {tmp_path / 'out.png.job'}")
    run("resume", "out.png.job", "-o", "other.png")
    assert Path("other.png").read_bytes() == whole
    assert not Path("out.png").exists()


def test_a_finished_job_can_be_kept_and_asked(run, model):
    run("generate", "a boat", "--size", "48", "-o", "out.png", "--keep", "--no-preview")
    state = json.loads(run("inspect", "out.png.job", "--json").stdout)
    assert state["is_complete"]
    assert state["stages"][0]["status"] == "complete"
    assert state["stages"][0]["decoded"] == state["stages"][0]["encoded"] == 1
    assert state["stages"][0]["calls"] == sum(count for _, count in model.calls)
    calls = len(model.calls)
    run("resume", "out.png.job", "-o", "again.png")
    assert len(model.calls) == calls
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    assert Path("out.png.job").exists()  # as the first command wanted


def test_of_a_finished_job_the_result_is_named(run, model, tmp_path):
    interrupt(model, 4, KeyboardInterrupt)
    run("generate", "a boat", "--size", "48", "-o", "out.png", code=130)
    run("resume", "out.png.job")
    calls = len(model.calls)
    said = f"pixelsmith: the job is finished, its result is {tmp_path / 'out.png'}"
    assert sentence(run("resume", "out.png.job")) == said
    assert sentence(run("resume", "out.png.job/", "-o", "out.png")) == said
    found = json.loads(run("resume", "out.png.job", "--json").stdout)
    assert (found["status"], found["outputs"]) == ("skipped", {"image": str(tmp_path / "out.png")})
    assert len(model.calls) == calls
    # what is gone cannot be written elsewhere, and a result that is gone is not named
    gone = "there is no folder out.png.job; that of a finished job is removed"
    assert gone in sentence(run("resume", "out.png.job", "-o", "other.png", code=2))
    Path("out.png").unlink()
    assert gone in sentence(run("resume", "out.png.job", code=2))


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"digest": "1", "complete": false}'])
def test_a_result_that_is_not_known_to_be_complete_is_not_named(run, model, record):
    Path(".results").mkdir()
    Path(".results/out.png.json").write_text(record)
    Path("out.png").write_bytes(b"half")
    assert "there is no folder out.png.job" in sentence(run("resume", "out.png.job", code=2))


def test_previews_are_kept_beside(run, model):
    interrupt(model, 45, KeyboardInterrupt)
    run("generate", "a boat", "--size", "96", "-o", "out.png", code=130)
    assert pixels("out.png.job/preview.png").shape == (48, 48, 3)


BAD = {
    "size": (["--size", "wide"], "a size is WIDTHxHEIGHT or one number of pixels, as 4096x2048, got 'wide'"),
    "nothing": (["--size", "0x40"], "got '0x40'"),
    "odd": (
        ["--size", "61x44"],
        "pixels, got height 44 and width 61; the nearest are height 44 and width",
    ),
    "huge": (["--size", "2000000"], "must be at most 1000000 pixels, got height 2000000 and width 2000000"),
    "base": (["--size", "60", "--base", "2000000"], "got height 2000000 and width 2000000"),
    "shape": (["--size", "60", "--base", "40x20"], "must have the shape of the result, 60 x 60, got 40 x"),
    "fit": (["--size", "60", "--fit", "stretch"], "Invalid value"),
    "fit-none": (["--size", "60", "--fit", "crop"], "--fit is for the image of an upscale"),
    "base-size": (["--size", "60", "--base", "small"], "got 'small'"),
    "slider": (["--size", "60", "--slider", "much"], "--slider takes steps (20), a fraction (0.9), auto"),
    "sliders": (["--size", "60", "--slider", "1,2"], "one for each of 1 stages, got '1,2'"),
    "steps": (["--size", "60", "--slider", "9"], "slider must not exceed the 3 steps, got 9"),
    "share": (["--size", "60", "--slider", "1.5"], "slider must be a fraction in [0, 1]"),
    "option": (["--size", "60", "--bands", "3"], "Unknown option: --bands"),
    "band": (["--size", "60", "--band", "-1"], "band must not be negative, got -1"),
    "kind": (["--size", "60", "--band", "wide"], "Invalid value for --band"),
    "output": (["--size", "60", "-o", "a.bmp"], "the output must end in one of .png"),
    "model": (["--size", "60", "--model", "nothing"], "no model 'nothing'"),
    "map": (["--size", "60", "--slider", "no.json"], "no.json: no such file"),
}
# errors that only the loaded model can find
NEEDS_MODEL = {"odd", "huge", "base", "shape", "steps", "model"}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD)
def test_wrong_options_get_one_sentence(run, model, tmp_path, options):
    given, said = options
    assert said in sentence(run("generate", "x", *given, code=2))
    assert model.calls == model.bases == []
    assert list(tmp_path.iterdir()) == []


def test_schedulers_and_autoencoders_are_checked_first(run, model):
    model.num_steps = 13
    line = sentence(run("generate", "x", "--size", "60", code=2))
    assert line == "pixelsmith: scheduler Unlucky has no closed form; use DDIMScheduler"
    model.num_steps, model.vae = 3, None
    assert "has no vae" in sentence(run("generate", "x", "--size", "60", code=2))
    assert model.bases == []
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["photo.png", "--scale", "2", "--size", "60"], "size and scale cannot both be given; leave one out"),
        (["photo.png", "--scale", "1e9"], "height and width must be at most 1000000 pixels"),
        (["photo.png", "--scale", "-1"], "scale must be above 0, got -1.0"),
        (["photo.png", "--scale", "2", "--max-pixels", "600"], "claims 28 x 24 pixels, more than 600: raise"),
        (["no.png", "--scale", "2"], "no.png does not exist"),
        (["cut.png", "--scale", "2"], "cut.png is damaged or cut short"),
        (["text.png", "--scale", "2"], "text.png is not an image that can be read"),
    ],
)
def test_wrong_images_get_one_sentence(run, model, photo, options, said):
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(photo.read_bytes()[:900])
    assert said in sentence(run("upscale", *options, "--model", "real", code=2))
    assert sorted(path.name for path in Path().iterdir()) == ["cut.png", "photo.png", "text.png"]
    assert model.asked == [] or "1e9" in options


def test_a_result_is_skipped_only_if_it_is_of_the_same_options(run, model, photo):
    command = ("upscale", photo, "--size", "48x42", "-o", "new/folder/large.png", "--json")
    assert json.loads(run(*command).stdout)["status"] == "done"
    before, calls = pixels("new/folder/large.png"), len(model.calls)
    again = run(*command)
    assert json.loads(again.stdout)["status"] == "skipped"
    assert "the result exists, skipped" in again.stderr
    assert len(model.calls) == calls
    assert json.loads(run(*command, "--seed", "5").stdout)["status"] == "done"
    assert not np.array_equal(pixels("new/folder/large.png"), before)
    assert json.loads(run(*command, "--seed", "5", "--overwrite").stdout)["status"] == "done"
    assert json.loads(run(*command, "--seed", "5", "--batch-size", "2").stdout)["status"] == "skipped"


def test_what_is_there_is_not_replaced_unasked(run, model):
    Path("a.png").write_bytes(b"mine")
    said = sentence(run("generate", "x", "--size", "48", "-o", "a.png", code=2))
    assert "a.png exists and is not a result of an earlier run: --overwrite replaces it" in said
    assert Path("a.png").read_bytes() == b"mine"
    assert model.asked == []
    run("generate", "x", "--size", "48", "-o", "a.png", "--overwrite")
    assert pixels("a.png").shape == (48, 48, 3)


def test_an_image_is_not_replaced_by_its_own_result(run, model, photo):
    before = photo.read_bytes()
    for place in (photo, Path.cwd() / photo):
        said = sentence(run("upscale", photo, "-o", place, "--overwrite", code=2))
        assert "would be overwritten by its own result: give another name or folder" in said
    assert photo.read_bytes() == before
    assert model.asked == []


def test_a_folder_of_another_job_is_refused_until_overwritten(run, model):
    interrupt(model, 3, KeyboardInterrupt)
    run("generate", "x", "--size", "48", "-o", "a.png", code=130)
    said = sentence(run("generate", "y", "--size", "48", "-o", "a.png", "--seed", "1", code=2))
    assert "differs in prompt, seed; use another folder or discard it (--overwrite)" in said
    run("generate", "y", "--size", "48", "-o", "a.png", "--seed", "1", "--overwrite")
    assert sorted(path.name for path in Path().iterdir()) == [".results", "a.png"]


def test_folders_that_are_no_jobs_stay_as_they_are(run, model):
    Path("work").mkdir()
    Path("work/letter.txt").write_text("dear")
    asked = ("generate", "x", "--size", "48", "-o", "a.png", "--job", "work")
    assert "work is not empty and not a job folder" in sentence(run(*asked, code=2))
    assert "work is not a job folder" in sentence(run("inspect", "work", code=2))
    assert "is not the folder of a job that a command began" in sentence(run("resume", "work", code=2))
    Path("work/command.json").write_text("{}")
    assert "command.json is damaged" in sentence(run("resume", "work", code=2))
    assert sorted(path.name for path in Path("work").iterdir()) == ["command.json", "letter.txt"]


def test_a_full_disk_is_told_before_the_first_call(run, model, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("common_kernels.runtime.files.shutil.disk_usage", lambda path: usage)
    assert "but only 1.0 kB are free there" in sentence(run("generate", "x", "--size", "48", code=2))
    assert model.bases == []
    assert list(Path().iterdir()) == []
    # a dry run reports the estimate all the same
    result = run("generate", "x", "--size", "48", "--dry-run", code=2)
    assert "calls" in result.stdout
    assert "but only 1.0 kB are free there" in result.stderr


def test_debug_shows_the_error_itself(model):
    with pytest.raises(ValueError, match="multiples of 2 pixels"):
        run_app(app, ["generate", "x", "--size", "61x44", "--debug"])


def test_failures_are_reported_as_json_too(run, model, tmp_path):
    interrupt(model, 4, OSError(28, "No space left on device"))
    said = json.loads(run("generate", "a boat", "--size", "56x48", "--json", code=1).stdout)
    assert (said["input"], said["status"]) == ("a boat", "failed")
    assert "No space left" in said["error"]
    assert Path(said["job"]).is_dir()


def test_tiles_and_viewer_are_named_in_json(run, model):
    command = ("generate", "x", "--size", "48", "-o", "a.dzi", "--json")
    done, skipped = (json.loads(run(*command).stdout) for _ in range(2))
    assert (done["status"], skipped["status"]) == ("done", "skipped")
    for said in (done, skipped):
        assert {kind: Path(path).name for kind, path in said["outputs"].items()} == {
            "image": "a.dzi", "tiles": "a_files", "viewer": "a.html",
        }  # fmt: skip


def test_processes_that_cannot_meet_are_told(run, model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert "start them with accelerate launch or torchrun" in sentence(run("generate", "x", code=2))
    assert model.asked == []


def test_help_shows_examples(run):
    for command in ("generate", "upscale", "resume", "inspect", "demo"):
        assert f"pixelsmith {command}" in run(command, "--help").stdout
    assert run("--version").stdout.startswith("pixelsmith 0.")


def test_help_imports_no_torch():
    script = (
        "import sys; from pixelsmith.cli import app; from common_kernels.runtime.cli import run_app;"
        "code = run_app(app, ['generate', '--help']);"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'diffusers', 'PIL')))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("name", sorted({*BAD, "image", "scale"} - NEEDS_MODEL))
def test_mistakes_are_told_before_a_model_is_loaded(run, model, photo, name):
    if name in BAD:
        run("generate", "x", *BAD[name][0], code=2)
    else:
        given = {"image": ["no.png", "--scale", "2"], "scale": ["photo.png", "--scale", "0"]}
        sentence(run("upscale", *given[name], code=2))
    assert model.asked == []


def test_sliders_are_read_as_people_write_them(tmp_path):
    assert parse_sliders("auto") == ["auto"]
    assert parse_sliders("20, 0.5") == [20, 0.5]
    (tmp_path / "map.json").write_text("[[0.2, 0.6], [0.1, 0.4]]")
    assert parse_sliders(str(tmp_path / "map.json")) == [((0.2, 0.6), (0.1, 0.4))]
    (tmp_path / "map.json").write_text("{")
    with pytest.raises(ValueError, match="must hold rows of numbers"):
        parse_sliders(str(tmp_path / "map.json"))


def test_files_are_named_after_the_prompt():
    assert file_stem("../../etc/passwd, please") == "etc-passwd-please"
    assert file_stem("!?") == "image"


def test_what_a_result_cannot_hold_is_told(run, model, dummies):
    deep = dummies.scene((24, 28)).astype(np.uint16)[..., 0] * 257
    Image.fromarray(deep).save("deep.png")
    said = run("upscale", "deep.png", "--scale", 1, "--model", "real").stderr
    assert said == "pixelsmith: deep.png has 16 bits per channel, the result has 8\n"
    Image.fromarray(np.dstack([dummies.scene((24, 28)), np.zeros((24, 28), np.uint8)])).save("clear.png")
    said = run("upscale", "clear.png", "--scale", 1, "--model", "real", "-o", "a.jpg").stderr
    assert said == "pixelsmith: a .jpg file holds no transparency: those parts become white\n"
    assert run("upscale", "clear.png", "--scale", 1, "--model", "real", "-o", "a.png").stderr == ""
