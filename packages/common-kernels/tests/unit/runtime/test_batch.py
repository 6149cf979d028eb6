# SPDX-License-Identifier: Apache-2.0
import json
import threading
from pathlib import Path

import pytest
from common_kernels.runtime import batch
from common_kernels.runtime.files import write_bytes


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/a.jpg", "in/sub/c.png", "in/.hidden.png", "in/notes.txt"):
        write_bytes(name, name.encode())
    return Path("in")


def plan(inputs, output, **options):
    def in_folder(relative):
        return {"image": relative.with_suffix(".png"), "labels": relative.with_name(f"{relative.stem}-l.png")}

    return batch.plan_jobs(
        [str(each) for each in inputs],
        Path(output),
        in_folder=in_folder,
        as_file=lambda path: {"image": path},
        file_suffixes={".png"},
        **options,
    )


class Method:
    """Copies the input in capitals; fails on what holds the word bad; counts what it did."""

    def __init__(self):
        self.devices, self.done = [], []

    def __call__(self, device):
        self.devices.append(device)
        return self.run

    def run(self, job, on_progress):
        on_progress(1, 2)
        data = job.source.read_bytes()
        if b"bad" in data:
            raise ValueError("nothing can be done")
        for path in job.outputs.values():
            write_bytes(path, data.upper())
        self.done.append(job.source.name)
        return {"length": len(data)}


def run(jobs, *, settings=None, **options):
    method = Method()
    report = batch.run_jobs(jobs, method, settings=settings or {"k": 1}, device="cpu", **options)
    return report, method


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_sources_are_found_once_in_a_stable_order(images):
    def names(*inputs, **options):
        return [str(each.relative) for each in batch.find_sources(inputs, **options)]

    assert names("in") == ["a.jpg", "b.png"]
    assert names("in", recursive=True) == ["a.jpg", "b.png", "sub/c.png"]
    assert names("in/b.png", "in", "in/*.png") == ["b.png", "a.jpg"]
    assert names("in/**/*.png", recursive=True) == ["b.png", "c.png"]
    assert names("in/notes.txt") == ["notes.txt"]
    assert names("in/missing.png", "in/b.png") == ["missing.png", "b.png"]
    assert names("in", exclude=Path("in/sub"), recursive=True) == ["a.jpg", "b.png"]


def test_nothing_found_names_the_suffixes_and_the_cure(images):
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=r"no image found in empty \(suffixes: .*png.*; --recursive"):
        batch.find_sources(["empty"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["in/missing.png"], "in/missing.png does not exist"),
        (["in/b.png/c.png"], "in/b.png/c.png does not exist"),
        (["in/missing.png", "none.jpg"], "in/missing.png, none.jpg do not exist"),
    ],
)
def test_names_of_which_none_exists_are_wrong_input(images, inputs, message):
    with pytest.raises(FileNotFoundError, match=message):
        batch.find_sources(inputs)


def test_a_name_with_magic_characters_is_a_file_if_it_is_there(images):
    write_bytes("in/[1].png", b"x")
    assert [each.path.name for each in batch.find_sources(["in/[1].png"])] == ["[1].png"]


def test_one_file_becomes_the_named_file(images):
    (job,) = plan([images / "b.png"], "out.png")
    assert job.outputs == {"image": Path("out.png")}


def test_folders_come_again_below_the_output(images):
    jobs = plan([images], "out", recursive=True)
    assert [str(job.outputs["labels"]) for job in jobs] == ["out/a-l.png", "out/b-l.png", "out/sub/c-l.png"]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["in"], "in/notes.txt", "is a file, but a folder is needed for 2"),
        (["in"], "out.png", "names one file, but the input is a folder"),
        (["in/a.jpg"], "out.jpg", r"cannot be written: its suffix must be one of \.png"),
        (["in/a.jpg"], "out.pgn", r"out\.pgn cannot be written: its suffix must be one of \.png; a folder"),
        (["in/b.png"], "in/b.png", "would be overwritten by its own result"),
        (["in/b.png"], "in", "would be overwritten by its own result"),
    ],
)
def test_plans_that_would_lose_something_are_refused(images, inputs, output, message):
    with pytest.raises(ValueError, match=message):
        plan(inputs, output)


