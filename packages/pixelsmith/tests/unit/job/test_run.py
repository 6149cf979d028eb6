# SPDX-License-Identifier: Apache-2.0
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from pixelsmith.io.lanczos import Resized
from pixelsmith.job import FolderStore, Job, JobInterrupted, MemoryStore, inspect_job, remove_job
from pixelsmith.job.source import digest_image
from pixelsmith.store import JobFolderError
from pixelsmith.store.lock import hold
from pixelsmith.store.rows import ArrayRows

SIZES = ((48, 56), (72, 84))


def run(dummies, folder, model=None, output=None, **settings):
    return dummies.finish(folder, model or dummies.Dummy(), output=output, **settings)


def stop_at(dummies, folder, phase, stage, done, **settings):
    """Stop a job at a phase and count."""
    job = Job(
        dummies.Dummy(), dummies.spec(**{"sizes": SIZES, **settings}), FolderStore(folder, durable=False),
        on_progress=lambda p: (p.phase, p.stage, p.done) == (phase, stage, done),
    )  # fmt: skip
    with pytest.raises(JobInterrupted, match=rf"stopped in stage {stage + 1} of 2: {phase}") as stopped:
        job.run()
    assert stopped.value.progress.phase == phase
    return job.model


@pytest.fixture(scope="module")
def whole(dummies, tmp_path_factory):
    return run(dummies, tmp_path_factory.mktemp("job"), sizes=SIZES)


def test_stages_build_on_each_other(dummies, tmp_path, whole):
    image, result = whole
    assert image.shape == (72, 84, 3)
    assert result.size == (72, 84)
    # the second stage alone, from the image of the first
    first, _ = run(dummies, tmp_path / "first", sizes=SIZES[:1])
    assert first.shape == (48, 56, 3)
    model = dummies.Dummy()
    assert run(dummies, tmp_path / "both", model, sizes=SIZES)[1].calls == result.calls
    assert result.calls == sum(count for _, count in model.calls)
    held = json.loads((tmp_path / "both" / "job.json").read_text())
    assert held["model"] == {"name": "dummy", "num_steps": 3, "prompt": "a boat"}


def test_a_model_that_keeps_everything_gives_the_enlarged_image(dummies, tmp_path):
    """Encoding, the loop and decoding lose nothing but the detail within a latent."""
    model = dummies.Dummy()
    denoiser = model.denoiser(None, None)
    model.denoiser = lambda size, patch: denoiser
    denoiser.add_noise = lambda clean, noise, step: clean
    denoiser.advance = lambda x, prediction, step, previous: (x, None)
    image, _ = run(dummies, tmp_path, model, sizes=((50, 60),), grain_threshold=0.0)
    enlarged = Resized(ArrayRows(dummies.scene((24, 28))), (50, 60)).read(0, 50).astype(float)
    cells = enlarged.reshape(25, 2, 30, 2, 3).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1)
    assert np.abs(image - cells).max() <= 0.51


@pytest.mark.parametrize(
    ("phase", "stage", "done"),
    [("source", 0, 0), ("encode", 0, 2), ("denoise", 0, 5), ("decode", 0, 4), ("encode", 1, 9),
     ("denoise", 1, 1), ("decode", 1, 20)],
)  # fmt: skip
def test_a_stopped_job_goes_on_to_the_same_bytes(dummies, tmp_path, whole, phase, stage, done):
    before = stop_at(dummies, tmp_path, phase, stage, done)
    model = dummies.Dummy()
    image, result = run(dummies, tmp_path, model, sizes=SIZES)
    np.testing.assert_array_equal(image, whole[0])
    assert result.calls == whole[1].calls
    # not one patch twice
    assert sum(count for _, count in before.calls + model.calls) == whole[1].calls
    assert len(before.bases) + len(model.bases) == 1


