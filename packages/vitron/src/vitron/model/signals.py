# SPDX-License-Identifier: Apache-2.0
"""Heads that turn signal embeddings into a mask or a prompt embedding, and their losses (paper, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ConditionHead",
    "MaskHead",
    "PublishedConditionHead",
    "alignment_loss",
    "make_condition_head",
    "mask_logits",
    "mask_loss",
    "match_loss",
]


class MaskHead(nn.Module):
    """Masks from signals, patches and pixels, without an external model.

    The signals of a call attend to the patches of a frame and become one query; its product with features of
    every pixel, from patches and from a shallow convolution of the pixels, is the mask.

    Args:
        signal_width: Channels of a signal embedding.
        num_signals: Number of signals of a call.
        patch_width: Channels of a patch.
        patch_size: Side of a patch in pixels.
        grid: Patches along a side.
        width: Hidden channels.
        stride: Input pixels per mask pixel.
        modules: Modules, each with its own projection.
    """

    def __init__(
        self,
        signal_width: int,
        num_signals: int,
        patch_width: int,
        *,
        patch_size: int,
        grid: int,
        width: int = 64,
        stride: int = 2,
        modules: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.scale = patch_size // stride
        self.queries = nn.ModuleDict({name: nn.Linear(signal_width, width) for name in modules})
        self.memory = nn.Linear(patch_width, width)
        self.places = nn.Parameter(torch.randn(grid * grid, width) * 0.2)
        layer = nn.TransformerDecoderLayer(
            width,
            max(1, width // 16),
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(width))
        self.query = nn.Linear(num_signals * width, width + 1)
        self.pixels = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=stride, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.patches = nn.Conv2d(patch_width, width, 1)
        self.joined = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, signals: Tensor, modules: list[str], patches: Tensor, images: Tensor) -> Tensor:
        """Return logits of masks.

        Args:
            signals: One set for each frame, ``(N, num_signals, signal_width)``.
            modules: Module of each set.
            patches: ``(N, P, patch_width)``.
            images: Normalised, ``(N, 3, S, S)``.

        Returns:
            ``(N, S / stride, S / stride)``.
        """
        return mask_logits(*self.features(signals, modules, patches, images))

    def features(
        self, signals: Tensor, modules: list[str], patches: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return queries and pixel features, whose product is the mask; arguments as of :meth:`forward`.

        Returns:
            Queries ``(N, width + 1)``, a bias last; pixels ``(N, width, S / stride, S / stride)``.
        """
        asked = signals.new_zeros(*signals.shape[:2], self.memory.out_features)
        for name in set(modules):
            rows = torch.tensor([each == name for each in modules], device=signals.device)
            asked[rows] = self.queries[name](signals[rows]).to(asked.dtype)
        asked = self.decoder(asked, self.memory(patches) + self.places)
        query = self.query(asked.flatten(1))
        side = int(patches.shape[1] ** 0.5)
        coarse = self.patches(patches.transpose(1, 2).unflatten(2, (side, side)))
        fine = self.joined(
            self.pixels(images) + F.interpolate(coarse, scale_factor=self.scale, mode="bilinear")
        )
        return query, fine


def mask_logits(query: Tensor, fine: Tensor) -> Tensor:
    """Return ``(N, h, w)`` from queries ``(N, width + 1)`` and pixels ``(N, width, h, w)``."""
    width = fine.shape[1]
    return torch.einsum("nc,nchw->nhw", query[:, :-1] / width**0.5, fine) + query[:, -1, None, None]


