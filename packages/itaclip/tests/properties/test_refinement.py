# SPDX-License-Identifier: Apache-2.0
"""What holds for refinement and rules whatever the image."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from itaclip.labels import (
    ClassScores,
    class_chunks,
    close_labels,
    label_pixels,
    merge_names,
    small_classes,
)
from itaclip.pamr import affinity, refine

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
dilations = st.sampled_from([(1,), (2, 5), (8, 16)])


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@given(size=sizes, dilations=dilations, seed=st.integers(0, 99))
@SETTINGS
def test_refinement_averages(size, dilations, seed):
    image, masks = noise(3, *size, seed=seed), noise(4, *size, seed=seed + 1)
    masks = masks / masks.sum(dim=0)
    weights = affinity(image, dilations)
    assert torch.allclose(weights.sum(dim=0), torch.ones(size), atol=1e-5)
    refined = refine(masks, weights, steps=3, dilations=dilations)
    assert torch.allclose(refined.sum(dim=0), torch.ones(size), atol=1e-5)
    assert refined.min() >= masks.min() - 1e-5
    assert refined.max() <= masks.max() + 1e-5
    flat = refine(torch.full((1, *size), 0.3), weights, steps=3, dilations=dilations)
    assert torch.allclose(flat, torch.tensor(0.3), atol=1e-5)
    assert torch.equal(refine(masks, weights, steps=0, dilations=dilations), masks)
    halves = [refine(part, weights, steps=3, dilations=dilations) for part in masks.split(3)]
    assert torch.allclose(torch.cat(halves), refined, atol=1e-6)


def test_a_flat_image_has_no_preferred_neighbour():
    weights = affinity(torch.full((3, 20, 20), 0.4), (2, 3))
    assert torch.allclose(weights, torch.tensor(1 / 16), atol=1e-6)


def test_scores_flow_within_an_edge_and_not_across():
    image, masks = torch.zeros(3, 12, 12), torch.zeros(1, 12, 12)
    image[:, :, 6:] = 1
    masks[:, :, 6:] = 1
    masks[:, 3, 9] = 0  # a hole
    refined = refine(masks, affinity(image, (1,)), steps=5, dilations=(1,))
    assert refined[0, :, :5].max() < 0.01
    assert refined[0, 3, 9] > 0.6


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="one size"):
        refine(torch.zeros(1, 4, 4), torch.zeros(16, 4, 5), steps=1)


@st.composite
def owners(draw):
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    return [number for number, count in enumerate(counts) for _ in range(count)]


@given(owner=owners(), seed=st.integers(0, 99))
@SETTINGS
def test_best_name_of_a_class(owner, seed):
    scores, index = noise(len(owner), 3, 2, seed=seed), torch.tensor(owner)
    one_hot = torch.nn.functional.one_hot(index).T[:, :, None, None]
    expected = (scores[None] * one_hot).amax(dim=1)
    assert torch.equal(merge_names(scores, index, owner[-1] + 1), expected)
    mixed = torch.randperm(len(owner), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(merge_names(scores[mixed], index[mixed], owner[-1] + 1), expected)


def test_a_name_per_class_changes_nothing():
    scores = noise(5, 3, 3)
    assert torch.equal(merge_names(scores, torch.arange(5), 5), scores)


@given(owner=owners(), most=st.integers(1, 9))
@SETTINGS
def test_chunks_hold_whole_classes(owner, most):
    runs = class_chunks(owner, most)
    assert [name for start, stop in runs for name in range(start, stop)] == list(range(len(owner)))
    for start, stop in runs:
        assert start == 0 or owner[start] != owner[start - 1]
        assert stop - start <= most or len(set(owner[start:stop])) == 1
    for (start, _), (_, stop) in itertools.pairwise(runs):
        assert stop - start > most  # no two runs would fit into one


@given(owner=owners(), most=st.integers(1, 9), scale=st.sampled_from([1.0, 60.0, 500.0]))
@SETTINGS
def test_probabilities_by_parts(owner, most, scale):
    scores, index = noise(len(owner), 3, 2), torch.tensor(owner)
    collected = ClassScores(owner[-1] + 1, (3, 2), scale)
    for start, stop in class_chunks(owner, most):
        collected.add(scores[start:stop], index[start:stop] - owner[start])
    expected = merge_names((scores * scale).softmax(dim=0), index, owner[-1] + 1)
    assert torch.allclose(collected.probabilities(), expected, atol=1e-5)


@given(seed=st.integers(0, 99), classes=st.integers(1, 300))
@SETTINGS
def test_closing(seed, classes):
    labels = torch.randint(classes, (9, 7), generator=torch.Generator().manual_seed(seed))
    closed = close_labels(labels)
    assert torch.equal(close_labels(closed), closed)
    assert bool((closed >= labels).all())
    padded = torch.nn.functional.pad(labels, (1,) * 4, value=-1)
    grown = padded.unfold(0, 3, 1).unfold(1, 3, 1).amax(dim=(-2, -1))
    padded = torch.nn.functional.pad(grown, (1,) * 4, value=classes)
    assert torch.equal(closed, padded.unfold(0, 3, 1).unfold(1, 3, 1).amin(dim=(-2, -1)))
    constant = torch.full((4, 4), classes)
    assert torch.equal(close_labels(constant), constant)


@given(seed=st.integers(0, 99), background=st.booleans())
@SETTINGS
def test_order_of_the_classes_does_not_matter_without_closing(seed, background):
    probabilities = noise(5, 6, 6, seed=seed)
    order = torch.cat(
        [torch.tensor([0]), 1 + torch.randperm(4, generator=torch.Generator().manual_seed(seed))]
    )
    options = {"background": background, "prob_threshold": 0.6}
    labels, best = label_pixels(probabilities, **options)
    moved, moved_best = label_pixels(probabilities[order], **options)
    assert torch.equal(order[moved], labels)
    assert torch.equal(moved_best, best)


def test_closing_fills_holes_with_the_higher_label():
    labels = torch.zeros(9, 9, dtype=torch.int64)
    labels[2:7, 2:7] = 3
    labels[4, 4] = 1
    expected = labels.clone()
    expected[4, 4] = 3
    assert torch.equal(close_labels(labels), expected)
    assert close_labels(labels).dtype == torch.int64


def test_area_rule():
    areas = torch.tensor([70, 9, 1, 20])
    assert small_classes(areas, 0.1, background=True).tolist() == [False, False, True, False]
    assert small_classes(areas, 0.3, background=True).tolist() == [False, True, True, False]
    assert small_classes(areas, 0.1, background=False).tolist() == [False, True, True, False]
    # the only class in the image survives any share below one; at no foreground all fall, for nothing
    assert small_classes(torch.tensor([50, 0, 8]), 0.99, background=True).tolist() == [False, True, False]
    assert small_classes(torch.tensor([50, 0, 0]), 0.0, background=True).tolist() == [False, True, True]


def test_pixels_of_a_dropped_class_fall_to_the_second_best():
    probabilities = torch.tensor([0.1, 0.5, 0.4]).view(3, 1, 1)
    labels, best = label_pixels(probabilities, background=True, dropped=torch.tensor([False, True, False]))
    assert labels.item() == 2
    assert best.item() == pytest.approx(0.4)


def test_probability_rule():
    probabilities = torch.tensor([[0.1, 0.2], [0.5, 0.25]]).unsqueeze(1)  # (2, 1, 2)
    kept = [
        label_pixels(probabilities, background=True, prob_threshold=thd)[0].tolist() for thd in (0.0, 0.3)
    ]
    assert kept == [[[1, 1]], [[1, 0]]]
    assert label_pixels(probabilities, background=False, prob_threshold=0.3)[0].tolist() == [[1, 1]]
