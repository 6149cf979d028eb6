# SPDX-License-Identifier: Apache-2.0
"""From the scores of windows to labels at the image's size, a band of rows and some classes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import ITACLIPConfig
from itaclip.features import Prepared, WindowMaps
from itaclip.pamr import affinity, refine
from itaclip.results import Segmentation
from itaclip.text.classes import ClassList
from itaclip.windows import WindowMerger, resize_rows

# numbers in the maps of names refined together, and in those of the classes of one band: 64 and 512 MB
_NAME_NUMBERS = 2**24
_CLASS_NUMBERS = 2**27
_FEWEST_ROWS = 64


class Decision:
    """Turns the scores of an image's windows into labels.

    Args:
        prepared: The image.
        windows: Scores of its windows, a map per name.
        config: Refinement and rules.
    """

    def __init__(self, prepared: Prepared, windows: WindowMaps, config: ITACLIPConfig) -> None:
        self.prepared, self.config = prepared, config
        self.merger = WindowMerger(
            prepared.plan,
            windows.grid,
            prepared.size,
            direct=not config.crop,
            device=prepared.image.device,
        )
        self.scores = windows.values
        # the published code refines windows only
        self.pamr_steps = config.pamr_steps if config.crop or config.pamr_whole else 0

    def name_scores(self, top: int, bottom: int, chunks: list[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield refined scores of some rows, ``(names of a chunk, bottom - top, W)``.

        Rows that refinement reaches above and below are computed too and cut off, so bands fit together
        exactly.

        Args:
            top: First row.
            bottom: End of the rows.
            chunks: Half-open runs of names.
        """
        config, (height, _) = self.config, self.prepared.size
        halo = self.pamr_steps * max(config.pamr_dilations)
        first, last = max(0, top - halo), min(height, bottom + halo)
        weights = None
        if self.pamr_steps:
            image = resize_rows(self.prepared.image, self.prepared.size, first, last)
            weights = affinity(image, config.pamr_dilations)
        for start, stop in chunks:
            maps = self.merger.merge(self.scores[start:stop], top=first, bottom=last)
            if weights is not None:
                maps = refine(maps, weights, steps=self.pamr_steps, dilations=config.pamr_dilations)
            yield maps[:, top - first : bottom - first]

    def probabilities(self, top: int, bottom: int, classes: ClassList) -> Tensor:
        """Return the probabilities of the classes in some rows, ``(classes, bottom - top, W)``."""
        width = self.prepared.size[1]
        halo = 2 * self.pamr_steps * max(self.config.pamr_dilations)
        chunks = class_chunks(classes.owner, max(1, _NAME_NUMBERS // ((bottom - top + halo) * width)))
        collected = ClassScores(
            len(classes.labels), (bottom - top, width), self.config.logit_scale, device=self.scores.device
        )
        for (start, stop), maps in zip(chunks, self.name_scores(top, bottom, chunks), strict=True):
            owner = torch.tensor(classes.owner[start:stop]) - classes.owner[start]
            collected.add(maps, owner)
        return collected.probabilities()

    def bands(self, num_classes: int) -> list[tuple[int, int]]:
        """Return the runs of rows that are processed one after the other; one for usual images."""
        height, width = self.prepared.size
        rows = max(_FEWEST_ROWS, _CLASS_NUMBERS // (num_classes * width))
        return [(top, min(top + rows, height)) for top in range(0, height, rows)]

    def segment(self, classes: ClassList, *, return_scores: bool) -> Segmentation:
        """Apply the rules and return labels.

        Args:
            classes: Classes of the scores.
            return_scores: Whether to keep the probabilities of all classes.
        """
        config, bands = self.config, self.bands(len(classes.labels))
        whole = self.probabilities(*bands[0], classes) if len(bands) == 1 else None
        dropped = self._dropped(classes, bands, whole)
        labels: list[Tensor] = []
        best: list[Tensor] = []
        scores: list[Tensor] = []
        for top, bottom in bands:
            probabilities = self.probabilities(top, bottom, classes) if whole is None else whole
            if return_scores:
                scores.append(probabilities.cpu())
            chosen, probability = label_pixels(
                probabilities,
                background=classes.background,
                prob_threshold=config.prob_threshold,
                dropped=dropped,
            )
            labels.append(chosen)
            best.append(probability.cpu())
        joined = torch.cat(labels)
        return Segmentation(
            labels=(close_labels(joined) if config.closing else joined).cpu(),
            probabilities=torch.cat(best),
            names=classes.labels,
            background=classes.background,
            scores=torch.cat(scores, dim=1) if return_scores else None,
        )

    def _dropped(
        self, classes: ClassList, bands: list[tuple[int, int]], whole: Tensor | None
    ) -> Tensor | None:
        """Return the classes that the area rule drops; needs a first pass over every band."""
        if self.config.area_threshold is None:
            return None
        areas = torch.zeros(len(classes.labels), dtype=torch.int64, device=self.scores.device)
        for top, bottom in bands:
            probabilities = self.probabilities(top, bottom, classes) if whole is None else whole
            areas += probabilities.argmax(dim=0).flatten().bincount(minlength=len(areas))
        return small_classes(areas, self.config.area_threshold, background=classes.background)


class ClassScores:
    """Collects scores a few classes at a time and turns them into probabilities.

    The softmax runs over all names of all classes, and a class gets the probability of its best name.
    Neither needs all names at once: the best score of every class is kept, and one running sum.

    Args:
        num_classes: Classes.
        size: Height and width of the maps.
        logit_scale: Factor on the scores before the softmax.
        device: Device of the maps.
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
        """Add the scores of the next classes.

        Args:
            scores: ``(names, H, W)``, all names of one or more classes that follow those already added.
            owner: ``(names,)``, ascending: the class of each name, counted from 0 in this call.
        """
        count = int(owner[-1]) + 1
        logits = scores * self.logit_scale
        self._best[self._done : self._done + count] = merge_names(logits, owner, count)
        self._log_sum = torch.logaddexp(self._log_sum, logits.logsumexp(dim=0))
        self._done += count

    def probabilities(self) -> Tensor:
        """Return ``(classes, H, W)`` after the last :meth:`add`; the object cannot be used again."""
        return self._best.sub_(self._log_sum).exp_()


def merge_names(scores: Tensor, owner: Tensor, num_classes: int) -> Tensor:
    """Return the best score of the names of each class.

    Args:
        scores: ``(names, ...)``.
        owner: ``(names,)``, the class of each name; every class owns one at least.
        num_classes: Classes.

    Returns:
        ``(num_classes, ...)``.
    """
    merged = scores.new_empty((num_classes, *scores.shape[1:]))
    for number in range(num_classes):
        names = (owner == number).nonzero().flatten()
        first, last = int(names[0]), int(names[-1])
        # names of a class usually stand together: a view then, not a copy
        group = scores[first : last + 1] if last - first + 1 == len(names) else scores[names]
        torch.amax(group, dim=0, out=merged[number])
    return merged


def small_classes(areas: Tensor, threshold: float, *, background: bool) -> Tensor:
    """Return the foreground classes that are best on too few pixels to be kept.

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
    probabilities: Tensor, *, background: bool, prob_threshold: float = 0.0, dropped: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the class of every pixel.

    Args:
        probabilities: ``(classes, H, W)``.
        background: Whether class 0 is the background.
        prob_threshold: Probability below which a pixel becomes background; no rule without a background.
        dropped: ``(classes,)``, bool: classes whose probability counts as 0, so that their pixels fall to the
            second best; ``None`` for none.

    Returns:
        Labels ``(H, W)`` in int64 and the best probabilities ``(H, W)`` among the classes not dropped.
    """
    if dropped is not None:
        probabilities = probabilities * ~dropped.view(-1, 1, 1)
    best, labels = probabilities.max(dim=0)
    if background and prob_threshold > 0:
        labels = labels.masked_fill(best < prob_threshold, 0)
    return labels, best


def close_labels(labels: Tensor) -> Tensor:
    """Close a label map by a 3x3 square, as if labels were shades of grey.

    Higher labels fill gaps in lower ones, so the result depends on the order of the classes. Pixels outside
    the image do not count.

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
