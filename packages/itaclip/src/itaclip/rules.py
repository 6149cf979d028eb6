# SPDX-License-Identifier: Apache-2.0
"""From scores of names to labels: softmax, best name of a class, area, probability, closing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.functional import merge_names


class ClassScores:
    """Collects scores a few classes at a time and turns them into probabilities.

    The softmax runs over all names of all classes, and a class gets the probability of its best name.
    Neither needs all names at once: the best score of every class is kept, and one running sum.

    Args:
        num_classes: Classes.
        size: Height and width of the maps.
        logit_scale: Factor on the scores before the softmax.
        device: Where the maps are.
    """

    def __init__(
        self,
        num_classes: int,
        size: tuple[int, int],
        logit_scale: float,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.logit_scale = logit_scale
        self._best = torch.empty((num_classes, *size), device=device)
        self._log_sum = torch.full(size, -torch.inf, device=device)
        self._done = 0

    def add(self, scores: Tensor, owner: Tensor) -> None:
        """Take the scores of the next classes.

        Args:
            scores: ``(names, H, W)``, all names of one or more classes that follow those already taken.
            owner: ``(names,)``, ascending: the class of each name, counted from 0 in this call.
        """
        count = int(owner[-1]) + 1
        logits = scores * self.logit_scale
        self._best[self._done : self._done + count] = merge_names(logits, owner, count)
        self._log_sum = torch.logaddexp(self._log_sum, logits.logsumexp(dim=0))
        self._done += count

    def probabilities(self) -> Tensor:
        """Return ``(classes, H, W)`` after the last :meth:`add`; the object is used up."""
        return self._best.sub_(self._log_sum).exp_()


def small_classes(areas: Tensor, threshold: float, *, background: bool) -> Tensor:
    """Return which foreground classes are best on too few pixels to be kept.

    Args:
        areas: ``(classes,)``, pixels on which each class is best.
        threshold: Share of all foreground pixels that a class must exceed, in [0, 1].
        background: Whether class 0 is the background, and thereby exempt.

    Returns:
        ``(classes,)``, bool.

    Source: arXiv 2411.12044, published settings for VOC21.
    """
    first = int(background)
    dropped = areas <= threshold * areas[first:].sum()
    dropped[:first] = False
    return dropped


def label_pixels(
    probabilities: Tensor, *, background: bool, prob_thd: float = 0.0, dropped: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose a class for every pixel.

    Args:
        probabilities: ``(classes, H, W)``.
        background: Whether class 0 is the background.
        prob_thd: Pixels whose best probability is lower become background; no rule without a background.
        dropped: ``(classes,)``, bool: classes whose probability counts as 0, so that their pixels fall to the
            second best; ``None`` for none.

    Returns:
        Labels ``(H, W)`` in int64 and the best probabilities ``(H, W)`` among the classes not dropped.
    """
    if dropped is not None:
        probabilities = probabilities * ~dropped.view(-1, 1, 1)
    best, labels = probabilities.max(dim=0)
    if background and prob_thd > 0:
        labels = labels.masked_fill(best < prob_thd, 0)
    return labels, best


def close_labels(labels: Tensor) -> Tensor:
    """Close a label map by a 3x3 square, as if labels were shades of grey.

    Higher labels fill gaps in lower ones, so the result depends on the order of the classes. What lies
    outside the image has no say.

    Args:
        labels: ``(H, W)``, integers below 2^24.

    Returns:
        ``(H, W)``, same dtype.

    Source: arXiv 2411.12044, published code; the paper does not mention it.
    """
    grown = F.max_pool2d(labels[None, None].float(), 3, stride=1, padding=1)
    closed = -F.max_pool2d(-grown, 3, stride=1, padding=1)
    return closed[0, 0].to(labels.dtype)


def class_chunks(owner: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Cut names into runs of whole classes, as long as possible up to ``most`` names.

    Args:
        owner: Class of each name, ascending.
        most: Names in a run; a class with more stays whole.

    Returns:
        Half-open runs that cover all names.
    """
    runs: list[tuple[int, int]] = []
    start = end = 0
    for position in range(1, len(owner) + 1):
        if position < len(owner) and owner[position] == owner[position - 1]:
            continue
        if position - start > most and end > start:
            runs.append((start, end))
            start = end
        end = position
    runs.append((start, len(owner)))
    return runs
