# SPDX-License-Identifier: Apache-2.0
"""Signals, their losses and the discriminator (checks 15, 16, 18, 19, 20)."""

from math import log

import pytest
import torch
from torch.nn import functional as F
from vitron.model.signals import MaskGroup, alignment_loss, mask_loss, match_loss
from vitron.model.synergy import Discriminator, confusion_loss, fresh_probe, grl_weight, reverse_gradient


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def discriminator():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Discriminator(12, 3, width=16, layers=2, heads=2)


def test_reversal_keeps_the_value_and_turns_the_gradient():
    value = drawn(4, 5).requires_grad_()
    weight = drawn(4, 5, seed=1)
    there = reverse_gradient(value, 0.3)
    assert torch.equal(there, value)
    (there * weight).sum().backward()
    torch.testing.assert_close(value.grad, -0.3 * weight, rtol=0, atol=1e-7)


def test_the_weight_rises_from_nothing():
    assert grl_weight(0.0) == 0
    assert grl_weight(1.0, 0.1) == pytest.approx(0.1, rel=1e-3)
    assert grl_weight(0.2) < grl_weight(0.4)


def test_steps_of_both_sides_go_their_ways(discriminator):
    signals, truth = drawn(24, 8, 12), torch.arange(24) % 3
    shared = signals[:, 4:].clone().requires_grad_()

    def loss():
        return F.cross_entropy(discriminator(shared), truth)

    before = loss()
    own = torch.autograd.grad(before, list(discriminator.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(discriminator.parameters(), own, strict=True):
            parameter -= 0.05 * gradient
    after = loss()
    assert after < before
    (against,) = torch.autograd.grad(after, shared)
    with torch.no_grad():
        shared += 0.5 * against / against.norm()
    assert loss() > after


def test_signals_of_a_task_do_not_reach_the_discriminator(discriminator):
    signals = drawn(6, 8, 12).requires_grad_()
    discriminator(signals[:, 4:]).sum().backward()
    assert signals.grad[:, :4].abs().max() == 0
    assert signals.grad[:, 4:].abs().max() > 0


def test_confusion_is_least_where_all_are_equal():
    assert confusion_loss(torch.zeros(4, 7)).item() == pytest.approx(log(7), abs=1e-6)
    assert confusion_loss(drawn(4, 7)).item() > log(7)


def test_shrinking_signals_does_not_fool(discriminator):
    shared = drawn(4, 4, 12)
    torch.testing.assert_close(discriminator(shared), discriminator(0.1 * shared), rtol=1e-2, atol=1e-2)


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    labels = torch.arange(240) % 3
    logged = drawn(240, 4, 12) * 0.3
    logged[:, 0, :3] += 3 * F.one_hot(labels, 3)
    mixed = labels[torch.randperm(240, generator=torch.Generator().manual_seed(3))]
    half = slice(0, 120), slice(120, 240)
    seen, blind = (
        fresh_probe((logged[half[0]], truth[half[0]]), (logged[half[1]], truth[half[1]]), 3, steps=60)
        for truth in (labels, mixed)
    )
    assert seen > 0.9
    assert (
        abs(blind - 1 / 3) < 3 * (1 / 3 * 2 / 3 / 120) ** 0.5
    )  # check 19: within 3 standard errors of chance


def test_alignment_is_zero_and_smooth_at_equality():
    found = drawn(3, 5).requires_grad_()
    loss = alignment_loss(found, found.detach().clone())
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(found.grad).all()
    assert alignment_loss(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == pytest.approx(5, abs=1e-5)


def test_masks_cost_less_the_better_they_are():
    truth = torch.zeros(8, 8)
    truth[2:6, 2:6] = 1

    def loss(scale):
        # one channel, whose product with the query is the mask
        group = MaskGroup([0], torch.tensor([[scale, 0.0]]), (2 * truth - 1)[None, None])
        return mask_loss([group], [truth])

    assert loss(8.0) < 0.01 < loss(0.0) < loss(-8.0)


def test_a_query_is_to_find_its_own_thing_among_others():
    # two objects of two channels; each query points at its own, at the other's, or at both
    fine = torch.zeros(2, 2, 4, 4)
    fine[0, 0], fine[1, 1] = 1.0, 1.0
    truth = torch.zeros(2, 4, 4)
    truth[:, 1:3, 1:3] = 1.0
    bias = torch.zeros(2, 1)
    own = torch.cat([torch.eye(2), bias], dim=1)
    other, both = torch.cat([torch.eye(2).flip(0), bias], dim=1), torch.cat([torch.ones(2, 2), bias], dim=1)
    calls = torch.tensor([0, 1])

    def loss(query, calls):
        return match_loss([MaskGroup([0, 1], query, fine)], list(truth), calls)

    right, none, wrong = (loss(query, calls) for query in (own, both, other))
    assert right < 0.01 < none < wrong
    assert none.item() == pytest.approx(log(2))
    # frames of one call are not held against each other, those without the object are left out
    assert loss(other, torch.tensor([3, 3])).item() == pytest.approx(0)
    truth[1] = 0
    assert loss(other, calls).item() == pytest.approx(0)
    truth[0] = 0
    assert loss(own.requires_grad_(), calls).item() == 0