def test_files_that_differ_in_their_suffix_only_get_results_of_their_own(images):
    write_bytes("in/a.png", b"x")
    write_bytes("in/a.bmp", b"x")
    jobs = plan([images], "out")
    assert [(job.source.name, job.outputs["image"].name) for job in jobs] == [
        ("a.bmp", "a-bmp.png"),
        ("a.jpg", "a-jpg.png"),
        ("a.png", "a.png"),
        ("b.png", "b.png"),
    ]
    assert [job.outputs["labels"].name for job in jobs] == [
        "a-bmp-l.png",
        "a-jpg-l.png",
        "a-l.png",
        "b-l.png",
    ]
    write_bytes("in/a-jpg.png", b"x")
    with pytest.raises(ValueError, match=r"in/a-jpg\.png and in/a\.jpg would both become"):
        plan([images], "out")


def test_two_sources_of_one_name_are_refused(images):
    write_bytes("other/b.png", b"x")
    with pytest.raises(ValueError, match=r"in/b\.png and other/b\.png would both become"):
        plan(["in/b.png", "other/b.png"], "out")


@pytest.mark.parametrize("name", ["out.heic", "out.avif", "out.mp4", "out.dng", "out.jxl"])
def test_names_of_files_that_cannot_be_written_become_no_folders(images, name):
    with pytest.raises(ValueError, match="cannot be written: its suffix must be one of"):
        plan(["in/b.png"], name)
    with pytest.raises(ValueError, match="names one file"):
        plan(["in"], name)


def test_links_that_lead_to_themselves_are_no_images(images):
    Path("in/loop.png").symlink_to("loop.png")
    Path("in/sub/up").symlink_to("..")
    jobs = plan(["in"], "in/out", recursive=True)
    assert [job.source.name for job in jobs] == ["a.jpg", "b.png", "c.png"]
    report, method = run(plan(["in/loop.png", "in/b.png"], "out"))
    assert (report.done, report.failed, method.done) == (1, 1, ["b.png"])


def test_what_a_folder_holds_besides_is_named(images, capsys):
    for name in "abcdef":
        write_bytes(f"in/{name}.mov", b"x")
    plan(["in"], "out")
    (line,) = capsys.readouterr().err.splitlines()
    assert "in: left out, of a kind that is not read" in line
    assert line.endswith("a.mov, b.mov, c.mov, d.mov, e.mov and 1 more")
    batch.find_sources(["in/b.png"])
    assert capsys.readouterr().err == ""


def test_results_beside_their_sources_are_not_sources(images):
    write_bytes("in/b-l.png", b"of an earlier run")
    jobs = batch.plan_jobs(
        ["in"],
        images,
        in_folder=lambda relative: {"labels": relative.with_name(f"{relative.stem}-l.png")},
        as_file=lambda path: {"labels": path},
        file_suffixes={".png"},
    )
    assert [job.source.name for job in jobs] == ["a.jpg", "b.png"]


def test_items_are_done_then_skipped(images, capsys):
    jobs = plan([images], "out")
    report, method = run(jobs, json=True)
    assert (report.done, report.skipped, report.failed, report.exit_code) == (2, 0, 0, 0)
    assert method.devices == ["cpu"]
    assert Path("out/b.png").read_bytes() == b"IN/B.PNG"
    first, second = lines(capsys)
    assert (first["input"], first["status"], first["length"]) == ("in/a.jpg", "done", 8)
    assert first["outputs"] == {"image": "out/a.png", "labels": "out/a-l.png"}
    assert second["seconds"] >= 0
    report, method = run(jobs, json=True)
    assert (report.done, report.skipped) == (0, 2)
    assert method.devices == []  # the model is not loaded for nothing
    assert [each["status"] for each in lines(capsys)] == ["skipped", "skipped"]


def test_other_settings_input_or_files_are_done_again(images):
    jobs = plan([images], "out")
    run(jobs)
    assert run(jobs, settings={"k": 2})[1].done == ["a.jpg", "b.png"]
    write_bytes("in/a.jpg", b"changed")
    assert run(jobs, settings={"k": 2})[1].done == ["a.jpg"]
    Path("out/b-l.png").unlink()
    assert run(jobs, settings={"k": 2})[1].done == ["b.png"]
    assert run(jobs, settings={"k": 2}, overwrite=True)[1].done == ["a.jpg", "b.png"]


def test_a_failure_does_not_end_the_batch(images, capsys):
    write_bytes("in/a.jpg", b"bad")
    jobs = plan([images, "in/missing.png"], "out")
    report, method = run(jobs, json=True)
    assert (report.done, report.failed, report.exit_code) == (1, 2, 1)
    assert method.done == ["b.png"]
    captured = capsys.readouterr()
    errors = [json.loads(line).get("error") for line in captured.out.splitlines()]
    assert errors[0] == "in/a.jpg: nothing can be done"
    assert errors[1] is None
    assert "in/missing.png" in errors[2]
    assert "in/a.jpg: nothing can be done" in captured.err
    assert not Path("out/.results/a.png.json").exists()
    assert run(jobs)[0].failed == 2


