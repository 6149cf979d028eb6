# SPDX-License-Identifier: Apache-2.0
"""Heads that turn signal embeddings into a mask or a prompt embedding, and their losses (paper, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ConditionHead",
    "MaskGroup",
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
        grid: Patches along a side for which places are learned; those of other maps are interpolated.
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
        grid: int,
        width: int = 64,
        stride: int = 2,
        modules: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.stride = stride
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

    def forward(self, signals: Tensor, modules: list[str], maps: Tensor, images: Tensor) -> Tensor:
        """Return logits of masks.

        Args:
            signals: One set for each frame, ``(N, num_signals, signal_width)``.
            modules: Module of each set.
            maps: Features of the frames, ``(N, h, w, patch_width)``.
            images: Normalised, ``(N, 3, H, W)``.

        Returns:
            ``(N, H / stride, W / stride)``, rounded up.
        """
        return mask_logits(*self.features(signals, modules, maps, images))

    def features(
        self, signals: Tensor, modules: list[str], maps: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return queries and pixel features, whose product is the mask; arguments as of :meth:`forward`.

        Returns:
            Queries ``(N, width + 1)``, a bias last; pixels ``(N, width, H / stride, W / stride)``.
        """
        asked = signals.new_zeros(*signals.shape[:2], self.memory.out_features)
        for name in set(modules):
            rows = torch.tensor([each == name for each in modules], device=signals.device)
            asked[rows] = self.queries[name](signals[rows]).to(asked.dtype)
        grid = (maps.shape[1], maps.shape[2])
        asked = self.decoder(asked, self.memory(maps.flatten(1, 2)) + self.places_of(grid))
        query = self.query(asked.flatten(1))
        fine = self.pixels(images)
        coarse = self.patches(maps.permute(0, 3, 1, 2))
        fine = self.joined(fine + F.interpolate(coarse, fine.shape[-2:], mode="bilinear"))
        return query, fine

    def places_of(self, grid: tuple[int, int]) -> Tensor:
        """Return the codes of the places of a map, ``(h * w, width)``: learned ones, or between them."""
        side = int(len(self.places) ** 0.5)
        if grid == (side, side):
            return self.places
        known = self.places.T.unflatten(1, (side, side))[None]
        return F.interpolate(known, grid, mode="bilinear")[0].flatten(1).T


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


@dataclass
class MaskGroup:
    """Masks of frames of one size.

    Attributes:
        places: Position of each mask among those that were asked for.
        query: ``(n, width + 1)``, a bias last.
        fine: Features of pixels, ``(n, width, h, w)``.
    """

    places: list[int]
    query: Tensor
    fine: Tensor

    @property
    def logits(self) -> Tensor:
        """Logits of the masks, ``(n, h, w)``."""
        return mask_logits(self.query, self.fine)

    def truth(self, targets: Sequence[Tensor]) -> Tensor:
        """Return the targets of these masks, ``(n, h, w)``, out of those of all."""
        return torch.stack([targets[place] for place in self.places]).to(self.fine)


def mask_loss(groups: Sequence[MaskGroup], targets: Sequence[Tensor]) -> Tensor:
    """Return dice plus binary cross-entropy, the mean over masks.

    Args:
        groups: Found masks.
        targets: Covered share of each pixel, ``(h, w)`` each.
    """
    terms = [_mask_terms(group.logits, group.truth(targets)) for group in groups]
    return torch.cat(terms).mean()


def _mask_terms(logits: Tensor, truth: Tensor) -> Tensor:
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
    chance = logits.sigmoid()
    overlap = (chance * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (chance.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return cross + dice


def match_loss(
    groups: Sequence[MaskGroup], targets: Sequence[Tensor], calls: Tensor, *, sharpness: float = 10.0
) -> Tensor:
    """Return the cross-entropy of matching each query to its object among those of other calls (InfoNCE).

    With the mask loss alone, masks cover all objects for many steps: the choice of the object is a product,
    whose gradient is small while neither factor separates objects.

    Args:
        groups: Found masks; the bias of a query is not used.
        targets: ``(h, w)`` each, 0 to 1; frames where it is empty are ignored.
        calls: Call of each mask, ``(N,)``; frames of one call are not negatives of each other.
        sharpness: Factor of the cosine.
    """
    queries, objects, own = list[Tensor](), list[Tensor](), list[Tensor]()
    for group in groups:
        truth = group.truth(targets)
        area = truth.sum((1, 2))
        shown = area > 0
        queries.append(group.query[shown, :-1])
        means = torch.einsum("nchw,nhw->nc", group.fine[shown], truth[shown]) / area[shown][:, None]
        objects.append(means)
        own.append(calls[group.places].to(shown.device)[shown])
    query, calls = torch.cat(queries), torch.cat(own)
    if len(query) == 0:
        return query.sum()
    alike = F.normalize(query, dim=-1) @ F.normalize(torch.cat(objects), dim=-1).T * sharpness
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
