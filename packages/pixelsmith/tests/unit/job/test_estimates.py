# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from pixelsmith.job import FolderStore, Job, StageEstimate, estimate
from pixelsmith.job.estimates import check_disk


@pytest.mark.parametrize("canvas", ["float32", "float16"])
def test_what_is_told_is_what_happens(dummies, tmp_path, canvas):
    """Calls exactly, for a fixed grid; the disk as an upper bound that is near."""
    model = dummies.Dummy()
    spec = dummies.spec(sizes=((96, 112), (160, 184)), plan="grid", canvas=canvas)
    found = estimate(model, spec, tmp_path / "a.png")
    most = 0

    def weigh(progress):
        nonlocal most
        files = [path for path in (tmp_path / "job").rglob("*.npy") if path.is_file()]
        most = max(most, sum(path.stat().st_size for path in files))

    assert model.calls == []
    result = Job(model, spec, FolderStore(tmp_path / "job", durable=False), on_progress=weigh).run(
        tmp_path / "a.png"
    )
    assert found.calls == result.calls
    assert [stage.size for stage in found.stages] == [(96, 112), (160, 184)]
    redo = 64 * 3 * 16 * 16 * (4 if canvas == "float32" else 2)
    assert most <= found.folder_bytes + 10_000  # headers of files
    assert most > 0.9 * (found.folder_bytes - redo)
    assert found.output_bytes >= (tmp_path / "a.png").stat().st_size


def test_tiles_and_steps_are_those_of_the_run(dummies, tmp_path):
    reported = []
    spec = dummies.spec(sizes=((48, 56), (72, 84)), sliders=(2, 0.7))
    found = estimate(dummies.Dummy(), spec)
    Job(dummies.Dummy(), spec, FolderStore(tmp_path, durable=False), on_progress=reported.append).run()
    for number, stage in enumerate(found.stages):
        totals = {p.phase: p.total for p in reported if p.stage == number}
        assert totals["encode"] == totals["decode"] == stage.tiles
        assert stage.calls == pytest.approx(totals["denoise"], rel=0.3)  # another cover in every step
        assert {p.num_steps for p in reported if p.phase == "denoise"} == {stage.num_steps}
    assert [stage.guided_steps for stage in found.stages] == [2, 2]
    assert [stage.scale for stage in found.stages] == [2, 3]


def test_time_is_measured_on_demand(dummies):
    model = dummies.Dummy(dummies.kl_autoencoder())
    spec = dummies.spec(sizes=((48, 56),), batch_size=2)
    assert estimate(model, spec).seconds is None
    assert model.calls == []
    found = estimate(model, spec, measure=True)
    assert found.seconds > 0
    assert [count for _, count in model.calls] == [2, 2]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["stages"][0]["calls"] == found.calls


def test_the_gigapixel_of_the_paper_fits_as_the_plan_says(dummies):
    """31616 x 31616 pixels with the sizes of SDXL: two canvases, latents, one raw image."""
    model = dummies.Dummy(num_steps=50)
    model.channels, model.vae_scale_factor, model.patch, model.patch_multiple = 4, 8, 128, 4
    model.vae.config = {**model.vae.config, "latent_channels": 4, "block_out_channels": (1,) * 4}
    side = 31616
    spec = dummies.spec(
        sizes=((side, side),), source_size=(1024, 1024), patch=128, patch_multiple=4, canvas="float16",
        tiling=None, band=10, plan="jitter",
    )  # fmt: skip
    found = estimate(model, spec)
    assert isinstance(found.stages[0], StageEstimate)
    assert found.stages[0].canvas_bytes < 0.6e9
    assert found.stages[0].image_bytes == 3 * side * side
    assert found.folder_bytes < 3.7e9
    assert found.memory_bytes < 1.5e9
    assert found.calls <= 50 * 1024


def test_both_disks_are_looked_at(dummies, tmp_path, monkeypatch):
    found = estimate(dummies.Dummy(), dummies.spec(), tmp_path / "a.png")
    places = []

    def usage(path):
        places.append(path)
        return type("Usage", (), {"free": found.folder_bytes + found.output_bytes})

    monkeypatch.setattr("common_kernels.runtime.files.shutil.disk_usage", usage)
    check_disk(found, tmp_path / "not" / "there", tmp_path / "a.png")
    assert places == [tmp_path]  # one disk for both

    def short(path):
        return type("Usage", (), {"free": found.folder_bytes + found.output_bytes - 1})

    monkeypatch.setattr("common_kernels.runtime.files.shutil.disk_usage", short)
    with pytest.raises(OSError, match=r"job needs .*, but only .* are free there"):
        check_disk(found, tmp_path / "job", tmp_path / "a.png")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "half.npy").write_bytes(bytes(100))  # what is there is not needed again
    check_disk(found, tmp_path / "job", tmp_path / "a.png")