def test_debug_raises_the_first_error(images):
    write_bytes("in/a.jpg", b"bad")
    with pytest.raises(ValueError, match="nothing can be done"):
        run(plan([images], "out"), debug=True)


def test_a_file_of_somebody_else_is_not_replaced(images, capsys):
    write_bytes("out/a.png", b"precious")
    jobs = plan([images], "out")
    report, _ = run(jobs)
    assert report.failed == 1
    assert "out/a.png exists and is not a result of an earlier run" in capsys.readouterr().err
    assert Path("out/a.png").read_bytes() == b"precious"
    assert run(jobs, overwrite=True)[0].done == 2
    assert Path("out/a.png").read_bytes() == b"IN/A.JPG"


def test_what_a_killed_run_left_is_done_again(images):
    jobs = plan([images], "out")

    class Killed(Method):
        def run(self, job, on_progress):
            write_bytes(job.outputs["image"], b"only the first of two")
            raise SystemExit(9)

    with pytest.raises(SystemExit):
        batch.run_jobs(jobs, Killed(), settings={"k": 1}, device="cpu")
    report, _ = run(jobs)
    assert (report.done, report.failed) == (2, 0)
    assert Path("out/a.png").read_bytes() == b"IN/A.JPG"


def test_an_error_of_the_model_ends_the_run(images):
    def start(device):
        raise FileNotFoundError("no model")

    with pytest.raises(FileNotFoundError, match="no model"):
        batch.run_jobs(plan([images], "out"), start, settings={})
    assert not Path("out").exists()


def test_a_device_that_is_not_there_is_reported_first(images, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ValueError, match="device 'cuda:7' is not present"):
        batch.run_jobs(plan([images], "out"), Method(), settings={}, device="cuda:7")
    assert not Path("out").exists()


def test_processes_share_the_jobs(images, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    jobs = plan([images], "out")
    done = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        done.append(run(jobs)[1].done)
    assert done == [["a.jpg"], ["b.png"]]


class Meeting(Method):
    """Does nothing until two jobs are in progress, so that a test knows that they were."""

    def __init__(self, parties):
        super().__init__()
        self.barrier = threading.Barrier(parties, timeout=20)

    def run(self, job, on_progress):
        self.barrier.wait()
        return super().run(job, on_progress)


def test_workers_do_jobs_at_once_and_report_in_order(images, capsys):
    for number in range(4):
        write_bytes(f"in/{number}.png", b"bad" if number == 1 else b"good")
    jobs, method = plan([images], "out"), Meeting(3)
    report = batch.run_jobs(jobs, method, settings={}, device="cpu", workers=3, json=True)
    assert (report.done, report.failed) == (5, 1)
    assert method.devices == ["cpu"]
    assert [Path(each["input"]).name for each in lines(capsys)] == [job.source.name for job in jobs]


def test_an_interrupt_ends_the_jobs_of_all_threads(images):
    for number in range(8):
        write_bytes(f"in/{number}.png", b"x")
    waits, ended = threading.Event(), []

    class Slow(Method):
        def run(self, job, on_progress):
            if job.source.name == "0.png":
                raise KeyboardInterrupt
            try:
                while not waits.wait(0.005):
                    on_progress(1, 2)
            finally:
                ended.append(job.source.name)

    with pytest.raises(KeyboardInterrupt):
        batch.run_jobs(plan([images], "out"), Slow(), settings={}, device="cpu", workers=3)
    assert set(ended) <= {"1.png", "2.png", "3.png"}
    assert not list(Path("out").glob("*.png"))


def test_debug_raises_the_error_of_a_thread(images):
    write_bytes("in/b.png", b"bad")
    with pytest.raises(ValueError, match="nothing can be done"):
        run(plan([images], "out"), debug=True, workers=2)


def test_an_error_of_the_model_ends_all_threads_and_is_asked_for_once(images):
    asked = []

    def start(device):
        asked.append(device)
        raise FileNotFoundError("no model")

    with pytest.raises(FileNotFoundError, match="no model"):
        batch.run_jobs(plan([images], "out"), start, settings={}, workers=2)
    assert len(asked) == 1
    assert not Path("out").exists()
