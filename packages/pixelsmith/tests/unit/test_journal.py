# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from pixelsmith.core.engine import run_stage
from pixelsmith.store import FolderStage, FolderStore, JobFolderError, Journal


class StopError(Exception):
    """A fault in the model."""


def start(toys, folder, stop_after, model="Mixing", **settings):
    """Run a stage whose model fails after some calls, or to its end."""
    denoiser = getattr(toys, model)(3)
    predict, calls = denoiser.predict, []

    def failing(x, step, origins):
        calls.append(step)
        if len(calls) > stop_after:
            raise StopError
        return predict(x, step, origins)

    denoiser.predict = failing
    canvas = run_stage(
        denoiser, toys.latents(4, 28, 36), toys.job(slider=2, **settings),
        store=FolderStore(folder, checkpoint_every=3, durable=False).stage(0),
    )  # fmt: skip
    return canvas, len(calls)


@pytest.fixture(scope="module")
def whole(toys):
    """The result of an uninterrupted run without any journal, and its number of calls."""
    denoiser = toys.Mixing(3)
    return run_stage(denoiser, toys.latents(4, 28, 36), toys.job(slider=2)).data, len(denoiser.batches)


def interrupt(toys, folder, stop_after, **settings):
    with pytest.raises(StopError):
        start(toys, folder, stop_after, **settings)


@pytest.mark.parametrize("stop_after", [0, 1, 7, 12, 20])
def test_finished_patches_are_not_computed_again(toys, tmp_path, whole, stop_after):
    interrupt(toys, tmp_path, stop_after)
    found, calls = start(toys, tmp_path, 10**6)
    assert calls == whole[1] - stop_after > 0
    assert torch.equal(found.data, whole[0])


def test_a_finished_stage_is_only_read(toys, tmp_path, whole):
    start(toys, tmp_path, 10**6)
    found, calls = start(toys, tmp_path, 0)
    assert calls == 0
    assert torch.equal(found.data, whole[0])


def test_the_batch_size_may_change_between_runs(toys, tmp_path, whole):
    interrupt(toys, tmp_path, 3, batch_size=3)
    found, _ = start(toys, tmp_path, 10**6, batch_size=2)
    assert torch.equal(found.data, whole[0])


def test_another_configuration_is_refused_by_name(toys, tmp_path):
    interrupt(toys, tmp_path, 4)
    with pytest.raises(JobFolderError, match="begun with other settings: seed was 0 and is 1; use those"):
        start(toys, tmp_path, 10**6, seed=1)
    with pytest.raises(JobFolderError, match="multistep was False and is True"):
        start(toys, tmp_path, 10**6, model="TwoStep")


@pytest.mark.parametrize("cut", [1, 30, 36, 2000, 4096])
def test_a_torn_record_counts_as_not_written(toys, tmp_path, whole, monkeypatch, cut):
    """As a kill in the middle of its write leaves it: the canvas does not have the patch yet."""
    record, redo = Journal.record, tmp_path / "stage-00" / "redo.bin"

    def torn(journal, step, patch, *rest):
        record(journal, step, patch, *rest)
        if (step, patch) == (1, 4):
            redo.write_bytes(redo.read_bytes()[:-cut])
            raise StopError

    with monkeypatch.context() as patching:
        patching.setattr(Journal, "record", torn)
        interrupt(toys, tmp_path, 10**6)
    found, _ = start(toys, tmp_path, 10**6)
    assert torch.equal(found.data, whole[0])


def test_a_torn_line_counts_as_not_written(toys, tmp_path, whole):
    """The redo file still holds what the line would have recorded."""
    interrupt(toys, tmp_path, 11)
    lines = tmp_path / "stage-00" / "journal.jsonl"
    lines.write_bytes(lines.read_bytes() + b'1234abcd {"posi')
    found, _ = start(toys, tmp_path, 10**6)
    assert torch.equal(found.data, whole[0])


def test_a_look_changes_nothing(toys, tmp_path):
    """What looks torn may be a line that another process is writing."""
    job = FolderStore(tmp_path)
    assert job.stage(0, read_only=True).journal.position is None
    assert list(tmp_path.iterdir()) == []
    interrupt(toys, tmp_path, 11)
    lines = tmp_path / "stage-00" / "journal.jsonl"
    lines.write_bytes(lines.read_bytes() + b'1234abcd {"posi')
    content = lines.read_bytes()
    found = job.stage(0, read_only=True).journal
    assert found.identity["num_steps"] == 3
    assert found.position.calls > 0
    assert lines.read_bytes() == content


def test_a_shortened_journal_is_refused(toys, tmp_path):
    interrupt(toys, tmp_path, 11)
    lines = tmp_path / "stage-00" / "journal.jsonl"
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(JobFolderError, match="has lost 1 lines, so its canvases cannot be trusted"):
        start(toys, tmp_path, 10**6)


def test_a_damaged_journal_is_refused(toys, tmp_path):
    interrupt(toys, tmp_path, 11)
    lines = tmp_path / "stage-00" / "journal.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"step": 0', b'"step": 1', 1))
    with pytest.raises(JobFolderError, match="is damaged in line 2; delete the folder of the stage"):
        start(toys, tmp_path, 10**6)


@pytest.mark.parametrize("model", ["Mixing", "TwoStep"])
def test_a_damaged_canvas_is_refused(toys, tmp_path, model):
    interrupt(toys, tmp_path, 2, model=model)
    name = "estimate-a.npy" if model == "TwoStep" else "state-a.npy"
    canvas = tmp_path / "stage-00" / name
    content = bytearray(canvas.read_bytes())
    content[-1] ^= 1
    canvas.write_bytes(content)
    with pytest.raises(JobFolderError, match=r"a canvas of .* is damaged: it differs from what step 0"):
        start(toys, tmp_path, 10**6, model=model)


def test_a_shortened_canvas_is_refused(toys, tmp_path):
    interrupt(toys, tmp_path, 2)
    canvas = tmp_path / "stage-00" / "state-b.npy"
    canvas.write_bytes(canvas.read_bytes()[:-4])
    with pytest.raises(JobFolderError, match=r"state-b\.npy is no readable canvas .* delete the folder"):
        start(toys, tmp_path, 10**6)


def test_checkpoints_need_patches(tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        _ = FolderStage(tmp_path, checkpoint_every=0).journal


def test_a_job_folder_belongs_to_one_job(tmp_path):
    job = FolderStore(tmp_path / "new" / "job")
    assert job.description is None
    with job.open({"prompt": "a boat", "sizes": (1, 2)}):
        pass
    assert FolderStore(job.path).description == {"prompt": "a boat", "sizes": [1, 2]}
    with job.open({"prompt": "a boat", "sizes": (1, 2)}):
        pass
    with pytest.raises(JobFolderError, match="belongs to another job, which differs in prompt, steps"):
        job.check({"prompt": "a ship", "sizes": [1, 2], "steps": 3})
    (job.path / "job.json").write_text("{")
    with pytest.raises(JobFolderError, match="is damaged"):
        job.check({})
    (job.path / "job.json").write_text("[]")
    with pytest.raises(JobFolderError, match="must hold an object, holds list"):
        job.check({})
