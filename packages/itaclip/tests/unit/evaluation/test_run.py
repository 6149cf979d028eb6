# SPDX-License-Identifier: Apache-2.0
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from common_kernels.runtime.rows import RowStore
from itaclip.evaluation import evaluate, open_dataset
from PIL import Image

LABELS = tuple(f"class {number}" for number in range(150))

# one of two processes: prints what it found, as a line of JSON
PROCESS = """
import json, sys, numpy as np, torch
from common_kernels.runtime.processes import join_processes
from itaclip.evaluation import evaluate, open_dataset

def predict(images):
    return [torch.from_numpy(np.asarray(image)[..., 0] % 150).long() for image in images]

processes = join_processes("cpu")
seen = []
found = evaluate(open_dataset("ade20k", sys.argv[1]), predict, [str(n) for n in range(150)],
                 folder=sys.argv[2], processes=processes,
                 on_image=lambda done, total, failure: seen.append(total))
print(json.dumps([found.scores.matrix.tolist(), found.evaluated, found.resumed,
                  [failure.image for failure in found.failures], len(seen), processes.world_size]))
"""


def predict(images):
    """Any answer that depends on the image."""
    return [torch.from_numpy(np.asarray(image)[..., 0] % 150).long() for image in images]


def zeros(images):
    return [labels * 0 for labels in predict(images)]


@pytest.fixture
def tree(tmp_path, make_tree):
    make_tree("ade20k", tmp_path / "ade", 5)
    return tmp_path / "ade"


def _spoil(tree):
    (tree / "annotations/validation/000001.png").unlink()
    (tree / "images/validation/000003.jpg").write_bytes(b"\xff\xd8\xff nothing")


def test_counts_every_image(tree):
    dataset = open_dataset("ade20k", tree)
    found = evaluate(dataset, predict, LABELS)
    judged = sum(int((sample.read()[1] != 255).sum()) for sample in dataset.samples)
    assert found.scores.matrix.sum() == judged
    assert (found.evaluated, found.resumed, found.failures) == (5, 0, ())


def test_bad_files_are_named_and_the_run_goes_on(tree):
    _spoil(tree)
    seen = []
    found = evaluate(
        open_dataset("ade20k", tree), predict, LABELS, on_image=lambda *event: seen.append(event)
    )
    assert [failure.image for failure in found.failures] == ["000001", "000003"]
    assert "000001.png does not exist" in found.failures[0].error
    assert "000003.jpg is not an image" in found.failures[1].error
    assert found.evaluated == 3
    assert [event[:2] for event in seen] == [(number, 5) for number in range(1, 6)]
    assert [event[2] is not None for event in seen] == [False, True, False, True, False]


def test_a_failing_predictor_names_the_image(tree):
    def out_of_memory(images):
        raise MemoryError

    found = evaluate(open_dataset("ade20k", tree), out_of_memory, LABELS)
    assert len(found.failures) == 5
    assert found.failures[0].error.endswith("000000.jpg: out of memory")
    assert found.scores.to_dict()["mIoU"] is None
    with pytest.raises(MemoryError):
        evaluate(open_dataset("ade20k", tree), out_of_memory, LABELS, debug=True)


def test_answer_of_another_size_is_a_failure(tree):
    found = evaluate(open_dataset("ade20k", tree), lambda _: [torch.zeros(2, 2)], LABELS)
    assert "one size" in found.failures[0].error


