# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from diffeat.ranking import LogisticProbe, MLPEnsemble
from diffeat.ranking.probes import make_probe
from diffeat.scores import mean_iou


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = 3 * torch.eye(3, 6)
    return centres[labels] + torch.randn(300, 6, generator=generator), labels


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_probes_tell_clouds_apart(clouds, name):
    features, labels = clouds
    probe = make_probe(name, 3, seed=0).fit(features[:200], labels[:200])
    assert (probe.predict(features[200:]) == labels[200:]).float().mean() > 0.9


def test_ensembles_are_reproducible_and_follow_their_seed(clouds):
    one, same, other = (
        MLPEnsemble(3, members=2, seed=seed, max_epochs=2).fit(*clouds).predict_probabilities(clouds[0])
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_the_vote_is_the_mode_and_ties_go_to_the_lower_class(clouds):
    ensemble = MLPEnsemble(3, members=4)
    votes = torch.tensor([[2, 1], [2, 1], [1, 0], [0, 0]])
    ensemble.predict_probabilities = lambda features: torch.nn.functional.one_hot(votes, 3).float()
    assert ensemble.predict(clouds[0]).tolist() == [2, 0]


def test_uncertainty_is_the_jensen_shannon_divergence():
    ensemble = MLPEnsemble(2, members=2)
    each = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    ensemble.predict_probabilities = lambda features: each
    assert ensemble.uncertainty(torch.zeros(2, 1)).tolist() == pytest.approx([math.log(2), 0])


def test_the_paper_s_networks():
    def shapes(num_classes):
        ensemble = MLPEnsemble(num_classes, members=2, max_epochs=1).fit(torch.randn(10, 5), torch.zeros(10))
        return [tuple(weight.shape) for weight in ensemble.networks.weights]

    assert shapes(29) == [(2, 5, 128), (2, 128, 32), (2, 32, 29)]
    assert shapes(30) == [(2, 5, 256), (2, 256, 128), (2, 128, 30)]


def test_networks_side_by_side_are_single_networks(clouds):
    features = clouds[0][:20]
    networks = MLPEnsemble(3, members=3, max_epochs=2).fit(*clouds).networks
    together = networks(features.expand(3, -1, -1))
    for member in range(3):
        x = features
        for layer, (weight, bias) in enumerate(zip(networks.weights, networks.biases, strict=True)):
            x = x @ weight[member] + bias[member]
            if layer < 2:
                norm, C = networks.norms[layer], x.shape[1]
                part = slice(member * C, (member + 1) * C)
                x = torch.nn.functional.batch_norm(
                    x.relu(),
                    norm.running_mean[part],
                    norm.running_var[part],
                    norm.weight[part],
                    norm.bias[part],
                )
        torch.testing.assert_close(together[member], x)


def test_members_learn_apart_and_stop_apart(clouds, monkeypatch):
    monkeypatch.setattr("diffeat.ranking.probes._PATIENCE", 0)
    few = MLPEnsemble(3, members=2, max_epochs=8).fit(*clouds).predict_probabilities(clouds[0])
    more = MLPEnsemble(3, members=4, max_epochs=8).fit(*clouds).predict_probabilities(clouds[0])
    torch.testing.assert_close(more[:2], few)
    monkeypatch.setattr("diffeat.ranking.probes._PATIENCE", 1000)
    longer = MLPEnsemble(3, members=2, max_epochs=8).fit(*clouds).predict_probabilities(clouds[0])
    assert not torch.allclose(longer[0], few[0])


def test_a_fold_of_one_class_is_answered_with_it():
    probe = LogisticProbe().fit(torch.randn(5, 3), torch.full((5,), 2))
    assert probe.predict(torch.randn(4, 3)).tolist() == [2, 2, 2, 2]


def test_mistakes():
    with pytest.raises(ValueError, match="'logistic' or 'mlp', got 'svm'"):
        make_probe("svm", 2, seed=0)
    with pytest.raises(ValueError, match="members must be at least 1"):
        MLPEnsemble(2, members=0)
    with pytest.raises(ValueError, match="at least 2 labelled pixels, got 1"):
        MLPEnsemble(2).fit(torch.zeros(1, 3), torch.zeros(1))
    with pytest.raises(RuntimeError, match="fit the ensemble"):
        MLPEnsemble(2).predict(torch.zeros(1, 3))


def test_iou_leaves_ignored_pixels_out():
    predictions, targets = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 255])
    # class 0: 1 of 2, class 1: 1 of 2
    assert mean_iou(predictions, targets, 2) == pytest.approx(0.5)
    assert mean_iou(predictions[3:], targets[3:], 2) == 0


def test_iou_policies_for_absent_classes():
    predictions, targets = torch.tensor([0, 1]), torch.tensor([0, 1])
    assert mean_iou(predictions, targets, 4) == 1
    assert mean_iou(predictions, targets, 4, absent="zero") == 0.5
    with pytest.raises(ValueError, match="'skip' or 'zero'"):
        mean_iou(predictions, targets, 4, absent="nan")
    with pytest.raises(ValueError, match="one shape"):
        mean_iou(predictions, targets[:1], 4)