class ConditionHead(nn.Module):
    """Signals to the vectors of a generator's text encoder, by learned queries.

    Args:
        signal_width: Channels of a signal embedding.
        num_vectors: Number of vectors of the prompt.
        out: Width of the text encoder.
        width: Hidden channels.
    """

    def __init__(self, signal_width: int, num_vectors: int, out: int, *, width: int = 512) -> None:
        super().__init__()
        self.inlet = nn.Linear(signal_width, width)
        self.queries = nn.Parameter(torch.randn(num_vectors, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width,
            max(1, width // 128),
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.outlet = nn.Linear(width, out)

    def forward(self, signals: Tensor) -> Tensor:
        """Return ``(N, num_vectors, out)`` from signals ``(N, num_signals, signal_width)``."""
        queries = self.queries.expand(signals.shape[0], -1, -1)
        return self.outlet(self.decoder(queries, self.inlet(signals)))


class PublishedConditionHead(nn.Module):
    """The projection of signals in the form of NExT-GPT, which the paper builds on (B.1).

    An encoder and a decoder of four layers each, of width 512, where :class:`ConditionHead` has a decoder
    alone: 31,958,784 parameters from 4096 to 77 vectors of 768.

    Args:
        signal_width: Channels of a signal embedding.
        num_vectors: Number of vectors of the prompt.
        out: Width of the text encoder.
    """

    def __init__(self, signal_width: int, num_vectors: int, out: int) -> None:
        super().__init__()
        width = 512
        self.inlet = nn.Linear(signal_width, width)
        self.queries = nn.Parameter(torch.randn(num_vectors, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2048, dropout=0.0, norm_first=True, batch_first=True)
        # as nn.Transformer builds it, without the warning that pre-norm has no fast path
        encoder = nn.TransformerEncoder(layer, 4, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.transformer = nn.Transformer(
            width, 4, num_decoder_layers=4, dim_feedforward=2048, dropout=0.0, custom_encoder=encoder,
            norm_first=True, batch_first=True,
        )  # fmt: skip
        self.outlet = nn.Linear(width, out)

    def forward(self, signals: Tensor) -> Tensor:
        """Return ``(N, num_vectors, out)`` from signals ``(N, num_signals, signal_width)``."""
        queries = self.queries.expand(signals.shape[0], -1, -1)
        return self.outlet(self.transformer(self.inlet(signals), queries))


def make_condition_head(
    signal_width: int, settings: Mapping[str, Any]
) -> ConditionHead | PublishedConditionHead:
    """Return the head of a module.

    Args:
        signal_width: Channels of a signal embedding.
        settings: ``num_vectors`` and ``width`` of the prompt; ``form``: ``vitron`` or ``published``.

    Raises:
        ValueError: If the form is unknown.
    """
    vectors, out, form = int(settings["num_vectors"]), int(settings["width"]), settings.get("form", "vitron")
    if form == "vitron":
        return ConditionHead(signal_width, vectors, out, width=min(512, signal_width))
    if form == "published":
        return PublishedConditionHead(signal_width, vectors, out)
    raise ValueError(f"form of a condition head must be vitron or published, got {form!r}")


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return dice plus binary cross-entropy, the mean over masks.

    Args:
        logits: ``(N, h, w)``.
        truth: Covered share of each pixel, ``(N, h, w)``.
    """
    truth = truth.to(logits.dtype)
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
    chance = logits.sigmoid()
    overlap = (chance * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (chance.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return (cross + dice).mean()


def match_loss(
    query: Tensor, fine: Tensor, truth: Tensor, calls: Tensor, *, sharpness: float = 10.0
) -> Tensor:
    """Return the cross-entropy of matching each query to its object among those of other calls (InfoNCE).

    With the mask loss alone, masks cover all objects for many steps: the choice of the object is a product,
    whose gradient is small while neither factor separates objects.

    Args:
        query: ``(N, width + 1)``; the bias is not used.
        fine: ``(N, width, h, w)``.
        truth: ``(N, h, w)``, 0 to 1; frames where it is empty are ignored.
        calls: Call of each row, ``(N,)``; frames of one call are not negatives of each other.
        sharpness: Factor of the cosine.
    """
    shown = truth.sum((1, 2)) > 0
    query, fine, truth, calls = query[shown], fine[shown], truth[shown].to(fine.dtype), calls[shown]
    if len(query) == 0:
        return query.sum()
    objects = torch.einsum("nchw,nhw->nc", fine, truth) / truth.sum((1, 2))[:, None]
    alike = F.normalize(query[:, :-1], dim=-1) @ F.normalize(objects, dim=-1).T * sharpness
    same = (calls[:, None] == calls[None]) & ~torch.eye(len(calls), dtype=torch.bool, device=calls.device)
    return F.cross_entropy(alike.masked_fill(same, -torch.inf), torch.arange(len(calls), device=calls.device))


def alignment_loss(found: Tensor, wanted: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Return the mean L2 distance of vectors, not squared; its gradient is finite for equal vectors.

    Args:
        found: ``(..., C)``.
        wanted: ``(..., C)``.
        eps: Added under the root; at equality the loss is exactly zero.
    """
    squared = (found - wanted).square().sum(-1)
    return ((squared + eps).sqrt() - eps**0.5).mean()
