# SPDX-License-Identifier: Apache-2.0
"""A drawn data set holds every task of the stages, and the truth it claims."""

import json

import numpy as np
import pytest
from vitron.data.drawn import DRAWN_TASKS, write_drawn_data
from vitron.data.files import read_example, read_samples
from vitron.training.stages import list_stages, load_stage


@pytest.fixture
def drawn(tmp_path):
    write_drawn_data(tmp_path / "drawn", scenes=2)
    return tmp_path / "drawn"


def test_every_task_of_every_stage_is_there(drawn):
    samples = [sample for _, sample in read_samples(drawn)]
    assert {sample.task for sample in samples} == set(DRAWN_TASKS)
    for stage in map(load_stage, list_stages()):
        assert set(stage.tasks) | set(stage.tasks_later) <= set(DRAWN_TASKS)


def test_masks_are_where_the_image_changes(drawn):
    samples = {sample.id: sample for _, sample in read_samples(drawn)}
    edit = read_example(samples["image_editing-1"], drawn)
    target = samples["image_editing-1"].model_copy(update={"media": ()})
    after = read_example(
        samples["caption-1"].model_copy(
            update={
                "media": (samples["caption-1"].media[0].model_copy(update={"path": target.targets.image}),)
            }
        ),
        drawn,
    )
    changed = (edit.media[0].frames[0] != after.media[0].frames[0]).any(-1)
    assert np.array_equal(changed, edit.masks[0][0])
    track = read_example(samples["video_segmentation-1"], drawn)
    assert track.masks[0].shape[0] == track.media[0].num_frames == 4
    assert len({mask.nonzero()[1].min() for mask in track.masks[0]}) == 4  # it moves


def test_the_same_seed_draws_the_same_files(drawn, tmp_path):
    write_drawn_data(tmp_path / "again", scenes=2)
    write_drawn_data(tmp_path / "other", scenes=2, seed=1)
    files = sorted(path.relative_to(drawn) for path in drawn.rglob("*.*"))
    assert [(tmp_path / "again" / name).read_bytes() for name in files] == [
        (drawn / name).read_bytes() for name in files
    ]
    assert (tmp_path / "other" / "data.jsonl").read_text() != (drawn / "data.jsonl").read_text()


def test_the_command_draws_and_checks(run, tmp_path):
    made = json.loads(run("data", "demo", "-o", tmp_path / "d", "--scenes", "1", "--json").out)
    assert made["samples"] == len(DRAWN_TASKS)
    assert json.loads(run("data", "check", tmp_path / "d", "--json").out)["problems"] == []
    assert "exists" in run("data", "demo", "-o", tmp_path / "d", code=2).err
    assert "--scenes must be" in run("data", "demo", "-o", tmp_path / "e", "--scenes", "0", code=2).err
