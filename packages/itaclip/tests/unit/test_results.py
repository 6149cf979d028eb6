# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from itaclip import Segmentation


@pytest.fixture
def found():
    labels = torch.tensor([[0, 0, 2], [0, 2, 2]])
    probabilities = torch.tensor([[0.5, 0.5, 0.75], [0.5, 0.25, 0.5]])
    return Segmentation(
        labels=labels, probabilities=probabilities, names=("background", "cat", "dog"), background=True
    )


def test_masks_name_what_is_there(found):
    (dog,) = found.masks()
    assert dog["label"] == "dog"
    assert dog["score"] == pytest.approx(0.5)
    assert dog["mask"].tolist() == [[False, False, True], [False, True, True]]
    assert [mask["label"] for mask in found.masks(background=True)] == ["background", "dog"]


def test_shares(found):
    assert found.size == (2, 3)
    assert found.shares() == {"background": pytest.approx(0.5), "dog": pytest.approx(0.5)}


def test_a_region_gets_its_commonest_class():
    labels = torch.tensor([[0, 1, 1], [2, 2, 0]])
    found = Segmentation(labels=labels, probabilities=torch.ones(2, 3), names=("a", "b", "c"))
    regions = torch.tensor([[4, 4, 4], [0, 1, 1]])
    # a tie goes to the first class, and what is in no region stays
    assert found.by_regions(regions).labels.tolist() == [[1, 1, 1], [2, 0, 0]]
    assert torch.equal(found.by_regions(torch.zeros(2, 3, dtype=torch.int64)).labels, labels)