def test_stopped_run_goes_on(tree, tmp_path):
    dataset, calls = open_dataset("ade20k", tree), []

    def counted(images):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.extend(images)
        return predict(images)

    with pytest.raises(KeyboardInterrupt):
        evaluate(dataset, counted, LABELS, folder=tmp_path / "rows")
    whole = evaluate(dataset, predict, LABELS)
    calls.clear()
    resumed = evaluate(dataset, counted, LABELS, folder=tmp_path / "rows")
    assert (resumed.resumed, resumed.evaluated, len(calls)) == (3, 5, 2)
    assert torch.equal(resumed.scores.matrix, whole.scores.matrix)
    again = evaluate(dataset, counted, LABELS, folder=tmp_path / "rows")
    assert (again.resumed, len(calls)) == (5, 2)
    assert torch.equal(again.scores.matrix, whole.scores.matrix)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_batches_give_the_same_counts(tree, batch_size):
    _spoil(tree)
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return predict(images)

    alone = evaluate(open_dataset("ade20k", tree), predict, LABELS)
    found = evaluate(open_dataset("ade20k", tree), counted, LABELS, batch_size=batch_size)
    assert max(sizes) > 1
    assert torch.equal(found.scores.matrix, alone.scores.matrix)
    assert (found.images, found.failures) == (alone.images, alone.failures)


def test_one_image_of_a_batch_fails_alone(tree):
    images = [sample.read()[0] for sample in open_dataset("ade20k", tree).samples]

    def picky(batch):
        if any(np.array_equal(image, images[2]) for image in batch):
            raise ValueError("no answer")
        return predict(batch)

    found = evaluate(open_dataset("ade20k", tree), picky, LABELS, batch_size=5)
    assert [failure.image for failure in found.failures] == ["000002"]
    assert found.evaluated == 4
    with pytest.raises(TypeError, match="one label map per image, got 0 for 5"):
        evaluate(open_dataset("ade20k", tree), lambda _: [], LABELS, batch_size=5)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(open_dataset("ade20k", tree), predict, LABELS, batch_size=0)


def test_images_come_worst_first(tree, tmp_path):
    dataset = open_dataset("ade20k", tree)

    def right_but_for_one(images):
        answers = []
        for image in images:
            for number, sample in enumerate(dataset.samples):
                pixels, truth = sample.read()
                if np.array_equal(pixels, image):
                    known = truth.long().masked_fill(truth == 255, 0)
                    answers.append((known + 1) % 150 if number == 3 else known)
        return answers

    found = evaluate(dataset, right_but_for_one, LABELS, folder=tmp_path)
    assert [image.image for image in found.images] == ["000003", "000000", "000001", "000002", "000004"]
    assert found.images[0].miou == found.images[0].pixel_accuracy == 0
    assert {image.miou for image in found.images[1:]} == {100.0}
    again = evaluate(dataset, right_but_for_one, LABELS, folder=tmp_path)
    assert (again.resumed, again.images) == (5, found.images)


def test_outcomes_are_given_and_incomplete_ones_evaluated_again(tree, tmp_path):
    dataset, seen = open_dataset("ade20k", tree), []
    evaluate(dataset, predict, LABELS, folder=tmp_path)
    found = evaluate(
        dataset,
        predict,
        LABELS,
        folder=tmp_path,
        on_outcome=seen.append,
        is_complete=lambda sample: sample.name != "000001",
    )
    assert (found.resumed, found.evaluated) == (4, 5)
    (outcome,) = seen
    image, truth = dataset.samples[1].read()
    assert outcome.sample == dataset.samples[1]
    assert np.array_equal(outcome.image, image)
    assert torch.equal(outcome.truth, truth)
    assert torch.equal(outcome.predicted, predict([image])[0])


@pytest.mark.parametrize("file", ["annotations/validation/000001.png", "images/validation/000001.jpg"])
def test_an_image_whose_files_changed_is_evaluated_again(file, tree, tmp_path):
    dataset = open_dataset("ade20k", tree)
    first = evaluate(dataset, predict, LABELS, folder=tmp_path)
    with Image.open(tree / file) as found:
        other = Image.new(found.mode, found.size, 7)
    other.save(tree / file)
    changed = evaluate(dataset, predict, LABELS, folder=tmp_path)
    assert changed.resumed == 4
    assert not torch.equal(changed.scores.matrix, first.scores.matrix)
    assert torch.equal(changed.scores.matrix, evaluate(dataset, predict, LABELS).scores.matrix)
    assert evaluate(dataset, predict, LABELS, folder=tmp_path).resumed == 5


