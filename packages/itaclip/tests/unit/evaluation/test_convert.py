# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from itaclip.evaluation.convert import plan_conversion
from itaclip.evaluation.datasets import SampleError, open_dataset
from PIL import Image

RAW = [0, 12, 89, 91, 181, 255]
WANTED = {"coco-stuff": [0, 11, 79, 80, 170, 255], "coco-object": [1, 12, 80, 0, 0, 0]}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "annotations/val2017"
    folder.mkdir(parents=True)
    for name in ("000000000139", "000000000285"):
        Image.fromarray(np.array([RAW], dtype=np.uint8)).save(folder / f"{name}.png")
    return tmp_path


def convert(target, root):
    jobs = plan_conversion(target, root)
    for job in jobs:
        job.run()
    return jobs


def _numbers(file):
    return np.asarray(Image.open(file)).tolist()[0]


@pytest.mark.parametrize("target", WANTED)
def test_converts_pixel_maps(target, root):
    jobs = convert(target, root)
    for job in jobs:
        assert _numbers(job.target) == WANTED[target]
    # results are not sources of a second run
    assert [job.source for job in plan_conversion(target, root)] == [job.source for job in jobs]


@pytest.mark.parametrize("target", WANTED)
def test_data_set_reads_what_was_converted_as_it_reads_the_pixel_maps(target, root):
    (root / "images/val2017").mkdir(parents=True)
    for name in ("000000000139", "000000000285"):
        Image.new("RGB", (6, 1)).save(root / f"images/val2017/{name}.jpg")
    before = [sample.read()[1].tolist() for sample in open_dataset(target, root).samples]
    convert(target, root)
    dataset = open_dataset(target, root)
    assert all(sample.label.name.endswith("TrainIds.png") for sample in dataset.samples)
    assert [sample.read()[1].tolist() for sample in dataset.samples] == before


def test_objects_from_label_maps_of_stuff(root, tmp_path):
    convert("coco-stuff", root)
    for file in root.glob("annotations/val2017/*[0-9].png"):
        file.unlink()
    jobs = plan_conversion("coco-object", root, out=tmp_path / "other")
    assert [job.target.name for job in jobs] == [
        "000000000139_instanceTrainIds.png",
        "000000000285_instanceTrainIds.png",
    ]
    jobs[0].run()
    assert _numbers(jobs[0].target) == WANTED["coco-object"]


def test_bad_maps_are_named(root):
    bad = root / "annotations/val2017/000000000139.png"
    Image.fromarray(np.array([[0, 11]], dtype=np.uint8)).save(bad)  # 11 was never drawn: not a pixel map
    job, _ = plan_conversion("coco-stuff", root)
    with pytest.raises(SampleError, match=r"000000000139\.png holds the number 11"):
        job.run()
    assert not job.target.exists()


def test_wrong_use_is_one_sentence(root):
    with pytest.raises(ValueError, match="only coco-object and coco-stuff"):
        plan_conversion("voc21", root)
    with pytest.raises(ValueError, match="no pixel map"):
        plan_conversion("coco-stuff", root, split="train2017")
    with pytest.raises(ValueError, match="split must be a plain name"):
        plan_conversion("coco-stuff", root, split="../val2017")
