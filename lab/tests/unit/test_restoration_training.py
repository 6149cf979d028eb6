# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from recipes.restoration import training
from recipes.restoration.conv_unet import ConvUNet
from recipes.restoration.crops import DegradedCrops
from recipes.restoration.module import warmup_stable_decay
from recipes.restoration.networks import build, load, load_run
from recipes.restoration.tasks import NOTHING, TASKS, Task
from recipes.restoration.training import train
from recipes.training import Run
from safetensors.torch import load_file, save_file
from semanir.degradations import demosaic_malvar, mosaic


@pytest.fixture
def pool(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 60, 60, 3), dtype=np.uint8)
    np.save(tmp_path / "pool.npy", images)
    return tmp_path / "pool.npy"


def keep(model, file):
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_holds_the_samples_of_its_step(pool, task):
    crops = DegradedCrops(pool, TASKS[task], 16, 4, seed=2)
    degraded, clean = crops(3)
    assert clean.shape == (4, 3, 16, 16)
    assert degraded.shape == (4, 3, 16 // TASKS[task].scale, 16 // TASKS[task].scale)
    assert torch.equal(degraded[1], crops.sample(13)[0])
    assert torch.equal(clean[1], crops.sample(13)[1])
    assert not torch.equal(degraded, crops(4)[0])


def test_both_crops_show_the_same_place(pool):
    task = Task(phrase="nothing", colour=NOTHING, grey=NOTHING, grey_share=0.5, grain_share=0.5)
    crops = DegradedCrops(pool, task, 16, 1, seed=0)
    for number in range(12):
        degraded, clean = crops.sample(number)
        assert (degraded - clean).abs().max() <= 0.5 / 255 + 1e-6  # some are rounded to 8 bits


def test_the_phase_of_a_mosaic_is_kept(pool):
    crops = DegradedCrops(pool, TASKS["demosaic"], 16, 1, seed=0)
    for number in range(8):
        degraded, clean = crops.sample(number)
        again = demosaic_malvar(mosaic(clean[None]))[0].clamp(0, 1)
        inner = (..., slice(2, -2), slice(2, -2))  # the border saw its surroundings
        assert (degraded - again)[inner].abs().max() <= 0.5 / 255 + 1e-6


def test_grey_crops_have_three_equal_channels(pool):
    task = Task(phrase="nothing", colour=NOTHING, grey=TASKS["denoise"].grey, grey_share=1.0)
    for each in DegradedCrops(pool, task, 16, 1, seed=0).sample(0):
        assert torch.equal(each[0], each[1])
        assert torch.equal(each[0], each[2])


def test_weights_of_a_plainer_network_are_a_start(tmp_path):
    keep(build("semanir", TASKS["denoise"]), tmp_path / "denoise.safetensors")
    model = build("semanir", TASKS["all"])
    load(model, tmp_path / "denoise.safetensors")
    assert torch.equal(model.tail.weight, load_file(tmp_path / "denoise.safetensors")["tail.weight"])
    with pytest.raises(ValueError, match="is of another network: it holds"):
        load(ConvUNet(), tmp_path / "denoise.safetensors")


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")
def test_a_killed_run_resumes_to_the_same_network(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "Run", lambda **o: Run(**o | {"save_every": 2, "device": "cpu"}))
    monkeypatch.setattr(training, "build", lambda network, task: ConvUNet())
    options = {"max_steps": 4, "batch_size": 2, "crop": 32}
    draw = DegradedCrops.__call__

    def dying(self, step):
        if step == 3:
            raise OSError("killed")
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(DegradedCrops, "__call__", dying)
        with pytest.raises(OSError, match="killed"):
            train("jpeg", "conv", pool=pool, output=tmp_path / "parts", **options)
    for name in ("whole", "parts"):
        train("jpeg", "conv", pool=pool, output=tmp_path / name, **options)
    whole, parts = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_finished_run_is_loaded_as_the_network_it_trained(tmp_path):
    keep(build("conv", TASKS["jpeg"]), tmp_path / "network.safetensors")
    (tmp_path / "network.txt").write_text("conv")
    assert isinstance(load_run(tmp_path, TASKS["jpeg"]), ConvUNet)
    (tmp_path / "network.txt").unlink()
    with pytest.raises(ValueError, match="is of another network"):  # SemanIR, if nothing else is said
        load_run(tmp_path, TASKS["jpeg"])


def test_lists_of_all_keys_and_at_random():
    torch.manual_seed(0)
    task = TASKS["denoise"]
    x = torch.rand(1, 64, 8, 8)
    lists = {}
    for name in ("semanir", "semanir-all", "semanir-random"):
        model = build(name, task)
        lists[name] = [model.stages[0].build_dictionary(x, 0, model.config.k) for _ in range(2)]
    assert lists["semanir-all"][0].allowed().all()
    assert all(each.allowed().sum(-1).unique().tolist() == [32] for each in lists["semanir-random"])
    assert torch.equal(lists["semanir"][0].allowed(), lists["semanir"][1].allowed())
    assert not torch.equal(lists["semanir-random"][0].allowed(), lists["semanir-random"][1].allowed())


def test_schedule_rises_holds_and_falls():
    def factor(step: int) -> float:
        return warmup_stable_decay(step, max_steps=100, warmup_steps=10, decay_fraction=0.2)

    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(50) == factor(80) == 1
    assert factor(90) == pytest.approx(0.5)
    assert factor(100) == 0
