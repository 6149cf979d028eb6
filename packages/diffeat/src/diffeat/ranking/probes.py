# SPDX-License-Identifier: Apache-2.0
"""Small classifiers of single pixels, which measure how well a feature predicts a class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diffeat.options import ProbeName

_BATCH = 64
_MAX_EPOCHS = 100
# an epoch index from which a member may stop, and batches without a new best loss that stop it
_FIRST_STOP, _PATIENCE = 4, 50


class Probe(Protocol):
    """A classifier of feature vectors."""

    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Learn from ``(N, C)`` and class numbers ``(N,)``."""
        ...

    def predict(self, features: Tensor) -> Tensor:
        """Class numbers ``(N,)`` of ``(N, C)``."""
        ...


class LogisticProbe:
    """Logistic regression on standardised features.

    Args:
        strength: Inverse of the penalty on squared weights.
        max_iter: Largest number of steps of the solver; it may stop there unconverged.
    """

    def __init__(self, *, strength: float = 1.0, max_iter: int = 200) -> None:
        self.strength = strength
        self.max_iter = max_iter
        self._model: Any = None

    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Learn from ``(N, C)`` and class numbers ``(N,)``."""
        from sklearn.dummy import DummyClassifier
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        known = labels.unique()
        regression: Any = LogisticRegression(C=self.strength, max_iter=self.max_iter)
        if len(known) == 1:
            # regression needs two classes; a fold may hold only one
            regression = DummyClassifier(strategy="most_frequent")
        self._model = make_pipeline(StandardScaler(), regression)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(_array(features), labels.numpy())
        return self

    def predict(self, features: Tensor) -> Tensor:
        """Class numbers ``(N,)`` of ``(N, C)``."""
        return torch.from_numpy(np.asarray(self._model.predict(_array(features)))).long()


def _array(features: Tensor) -> NDArray[np.float32]:
    return features.float().numpy()


class MLPEnsemble:
    """Ten small networks that vote, as in label-scarce segmentation.

    Each has two hidden layers, a ReLU and then a batch normalisation behind each, and weights drawn from a
    normal of deviation 0.02. It learns with Adam at 1e-3 on batches of 64 until, from the fifth epoch on, 50
    batches in a row brought no new best loss. Ties of the vote go to the lower class number.

    Args:
        num_classes: Number of classes ``K``.
        members: Number of networks.
        seed: Random seed of weights and batches.
        max_epochs: Largest number of epochs.
        device: Device on which they are trained.

    Source: arXiv 2410.03558, App. B, after DDPM-based segmentation, arXiv 2112.03126, Sec. 4.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        members: int = 10,
        seed: int = 0,
        max_epochs: int = _MAX_EPOCHS,
        device: torch.device | str = "cpu",
    ) -> None:
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        self.num_classes = num_classes
        self.members = members
        self.seed = seed
        self.max_epochs = max_epochs
        self.device = torch.device(device)
        self.networks: _Networks | None = None

    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Learn from ``(N, C)`` and class numbers ``(N,)``.

        Raises:
            ValueError: If there are fewer than two pixels.
        """
        if len(features) < 2:
            raise ValueError(f"an MLP needs at least 2 labelled pixels, got {len(features)}")
        features, labels = features.float(), labels.long()
        generators = [
            torch.Generator().manual_seed(self.seed * 1000 + member) for member in range(self.members)
        ]
        networks = _Networks(features.shape[1], self.num_classes, generators).to(self.device)
        optimizer = torch.optim.Adam(networks.parameters(), lr=1e-3)
        watch = _Watch(networks)
        for epoch in range(self.max_epochs):
            orders = torch.stack([torch.randperm(len(features), generator=each) for each in generators])
            for rows in orders.split(_BATCH, dim=1):
                if rows.shape[1] < 2:
                    continue  # batch normalisation needs two
                batch, target = features[rows].to(self.device), labels[rows].to(self.device)
                scores = networks(batch)  # (members, B, K)
                losses = F.cross_entropy(scores.transpose(1, 2), target, reduction="none").mean(dim=1)
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
                if watch.all_stopped(losses.detach(), may_stop=epoch >= _FIRST_STOP):
                    break
            if watch.is_over:
                break
        watch.restore()
        self.networks = networks.eval()
        return self

    @torch.no_grad()
    def predict_probabilities(self, features: Tensor) -> Tensor:
        """Probabilities of each member, ``(members, N, K)`` of ``(N, C)``."""
        if self.networks is None:
            raise RuntimeError("fit the ensemble before it predicts")
        out = [
            self.networks(rows.to(self.device).expand(self.members, -1, -1)).softmax(dim=-1).cpu()
            for rows in features.float().split(1 << 13)
        ]
        return torch.cat(out, dim=1)

    def predict(self, features: Tensor) -> Tensor:
        """The class that most members vote for, ``(N,)`` of ``(N, C)``."""
        votes = self.predict_probabilities(features).argmax(dim=-1)  # (members, N)
        return F.one_hot(votes, self.num_classes).sum(dim=0).argmax(dim=-1)

    def uncertainty(self, features: Tensor) -> Tensor:
        """Return the disagreement of the members about each pixel, ``(N,)`` in [0, log K].

        The Jensen-Shannon divergence of their probabilities. An image counts as uncertain as the mean over
        its top decile of pixels.
        """
        each = self.predict_probabilities(features)
        return _entropy(each.mean(dim=0)) - _entropy(each).mean(dim=0)


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)


class _Networks(nn.Module):
    """Independent networks of one shape side by side: as many small products in one large one.

    Args:
        channels: Number of features ``C``.
        num_classes: Number of classes ``K``.
        generators: Generator of the weights of each network.

    Shape:
        - x: ``(members, B, C)``
        - output: ``(members, B, K)``
    """

    def __init__(self, channels: int, num_classes: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        hidden = (128, 32) if num_classes < 30 else (256, 128)
        widths = (channels, *hidden, num_classes)
        self.weights = nn.ParameterList(
            torch.stack([0.02 * torch.randn(i, o, generator=each) for each in generators])
            for i, o in pairwise(widths)
        )
        members = len(generators)
        self.biases = nn.ParameterList(torch.zeros(members, 1, width) for width in widths[1:])
        # channels of all networks concatenated: statistics stay separate
        self.norms = nn.ModuleList(nn.BatchNorm1d(members * width) for width in hidden)

    def forward(self, x: Tensor) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < len(self.norms):
                members, B, C = x.shape
                flat = x.relu().transpose(0, 1).reshape(B, members * C)
                x = self.norms[layer](flat).view(B, members, C).transpose(0, 1)  # (members, B, C)
        return x

    def slices(self) -> list[Tensor]:
        """Return the state of the single networks, the network as the first axis."""
        members = len(self.biases[0])
        state = [value for value in self.state_dict().values() if value.is_floating_point()]
        return [value if value.shape[0] == members else value.view(members, -1) for value in state]


class _Watch:
    """Records when each network stopped learning, and its state then."""

    def __init__(self, networks: _Networks) -> None:
        self._networks = networks
        members = len(networks.biases[0])
        self._best = torch.full((members,), float("inf"))
        self._waited = torch.zeros(members, dtype=torch.long)
        self._kept: dict[int, list[Tensor]] = {}

    @property
    def is_over(self) -> bool:
        """Whether all have stopped."""
        return len(self._kept) == len(self._best)

    def all_stopped(self, losses: Tensor, *, may_stop: bool) -> bool:
        """Record the losses ``(members,)`` of a batch."""
        values = losses.cpu()
        better = values < self._best
        self._best = torch.where(better, values, self._best)
        self._waited = torch.where(better, 0, self._waited + 1)
        if may_stop:
            for member in (self._waited > _PATIENCE).nonzero().flatten().tolist():
                if member not in self._kept:
                    self._kept[member] = [each[member].clone() for each in self._networks.slices()]
        return self.is_over

    @torch.no_grad()
    def restore(self) -> None:
        """Restore each network to the state in which it stopped."""
        for member, kept in self._kept.items():
            for now, then in zip(self._networks.slices(), kept, strict=True):
                now[member].copy_(then)


def make_probe(name: ProbeName, num_classes: int, *, seed: int, device: torch.device | str = "cpu") -> Probe:
    """Return a new probe.

    Args:
        name: ``"logistic"`` or ``"mlp"``.
        num_classes: Number of classes.
        seed: Random seed of weights and batches.
        device: Device on which an ``"mlp"`` learns.

    Raises:
        ValueError: If there is no such probe.
    """
    if name == "logistic":
        return LogisticProbe()
    if name == "mlp":
        return MLPEnsemble(num_classes, seed=seed, device=device)
    raise ValueError(f"probe must be 'logistic' or 'mlp', got {name!r}")
