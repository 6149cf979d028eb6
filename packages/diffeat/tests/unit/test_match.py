# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from diffeat import match
from diffeat.match import SoftArgmax, find_points_flipped, hits, nearest, sample, similarity_map
from torch.nn import functional as F


@pytest.fixture
def features():
    return torch.randn(1, 6, 5, 8, generator=torch.Generator().manual_seed(0))


def test_sampling_equals_enlarging(features):
    height, width = 20, 24
    large = F.interpolate(features, (height, width), mode="bilinear")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1).view(1, -1, 2)
    torch.testing.assert_close(sample(features, points), large.flatten(2).transpose(1, 2))


def test_shifted_features_are_found_where_they_went(features):
    moved = features.roll((1, 2), (2, 3))
    points = torch.tensor([[0.5 / 8, 0.5 / 5], [3.5 / 8, 2.5 / 5]])
    found, similarity = nearest(features[0], moved[0], points)
    torch.testing.assert_close(found, points + torch.tensor([2 / 8, 1 / 5]))
    torch.testing.assert_close(similarity, torch.ones(2))


def test_scale_of_features_does_not_matter(features):
    points = torch.rand(7, 2, generator=torch.Generator().manual_seed(1))
    target = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(2))
    one, _ = nearest(features[0], target, points)
    other, _ = nearest(100 * features[0], target * torch.rand(1, 9, 4).add(0.1), points)
    assert torch.equal(one, other)


def test_pieces_change_nothing(features, monkeypatch):
    points = torch.rand(9, 2, generator=torch.Generator().manual_seed(1))
    whole = nearest(features[0], features[0], points)
    monkeypatch.setattr(match, "_CHUNK_ELEMENTS", 80)
    pieces = nearest(features[0], features[0], points)
    assert torch.equal(whole[0], pieces[0])
    # products of other shapes may be rounded otherwise
    torch.testing.assert_close(whole[1], pieces[1], rtol=1e-6, atol=1e-6)
    assert nearest(features[0], features[0], points[:0])[0].shape == (0, 2)


def test_a_point_is_most_similar_to_itself(features):
    values = similarity_map(features[0], features[0], (2.5 / 8, 1.5 / 5))
    assert values.shape == (5, 8)
    assert values.argmax() == 1 * 8 + 2
    assert values.max() == pytest.approx(1, abs=1e-6)


def test_the_radius_itself_is_a_hit():
    predicted = torch.tensor([[3.0, 4.0], [3.0, 4.001]])
    assert hits(predicted, torch.zeros(2, 2), 5).tolist() == [True, False]


def test_mistakes(features):
    with pytest.raises(ValueError, match="the same channels"):
        nearest(features[0], features[0][:3], torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"points must be \(N, 2\), got \(2,\)"):
        nearest(features[0], features[0], torch.zeros(2))


def test_a_soft_argmax_is_the_mean_place_of_the_window() -> None:
    target = torch.randn(6, 7, 9, generator=torch.Generator().manual_seed(3))
    source = target[:, 2:3, 4:5] + target[:, 3:4, 4:5]
    soft = SoftArgmax(window=3, temperature=0.2)
    found, values = nearest(source, target, torch.tensor([[0.5, 0.5]], dtype=torch.float64), soft=soft)
    wanted = torch.nn.functional.cosine_similarity(source, target, dim=0).double()
    row, column = divmod(int(wanted.argmax()), 9)
    around = [(r, c) for r in range(row - 1, row + 2) for c in range(column - 1, column + 2)]
    inside = [(r, c) for r, c in around if 0 <= r < 7 and 0 <= c < 9]
    weights = torch.stack([wanted[r, c] / 0.2 for r, c in inside]).softmax(0)
    x = sum(float(w) * (c + 0.5) / 9 for w, (_, c) in zip(weights, inside, strict=True))
    y = sum(float(w) * (r + 0.5) / 7 for w, (r, _) in zip(weights, inside, strict=True))
    assert found[0].tolist() == pytest.approx([x, y], abs=1e-6)
    assert float(values) == pytest.approx(float(wanted.max()), abs=1e-6)
    hard = nearest(source, target, torch.tensor([[0.5, 0.5]]))[0]
    cold, _ = nearest(source, target, torch.tensor([[0.5, 0.5]]), soft=SoftArgmax(temperature=1e-4))
    torch.testing.assert_close(cold, hard)


@pytest.mark.parametrize("values", [{"window": 4}, {"window": 0}, {"temperature": 0.0}])
def test_soft_argmaxes_that_cannot_be(values) -> None:
    with pytest.raises(ValueError, match=r"window must be an odd|temperature must be above 0"):
        SoftArgmax(**values)


def test_a_mirrored_target_is_found_by_the_mirrored_source() -> None:
    source = torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(5))
    # directions matter: features change when the image is mirrored
    flipped = torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(6))
    points = torch.tensor([[1.5 / 8, 2.5 / 6], [6.5 / 8, 0.5 / 6]])
    straight = find_points_flipped(source, flipped, source, points)
    torch.testing.assert_close(straight.target, points)
    turned = find_points_flipped(source, flipped, flipped, points)
    torch.testing.assert_close(turned.target, torch.tensor([[6.5 / 8, 2.5 / 6], [1.5 / 8, 0.5 / 6]]))
    assert torch.equal(turned.source, points)
