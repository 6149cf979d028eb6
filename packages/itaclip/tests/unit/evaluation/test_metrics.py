# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from itaclip.evaluation.metrics import Scores, confusion
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

K = 6


@pytest.fixture
def pairs():
    """Answers and truths of three images: class 4 is only answered, class 5 is nowhere."""
    random = torch.Generator().manual_seed(0)
    made = []
    for _ in range(3):
        truth = torch.randint(0, 4, (9, 7), generator=random)
        answer = torch.where(torch.rand(9, 7, generator=random) < 0.5, truth, truth * 0 + 4)
        truth[torch.rand(9, 7, generator=random) < 0.3] = 255
        made.append((answer, truth))
    return made


def _scores(pairs):
    matrix = sum(confusion(answer, truth, K) for answer, truth in pairs)
    return Scores(matrix, tuple("abcdef"))


def test_scores_equal_brute_force(pairs):
    """Check 24: pixel by pixel over the whole set, with an ignored label and an absent class."""
    given = np.concatenate([answer.numpy().ravel() for answer, _ in pairs])
    true = np.concatenate([truth.numpy().ravel() for _, truth in pairs])
    given, true = given[true != 255], true[true != 255]
    ious, accuracies = [], []
    for k in range(K):
        both, either = ((given == k) & (true == k)).sum(), ((given == k) | (true == k)).sum()
        if either:
            ious.append(both / either)
        if (true == k).any():
            accuracies.append((given[true == k] == k).mean())
    scores = _scores(pairs)
    assert len(ious) == 5  # the answered class counts, the absent one does not
    assert scores.num_counted == 5
    assert scores.mean_iou == pytest.approx(100 * np.mean(ious), abs=1e-6)
    assert scores.mean_accuracy == pytest.approx(100 * np.mean(accuracies), abs=1e-6)
    assert scores.pixel_accuracy == pytest.approx(100 * (given == true).mean(), abs=1e-6)


def test_scores_equal_those_of_torchmetrics(pairs):
    iou = MulticlassJaccardIndex(K, ignore_index=255)
    accuracy = MulticlassAccuracy(K, average="micro", ignore_index=255)
    for answer, truth in pairs:
        iou.update(answer[None], truth[None])
        accuracy.update(answer[None], truth[None])
    scores = _scores(pairs)
    assert scores.mean_iou == pytest.approx(100 * float(iou.compute()), abs=1e-4)
    assert scores.pixel_accuracy == pytest.approx(100 * float(accuracy.compute()), abs=1e-4)


def test_sums_before_it_divides():
    # an image of 1 pixel that is wrong and one of 3 that are right: 3/4, not the mean of 0 and 1
    zero, one = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)
    matrix = confusion(one, zero, 2) + confusion(zero.expand(1, 3), zero.expand(1, 3), 2)
    assert Scores(matrix, ("a", "b")).iou.tolist() == [75.0, 0.0]


def test_rows_name_absent_classes_without_numbers(pairs):
    rows = {row["label"]: row for row in _scores(pairs).rows()}
    assert rows["f"] == {"label": "f", "iou": None, "accuracy": None, "share": 0.0}
    assert rows["e"]["iou"] == 0.0
    assert rows["e"]["accuracy"] is None
    assert math.isclose(sum(row["share"] for row in rows.values()), 100, abs_tol=1e-2)


def test_many_classes_do_not_overflow_small_integers():
    truth = torch.full((2, 2), 170, dtype=torch.uint8)
    matrix = confusion(torch.full((2, 2), 169), truth, 171)
    assert matrix[170, 169] == 4
    assert matrix.sum() == 4


def test_nothing_judged_has_no_scores():
    matrix = confusion(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 255), 3)
    scores = Scores(matrix, ("a", "b", "c"))
    assert scores.to_dict()["mIoU"] is None
    assert scores.to_dict()["aAcc"] is None
    assert scores.num_counted == 0


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        (torch.zeros(2, 2), torch.zeros(2, 3), "one size"),
        (torch.full((2, 2), 3), torch.zeros(2, 2), "labels must lie in"),
        (torch.full((2, 2), 255), torch.zeros(2, 2), "labels must lie in"),
        (torch.zeros(2, 2), torch.full((2, 2), 3), "target must lie in"),
        (torch.zeros(2, 2), torch.full((2, 2), -1), "target must lie in"),
    ],
)
def test_wrong_maps_are_refused(labels, target, message):
    with pytest.raises(ValueError, match=message):
        confusion(labels.long(), target.long(), 3)