@pytest.mark.parametrize("done", [4, 9, 20])
@pytest.mark.parametrize("fix", [{"colour_fix": "wavelet"}, {"grain_threshold": 40.0}])
def test_a_job_stopped_while_it_is_corrected_goes_on_to_the_same_bytes(dummies, tmp_path, done, fix):
    sizes = ((96, 84),)
    settings = {"sizes": sizes, **fix}
    expected, _ = run(dummies, tmp_path / "whole", **settings)
    plain, _ = run(dummies, tmp_path / "plain", sizes=sizes, grain_threshold=0.0)
    assert not np.array_equal(expected, plain)
    job = Job(
        dummies.Dummy(), dummies.spec(**settings), FolderStore(tmp_path / "job", durable=False),
        on_progress=lambda p: (p.phase, p.done) == ("decode", done),
    )  # fmt: skip
    with pytest.raises(JobInterrupted):
        job.run()
    found, _ = run(dummies, tmp_path / "job", **settings)
    np.testing.assert_array_equal(found, expected)


def test_finished_tiles_are_not_computed_again(dummies, tmp_path):
    """Rows that wait for those below them to be corrected are, so nothing is corrected here."""
    settings = {"sizes": SIZES, "grain_threshold": 0.0}
    stop_at(dummies, tmp_path, "decode", 0, 8, **settings)
    reported = []
    job = Job(
        dummies.Dummy(), dummies.spec(**settings), FolderStore(tmp_path, durable=False),
        on_progress=lambda p: reported.append((p.phase, p.stage, p.done)),
    )  # fmt: skip
    job.run()
    assert [done for phase, stage, done in reported if (phase, stage) == ("encode", 0)] == []
    # four tiles to a row: the second row had been begun
    assert [done for phase, stage, done in reported if (phase, stage) == ("decode", 0)] == [*range(5, 17)]


def test_a_photo_may_go_once_it_is_read(dummies, tmp_path):
    photo = tmp_path / "a.png"
    Image.fromarray(dummies.scene((24, 28))).save(photo)
    settings = {"source": photo, "source_digest": digest_image(photo), "sizes": SIZES}
    expected, _ = run(dummies, tmp_path / "whole", **settings)
    stop_at(dummies, tmp_path / "job", "denoise", 0, 3, **settings)
    photo.unlink()
    found, _ = run(dummies, tmp_path / "job", **settings)
    np.testing.assert_array_equal(found, expected)


def test_a_photo_that_changed_is_refused(dummies, tmp_path):
    photo = tmp_path / "a.png"
    Image.fromarray(dummies.scene((24, 28))).save(photo)
    spec = dummies.spec(source=photo, source_digest=digest_image(photo))
    Image.fromarray(dummies.scene((24, 28), seed=1)).save(photo)
    with pytest.raises(ValueError, match="has changed since the job began; start another job"):
        Job(dummies.Dummy(), spec, FolderStore(tmp_path / "job")).run()


