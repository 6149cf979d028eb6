# SPDX-License-Identifier: Apache-2.0
"""Heads and their losses."""

import math
from dataclasses import replace

import pytest
import torch
from diffeat import ExtractionOptions
from diffeat.heads import (
    AggregationHead,
    HeadConfig,
    SegmentationHead,
    correspondence_loss,
    load_head,
    lovasz_softmax,
    save_head,
)
from safetensors.torch import save_file
from torch.nn import functional as F

CHANNELS = {"a@50": 6, "b.c@50": 4, "a@261": 6}
AGGREGATION = HeadConfig(kind="aggregation", channels=CHANNELS, dim=8)
UPERNET = HeadConfig(kind="upernet", channels={"a": 6, "b": 4}, dim=8, classes=("x", "y", "z"))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features() -> dict[str, torch.Tensor]:
    return {"a@50": noise(2, 6, 4, 6), "b.c@50": noise(2, 4, 8, 12), "a@261": noise(2, 6, 4, 6, seed=1)}


def test_an_aggregation_is_the_weighted_sum_of_bottlenecks() -> None:
    head = AggregationHead(AGGREGATION)
    with torch.no_grad():
        head.mixing.copy_(torch.tensor([0.0, 1.0, -1.0]))
        found = head(features())
        parts = {}
        for key, value in features().items():
            path = key.partition("@")[0].replace(".", "/")
            parts[key] = F.interpolate(head.bottlenecks[path](value), (8, 12), mode="bilinear")
    shares = [math.exp(x) / sum(math.exp(y) for y in (0, 1, -1)) for x in (0, 1, -1)]
    torch.testing.assert_close(found, sum(s * p for s, p in zip(shares, parts.values(), strict=True)))
    assert list(head.weights.values()) == pytest.approx(shares)
    assert len(head.bottlenecks) == 2  # shared by the timesteps
    assert AggregationHead(replace(AGGREGATION, side=5))(features()).shape == (2, 8, 5, 8)


def test_dropout_is_for_training_alone_and_leaves_the_names_of_weights() -> None:
    torch.manual_seed(0)
    plain = SegmentationHead(UPERNET, {"a": 4, "b": 8})
    head = SegmentationHead(replace(UPERNET, dropout=0.5), {"a": 4, "b": 8})
    head.load_state_dict(plain.state_dict())
    values = {"a": noise(2, 6, 4, 6), "b": noise(2, 4, 8, 12)}
    for found, expected in zip(head.eval()(values), plain.eval()(values), strict=True):
        torch.testing.assert_close(found, expected)
    # the head and its auxiliary
    for found, other in zip(head.train()(values), head(values), strict=True):
        assert not torch.equal(found, other)


def test_levels_of_upernet_are_the_sizes_of_grids() -> None:
    head = SegmentationHead(UPERNET, {"a": 4, "b": 8})
    assert head.levels == [["b"], ["a"]]
    values = {"a": noise(2, 6, 4, 6), "b": noise(2, 4, 8, 12)}
    assert [tuple(each.shape) for each in head(values)] == [(2, 3, 8, 12)] * 2
    probs = head.eval().predict({name: value[:1] for name, value in values.items()}, (16, 20))
    assert probs.shape == (3, 16, 20)
    torch.testing.assert_close(probs.sum(0), torch.ones(16, 20))


def test_features_of_other_channels_are_refused() -> None:
    head = AggregationHead(AGGREGATION)
    with pytest.raises(ValueError, match=r"trained on 4 channels of b\.c@50, got 5"):
        head({**features(), "b.c@50": noise(2, 5, 8, 12)})
    with pytest.raises(ValueError, match="trained on 6 channels of a@261, got none"):
        head({name: value for name, value in features().items() if name != "a@261"})


def test_heads_come_back_from_their_files(tmp_path) -> None:
    options = ExtractionOptions(timesteps=(50, 261), size=(64, 32), noise="none")
    first = AggregationHead(replace(AGGREGATION, names=("a", "b.c"), options=options, model="m"))
    save_head(first, tmp_path / "a.safetensors")
    found = load_head(tmp_path / "a.safetensors", "aggregation")
    assert found.config == first.config
    assert torch.equal(found(features()), first(features()))
    second = SegmentationHead(UPERNET, {"a": 4, "b": 8})
    save_head(second, tmp_path / "s.safetensors")
    back = load_head(tmp_path / "s.safetensors", "upernet")
    values = {"a": noise(1, 6, 4, 6), "b": noise(1, 4, 8, 12)}
    assert torch.equal(back(values)[0], second.eval()(values)[0])


def test_files_that_are_no_heads(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="is written by diffeat train"):
        load_head(tmp_path / "none.safetensors", "upernet")
    (tmp_path / "text.safetensors").write_text("no head")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a head"):
        load_head(tmp_path / "text.safetensors", "upernet")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="it was not written by diffeat train"):
        load_head(tmp_path / "x.safetensors", "upernet")
    save_head(AggregationHead(AGGREGATION), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="of kind 'aggregation', and 'upernet' is needed"):
        load_head(tmp_path / "a.safetensors", "upernet")


def test_the_loss_of_points_is_a_symmetric_cross_entropy() -> None:
    one, other = noise(5, 3, 4), noise(5, 6, 2, seed=1)
    start, end = torch.tensor([[2.5 / 4, 1.5 / 3]]), torch.tensor([[0.5 / 2, 4.5 / 6]])

    def way(vector: torch.Tensor, cells: torch.Tensor, wanted: int) -> torch.Tensor:
        cosines = F.cosine_similarity(vector[:, None], cells.flatten(1), dim=0).double() / 0.07
        return -cosines.log_softmax(0)[wanted]

    wanted = (way(one[:, 1, 2], other, 4 * 2) + way(other[:, 4, 0], one, 1 * 4 + 2)) / 2
    assert float(correspondence_loss(one, other, start, end)) == pytest.approx(float(wanted), rel=1e-5)


def test_lovasz_is_the_jaccard_loss_at_certain_predictions() -> None:
    """Source: arXiv 1705.08790, Sec. 2: the extension equals the loss itself at the corners."""
    labels = torch.tensor([[[0, 0, 1, 1, 2, 255]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 0, 2]]])
    logits = 100 * F.one_hot(predicted, 3).movedim(-1, 1).float()
    # intersections over unions of the labelled pixels: 1/3, 2/3, 0/1
    wanted = 1 - (1 / 3 + 2 / 3 + 0) / 3
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(wanted, abs=1e-5)
    assert float(lovasz_softmax(logits, torch.full_like(labels, 255))) == 0


def test_lovasz_is_the_extension_of_its_definition() -> None:
    """Eq. 3 and 8 worked out with sets: the sum of sorted errors times the growth of the Jaccard loss."""
    logits, labels = noise(1, 2, 1, 7), torch.tensor([[[0, 1, 1, 0, 1, 0, 0]]])
    probs = logits.softmax(1)[0, :, 0].double()
    losses = []
    for number in (0, 1):
        truth = {i for i, label in enumerate(labels.flatten().tolist()) if label == number}
        errors = [float(1 - probs[number, i] if i in truth else probs[number, i]) for i in range(7)]
        order = sorted(range(7), key=lambda i: -errors[i])
        before, total = 0.0, 0.0
        for end in range(1, 8):
            wrong = set(order[:end])
            jaccard = len(wrong) / len(truth | wrong)
            total += errors[order[end - 1]] * (jaccard - before)
            before = jaccard
        losses.append(total)
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(sum(losses) / 2, abs=1e-5)
