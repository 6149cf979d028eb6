# SPDX-License-Identifier: Apache-2.0
"""Cross-task synergy: the shared signals should not reveal the task (paper, 4.3)."""

from __future__ import annotations

from math import exp
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

__all__ = [
    "MODES",
    "Discriminator",
    "SynergyMode",
    "confusion_loss",
    "fresh_probe",
    "grl_weight",
    "reverse_gradient",
]

SynergyMode = Literal["off", "grl", "alternate", "confusion", "placebo"]
MODES: tuple[SynergyMode, ...] = ("off", "grl", "alternate", "confusion", "placebo")


class _Reverse(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -ctx.weight * grads[0], None


def reverse_gradient(value: Tensor, weight: float) -> Tensor:
    """Return the same tensor, whose gradient is multiplied by ``-weight`` (Ganin and Lempitsky, 2015)."""
    return cast(Tensor, _Reverse.apply(value, weight))


def grl_weight(progress: float, highest: float = 0.1) -> float:
    """Return the weight of the reversed gradient: from 0 to ``highest`` as training goes from 0 to 1."""
    return highest * (2 / (1 + exp(-10 * progress)) - 1)


class Discriminator(nn.Module):
    """Guesses the module from the shared signals alone (paper, 4.3 and B.3).

    A transformer encoder with a learned class token, then a feed-forward layer. Signals are layer-normalised
    first: otherwise a model could win by scaling them down.

    Args:
        signal_width: Channels of a signal embedding.
        num_modules: Number of modules to classify.
        width: Hidden channels; 768 in the paper.
        layers: Number of layers; 4 in the paper.
        heads: Number of attention heads; not given in the paper.
    """

    def __init__(
        self, signal_width: int, num_modules: int, *, width: int = 768, layers: int = 4, heads: int = 12
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(signal_width, elementwise_affine=False)
        self.inlet = nn.Linear(signal_width, width)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.outlet = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_modules)
        )

    def forward(self, shared: Tensor) -> Tensor:
        """Return logits ``(N, num_modules)`` from shared signals ``(N, num_shared, signal_width)``."""
        inside = self.inlet(self.norm(shared))
        token = self.token.expand(len(inside), -1, -1)
        return self.outlet(self.encoder(torch.cat([token, inside], 1))[:, 0])


def confusion_loss(logits: Tensor) -> Tensor:
    """Return the cross-entropy from the uniform distribution: at least ``log K``, reached if all are equal.

    Args:
        logits: ``(N, K)``.
    """
    return -F.log_softmax(logits, dim=-1).mean(-1).mean()


def fresh_probe(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_modules: int,
    *,
    steps: int = 300,
    seed: int = 0,
) -> float:
    """Train a new discriminator on frozen signals and return its accuracy; a fooled one proves nothing.

    Args:
        train: Shared signals ``(N, num_shared, D)`` and modules ``(N,)`` for training.
        test: Shared signals and modules to score on.
        num_modules: Number of modules.
        steps: Training steps, each on all signals.
        seed: Random seed of the weights.

    Returns:
        Accuracy, 0 to 1.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        probe = Discriminator(train[0].shape[-1], num_modules, width=64, layers=1, heads=4).to(
            train[0].device
        )
        optimiser = torch.optim.AdamW(probe.parameters(), lr=1e-3)
        for _ in range(steps):
            optimiser.zero_grad()
            F.cross_entropy(probe(train[0].detach()), train[1]).backward()
            optimiser.step()
    with torch.no_grad():
        return float((probe(test[0]).argmax(-1) == test[1]).float().mean())