def test_a_base_image_of_another_size_is_refused(dummies, tmp_path):
    model = dummies.Dummy()
    model.base_image = lambda size, seed: np.zeros((24, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="the first image must be 24 x 28 pixels, is 24 x 30"):
        Job(model, dummies.spec(), FolderStore(tmp_path)).run()


def test_real_autoencoders_and_both_modes(dummies, tmp_path):
    vae, images = dummies.kl_autoencoder(), []
    settings = {"sizes": ((40, 44),), "wrap": "horizontal", "slider": 3}
    for mode in ("parallel", "official"):
        image, _ = run(dummies, tmp_path / mode, dummies.Dummy(vae), mode=mode, **settings)
        again, _ = run(
            dummies, tmp_path / f"{mode}-3", dummies.Dummy(vae), mode=mode, batch_size=3, **settings
        )
        np.testing.assert_array_equal(again, image)
        images.append(image)
    assert not np.array_equal(*images)


@pytest.mark.parametrize("size", [(64, 72), (66, 64), (32, 128), (34, 62), (130, 6)])
def test_sizes_of_any_kind(dummies, tmp_path, size):
    image, _ = run(dummies, tmp_path, sizes=(size,), tiling=None)
    assert image.shape == (*size, 3)
    assert image.std() > 5


def test_same_seed_same_bytes_and_no_global_state(dummies, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    names = ("a.png", "b.png", "c.png", "d.tif", "e.tif")
    for name, seed in zip(names, (0, 0, 1, 0, 0), strict=True):
        run(dummies, tmp_path / f"job-{name}", output=tmp_path / name, seed=seed)
    held = [(tmp_path / name).read_bytes() for name in names]
    assert held[0] == held[1] != held[2]
    assert held[3] == held[4]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_another_job_is_refused_by_name(dummies, tmp_path):
    stop_at(dummies, tmp_path, "denoise", 0, 3)
    model = dummies.Dummy(prompt="a ship")
    with pytest.raises(JobFolderError, match="which differs in prompt, seed, sizes; use another folder"):
        Job(model, dummies.spec(seed=4), FolderStore(tmp_path)).check()
    assert model.calls == []


DAMAGE = {
    "clean.npy": "holds another encoded image than the one .* delete the folder of the stage",
    "state-a.npy": "a canvas of .* is damaged",
    "image.npy": "image.npy is damaged: it differs from what was decoded; delete the folder of the stage",
    "journal.jsonl": "is damaged in line 1",
    "stage.json": "stage.json is damaged .* delete the folder of the stage",
    "../source.npy": r"source.npy is damaged; delete source.json beside it",
    "../job.json": "job.json is damaged",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_found(dummies, tmp_path, whole, name):
    place = ("decode", 0, 15) if name == "image.npy" else ("denoise", 0, 3)
    stop_at(dummies, tmp_path, *place)
    file = tmp_path / "stage-00" / name
    content = bytearray(file.read_bytes())
    content[200 if name.endswith("npy") else 12] ^= 255
    file.write_bytes(content)
    with pytest.raises(JobFolderError, match=DAMAGE[name]):
        run(dummies, tmp_path, sizes=SIZES)
    # as the message suggests
    if name == "../source.npy":
        (tmp_path / "source.json").unlink()
    elif name != "../job.json":
        for path in (tmp_path / "stage-00").iterdir():
            path.unlink()
        (tmp_path / "stage-00").rmdir()
    if name != "../job.json":
        np.testing.assert_array_equal(run(dummies, tmp_path, sizes=SIZES)[0], whole[0])


def test_shortened_images_are_found(dummies, tmp_path):
    stop_at(dummies, tmp_path, "decode", 0, 5)
    file = tmp_path / "stage-00" / "image.npy"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is not a whole image"):
        run(dummies, tmp_path, sizes=SIZES)


def test_disks_are_checked_before_the_first_call(dummies, tmp_path, monkeypatch):
    model = dummies.Dummy()
    usage = type("Usage", (), {"free": 90_000})
    monkeypatch.setattr("common_kernels.runtime.files.shutil.disk_usage", lambda path: usage)
    job = Job(model, dummies.spec(sizes=SIZES), FolderStore(tmp_path / "job"))
    with pytest.raises(OSError, match=r"job needs .*, but only 90\.0 kB are free there"):
        job.run(tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []
    assert model.bases == model.calls == []


def test_disks_that_fill_up_lose_nothing(dummies, tmp_path, whole, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patching:
        patching.setattr("pixelsmith.store.rows.os.posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            run(dummies, tmp_path, sizes=SIZES)
    np.testing.assert_array_equal(run(dummies, tmp_path, sizes=SIZES)[0], whole[0])


def test_one_process_at_a_time(dummies, tmp_path):
    stop_at(dummies, tmp_path, "denoise", 0, 3)
    with hold(tmp_path):
        with pytest.raises(JobFolderError, match="is in use by another process; wait for it or stop it"):
            run(dummies, tmp_path, sizes=SIZES)
        assert inspect_job(tmp_path).stages[0].status == "denoising"
        with pytest.raises(JobFolderError, match="is in use"):
            remove_job(tmp_path)
    run(dummies, tmp_path, sizes=SIZES)


def test_folders_are_removed_with_nothing_else(dummies, tmp_path):
    run(dummies, tmp_path / "job", sizes=SIZES)
    (tmp_path / "job" / "notes.txt").write_text("mine")
    remove_job(tmp_path / "job")
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["notes.txt"]
    with pytest.raises(JobFolderError, match="is not a job folder"):
        remove_job(tmp_path / "job")
    run(dummies, tmp_path / "other")
    remove_job(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(JobFolderError, match="is a file; name another folder"):
        run(dummies, tmp_path / "file")


def test_a_look_tells_how_far_a_job_is(dummies, tmp_path):
    with pytest.raises(JobFolderError, match="is not a job folder"):
        inspect_job(tmp_path)
    states = []
    settings = {"sizes": SIZES, "grain_threshold": 0.0}  # rows are written as soon as they are decoded
    for phase, stage, done in (("encode", 0, 7), ("denoise", 0, 9), ("decode", 0, 8), ("encode", 1, 1)):
        stop_at(dummies, tmp_path, phase, stage, done, **settings)
        states.append(inspect_job(tmp_path))
    assert [state.stages[0].status for state in states] == ["encoding", "denoising", "decoding", "complete"]
    assert [state.stages[1].status for state in states] == ["waiting", "waiting", "waiting", "encoding"]
    # rows of tiles of 10 latents, 24 latents with a margin of 4 above and below
    assert states[0].stages[0].encoded == 10 / 32
    assert states[2].stages[0].decoded == 2 * (10 - 4) / 48
    assert states[1].stages[0].num_steps == 3
    assert not states[3].is_complete
    run(dummies, tmp_path, **settings)
    done = inspect_job(tmp_path)
    assert done.is_complete
    assert done.disk_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    (tmp_path / "job.json").write_text('{"sizes": 3}')
    with pytest.raises(JobFolderError, match="does not describe a job"):
        inspect_job(tmp_path)


def test_a_first_image_cut_short_says_what_to_delete(dummies, tmp_path):
    stop_at(dummies, tmp_path, "denoise", 0, 3)
    file = tmp_path / "source.npy"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(JobFolderError, match=r"not a whole image .* delete source\.json beside it"):
        run(dummies, tmp_path, sizes=SIZES)
    (tmp_path / "source.json").unlink()
    run(dummies, tmp_path, sizes=SIZES)


def test_memory_and_a_folder_hold_the_same_image(dummies, tmp_path, whole):
    """One engine over two stores."""
    result = Job(dummies.Dummy(), dummies.spec(sizes=SIZES), MemoryStore()).run(tmp_path / "a.png")
    np.testing.assert_array_equal(result.image.array, whole[0])
    assert result.calls == whole[1].calls
    assert (result.latents.size, whole[1].latents) == ((36, 42), None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_image_in_memory_is_one_of_its_own_job(dummies, tmp_path):
    pixels, spec = dummies.scene((24, 28)), dummies.spec()
    result = Job(dummies.Dummy(), spec, FolderStore(tmp_path / "job"), image=pixels).run()
    again = Job(dummies.Dummy(), spec, FolderStore(tmp_path / "job"), image=pixels).run()
    np.testing.assert_array_equal(again.image.array, result.image.array)
    with pytest.raises(JobFolderError, match="belongs to another job, which differs in image; use another"):
        Job(dummies.Dummy(), spec, FolderStore(tmp_path / "job"), image=255 - pixels).run()
    named = dummies.spec(source=tmp_path / "a.png", source_digest="00")
    with pytest.raises(ValueError, match=r"image and spec\.source=.* cannot both be given"):
        Job(dummies.Dummy(), named, MemoryStore(), image=pixels)
    with pytest.raises(ValueError, match="the job begins with an image in memory; give image= again"):
        Job(dummies.Dummy(), dummies.spec(source_digest="00"), MemoryStore()).run()


def test_an_interrupt_in_memory_keeps_what_was_finished(dummies):
    job = Job(
        dummies.Dummy(), dummies.spec(sizes=SIZES), MemoryStore(),
        on_progress=lambda p: (p.phase, p.stage, p.done) == ("denoise", 1, 3),
    )  # fmt: skip
    with pytest.raises(JobInterrupted) as stopped:
        job.run()
    assert (stopped.value.image.height, stopped.value.image.width) == SIZES[0]
    assert stopped.value.latents.size == (36, 42)