def test_an_image_without_counted_pixels_is_resumed(tree, tmp_path):
    Image.new("L", (6, 5), 0).save(tree / "annotations/validation/000004.png")
    dataset = open_dataset("ade20k", tree)
    first = evaluate(dataset, predict, LABELS, folder=tmp_path)
    again = evaluate(dataset, predict, LABELS, folder=tmp_path)
    assert again.resumed == 5
    assert torch.equal(again.scores.matrix, first.scores.matrix)
    assert first.images[-1].image == "000004"


def test_failures_are_tried_again(tree, tmp_path):
    dataset, label = open_dataset("ade20k", tree), tree / "annotations/validation/000001.png"
    content = label.read_bytes()
    label.unlink()
    assert len(evaluate(dataset, predict, LABELS, folder=tmp_path).failures) == 1
    label.write_bytes(content)
    found = evaluate(dataset, predict, LABELS, folder=tmp_path)
    assert (found.failures, found.resumed) == ((), 4)


def test_overwrite_discards_earlier_counts(tree, tmp_path):
    dataset = open_dataset("ade20k", tree)
    evaluate(dataset, zeros, LABELS, folder=tmp_path)
    found = evaluate(dataset, predict, LABELS, folder=tmp_path, overwrite=True)
    assert found.resumed == 0
    assert torch.equal(found.scores.matrix, evaluate(dataset, predict, LABELS).scores.matrix)


def test_number_of_names_is_checked(tree):
    with pytest.raises(ValueError, match="ade20k has 150 classes, got 2 names"):
        evaluate(open_dataset("ade20k", tree), predict, ["a", "b"])


def _run_two(tree, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tree), str(folder)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tree, tmp_path):
    dataset = open_dataset("ade20k", tree)
    _spoil(tree)
    # one image was done by an earlier run, so that resuming is shared out too
    evaluate(dataset.limited(1), predict, LABELS, folder=tmp_path / "rows")
    alone = evaluate(dataset, predict, LABELS)
    results = _run_two(tree, tmp_path / "rows")
    for matrix, evaluated, resumed, failed, _, processes in results:
        assert torch.equal(torch.tensor(matrix), alone.scores.matrix)
        assert (evaluated, resumed, failed, processes) == (3, 1, ["000001", "000003"], 2)
    assert [result[4] for result in results] == [2, 2]
    names = sorted(file.name for file in (tmp_path / "rows").iterdir())
    assert [name.rpartition("-")[2] for name in names] == ["0.jsonl", "1.jsonl"]


def test_images_over_the_limit_are_left_out(tree):
    Image.new("RGB", (20, 20)).save(tree / "images/validation/000002.jpg")
    found = evaluate(open_dataset("ade20k", tree), predict, LABELS, max_pixels=100)
    assert [failure.image for failure in found.failures] == ["000002"]


def test_counts_of_other_settings_are_not_used(tree, tmp_path):
    dataset = open_dataset("ade20k", tree)
    evaluate(dataset, zeros, LABELS, folder=tmp_path, settings={"model": "a"})
    found = evaluate(dataset, predict, LABELS, folder=tmp_path, settings={"model": "b"})
    assert found.resumed == 0
    assert torch.equal(found.scores.matrix, evaluate(dataset, predict, LABELS).scores.matrix)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"cells": [22500], "pixels": [1]},
        {"cells": [1, 2], "pixels": [1]},
        {"cells": [1], "pixels": ["x"]},
    ],
    ids=["empty", "no cell", "lengths", "no number"],
)
def test_rows_that_cannot_be_counts_are_evaluated_again(row, tree, tmp_path):
    dataset, rows = open_dataset("ade20k", tree), RowStore(tmp_path, settings={})
    evaluate(dataset.limited(1), predict, LABELS, folder=tmp_path)
    (key,) = rows.read()
    rows.clear()
    rows.append(key, row)
    found = evaluate(dataset, predict, LABELS, folder=tmp_path)
    assert (found.resumed, found.evaluated) == (0, 5)
