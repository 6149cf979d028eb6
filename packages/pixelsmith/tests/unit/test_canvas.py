# SPDX-License-Identifier: Apache-2.0
import errno

import numpy as np
import pytest
import torch
from pixelsmith.store import Canvas, FolderStage, JobFolderError, MemoryStage


def test_regions_wrap(toys):
    canvas = Canvas(toys.latents(2, 10, 12))
    whole = canvas.data.clone()
    assert torch.equal(canvas.read(8, 9, 5, 6), whole.roll((-8, -9), (1, 2))[:, :5, :6])
    canvas.write(9, 11, torch.ones(2, 2, 2))
    whole[:, [9, 9, 0, 0], [11, 0, 11, 0]] = 1
    assert torch.equal(canvas.data, whole)


def test_reading_copies(toys):
    canvas = Canvas(toys.latents(1, 4, 4))
    canvas.read(0, 0, 4, 4).zero_()
    assert canvas.data.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_keep_what_memory_keeps(toys, tmp_path, dtype):
    values = toys.latents(3, 20, 7)
    (mapped,) = FolderStage(tmp_path, dtype=dtype).canvases(("state",), 3, 20, 7)
    (held,) = MemoryStage(dtype=dtype).canvases(("state",), 3, 20, 7)
    for canvas in (mapped, held):
        canvas.write(0, 0, values)
        canvas.flush()
    assert mapped.checksum() == held.checksum()
    (again,) = FolderStage(tmp_path, dtype=dtype).canvases(("state",), 3, 20, 7)
    assert torch.equal(again.data, held.data)
    assert np.array_equal(np.load(tmp_path / "state.npy"), held.data.numpy())


def test_checksum_sees_every_value(toys):
    canvas = Canvas(toys.latents(2, 9, 9))
    before = canvas.checksum()
    canvas.data[1, 8, 8] += 1e-6
    assert canvas.checksum() != before


def test_strips_cover(monkeypatch, toys):
    monkeypatch.setattr("pixelsmith.store.canvas._STRIP_BYTES", 4 * 2 * 7 * 3)
    canvas = Canvas(toys.latents(2, 10, 7))
    assert [(rows.start, rows.stop) for rows in canvas.strips()] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    copy = Canvas.zeros(2, 10, 7)
    copy.copy_from(canvas)
    assert torch.equal(copy.data, canvas.data)
    assert copy.checksum() == canvas.checksum()
    with pytest.raises(ValueError, match="canvases must agree in shape"):
        copy.copy_from(Canvas.zeros(2, 10, 8))


def test_bad_canvases_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"a canvas holds float32 or float16, got torch\.bfloat16"):
        Canvas(torch.zeros(1, 2, 2, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="a canvas holds float32 or float16"):
        Canvas.create(tmp_path / "a.npy", 1, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"a canvas must be \(C, H, W\)"):
        Canvas(torch.zeros(2, 2))


def test_damaged_files_are_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((2, 2)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "flat.npy").read_bytes()[:140])
    for name, message in [("flat", "is no canvas"), ("cut", "no readable"), ("none", "no readable")]:
        with pytest.raises(JobFolderError, match=message):
            Canvas.open(tmp_path / f"{name}.npy")


def test_a_file_of_another_shape_is_refused(tmp_path):
    FolderStage(tmp_path).canvases(("state",), 1, 4, 4)
    with pytest.raises(JobFolderError, match=r"state\.npy must hold torch\.float32 \(1, 4, 5\)"):
        FolderStage(tmp_path).canvases(("state",), 1, 4, 5)
    with pytest.raises(JobFolderError, match=r"must hold torch\.float16"):
        FolderStage(tmp_path, dtype=torch.float16).canvases(("state",), 1, 4, 4)


def test_a_full_disk_is_found_before_anything_is_computed(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"needs 4503\.6 TB, but only"):
        FolderStage(tmp_path).canvases(("state",), 4, 1 << 24, 1 << 24)
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pixelsmith.store.canvas.os.posix_fallocate", full, raising=False)
    with pytest.raises(JobFolderError, match=r"cannot lay out state\.part .*No space left"):
        FolderStage(tmp_path).canvases(("state",), 1, 4, 4)
    monkeypatch.undo()
    assert FolderStage(tmp_path).canvases(("state",), 1, 4, 4)[0].size == (4, 4)
