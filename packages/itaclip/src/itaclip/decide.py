# SPDX-License-Identifier: Apache-2.0
"""From patch scores to labels at the image's size, a band of rows and some classes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from itaclip.config import ITACLIPConfig
from itaclip.dense import Prepared, WindowMaps
from itaclip.functional import share_foreground
from itaclip.pamr import affinity, refine
from itaclip.results import Segmentation
from itaclip.rules import ClassScores, class_chunks, close_labels, label_pixels, small_classes
from itaclip.windows import WindowMerger, resize_rows

# numbers in the maps of names that are refined together, and in those of classes of one band: 64 and 512 MB
_NAME_NUMBERS = 2**24
_CLASS_NUMBERS = 2**27
_FEWEST_ROWS = 64


@dataclass(frozen=True, slots=True)
class Names:
    """What the scores are scores of.

    Attributes:
        labels: Display names of the classes.
        owner: Class of each name, ascending.
        background: Whether class 0 is the background.
    """

    labels: tuple[str, ...]
    owner: tuple[int, ...]
    background: bool


class Decision:
    """One image on its way from patch scores to labels.

    Args:
        prepared: The image.
        windows: Scores of its windows, ``(names, height, width)`` each.
        config: Refinement and rules.
    """

    def __init__(self, prepared: Prepared, windows: WindowMaps, config: ITACLIPConfig) -> None:
        self.prepared, self.config = prepared, config
        device = prepared.image.device
        self.merger = WindowMerger(prepared.plan, windows.grid, prepared.size, device=device)
        self.grids = self.merger.new_scores(len(windows.maps[0]))
        for index, window in enumerate(windows.maps):
            self.merger.place(self.grids, index, window)

    def add_prior(self, prior: Tensor, names: Names) -> None:
        """Let whole windows help to tell the foreground's names apart.

        Args:
            prior: ``(names, rows * height, columns * width)``, of all windows, as the scores are laid out.
            names: What the scores are scores of.
        """
        owner = torch.tensor(names.owner, device=self.grids.device)
        self.grids = share_foreground(
            self.grids,
            prior,
            owner >= int(names.background),
            weight=self.config.prior_weight,
            logit_scale=self.config.logit_scale,
        )

    def name_scores(self, top: int, bottom: int, chunks: list[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield refined scores of some rows, ``(names of a chunk, bottom - top, W)``.

        What refinement draws in from above and below is computed along and cut off, so bands fit together
        exactly.

        Args:
            top: First row.
            bottom: End of the rows.
            chunks: Half-open runs of names.
        """
        config, (height, _) = self.config, self.prepared.size
        halo = config.pamr_steps * max(config.pamr_dilations)
        first, last = max(0, top - halo), min(height, bottom + halo)
        weights = None
        if config.pamr_steps:
            image = resize_rows(self.prepared.image, self.prepared.size, first, last)
            weights = affinity(image, config.pamr_dilations)
        for start, stop in chunks:
            maps = self.merger.merge(self.grids[start:stop], top=first, bottom=last)
            if weights is not None:
                maps = refine(maps, weights, steps=config.pamr_steps, dilations=config.pamr_dilations)
            yield maps[:, top - first : bottom - first]

    def probabilities(self, top: int, bottom: int, names: Names) -> Tensor:
        """Return the probabilities of the classes in some rows, ``(classes, bottom - top, W)``."""
        width = self.prepared.size[1]
        halo = 2 * self.config.pamr_steps * max(self.config.pamr_dilations)
        chunks = class_chunks(names.owner, max(1, _NAME_NUMBERS // ((bottom - top + halo) * width)))
        collected = ClassScores(
            len(names.labels), (bottom - top, width), self.config.logit_scale, device=self.grids.device
        )
        for (start, stop), maps in zip(chunks, self.name_scores(top, bottom, chunks), strict=True):
            owner = torch.tensor(names.owner[start:stop]) - names.owner[start]
            collected.add(maps, owner)
        return collected.probabilities()

    def bands(self, num_classes: int) -> list[tuple[int, int]]:
        """Return the runs of rows that are worked on one after the other; one for usual images."""
        height, width = self.prepared.size
        rows = max(_FEWEST_ROWS, _CLASS_NUMBERS // (num_classes * width))
        return [(top, min(top + rows, height)) for top in range(0, height, rows)]

    def segment(self, names: Names, *, return_scores: bool) -> Segmentation:
        """Apply the rules and return labels.

        Args:
            names: What the scores are scores of.
            return_scores: Whether to keep the probabilities of all classes.
        """
        config, bands = self.config, self.bands(len(names.labels))
        whole = self.probabilities(*bands[0], names) if len(bands) == 1 else None
        dropped = self._dropped(names, bands, whole)
        labels: list[Tensor] = []
        best: list[Tensor] = []
        scores: list[Tensor] = []
        for top, bottom in bands:
            probabilities = self.probabilities(top, bottom, names) if whole is None else whole
            if return_scores:
                scores.append(probabilities.cpu())
            chosen, probability = label_pixels(
                probabilities, background=names.background, prob_thd=config.prob_thd, dropped=dropped
            )
            labels.append(chosen)
            best.append(probability.cpu())
        joined = torch.cat(labels)
        return Segmentation(
            labels=(close_labels(joined) if config.closing else joined).cpu(),
            probabilities=torch.cat(best),
            names=names.labels,
            background=names.background,
            scores=torch.cat(scores, dim=1) if return_scores else None,
        )

    def _dropped(self, names: Names, bands: list[tuple[int, int]], whole: Tensor | None) -> Tensor | None:
        """Return which classes the area rule drops, which takes a first look at every band."""
        if self.config.area_thd is None:
            return None
        areas = torch.zeros(len(names.labels), dtype=torch.int64, device=self.grids.device)
        for top, bottom in bands:
            probabilities = self.probabilities(top, bottom, names) if whole is None else whole
            areas += probabilities.argmax(dim=0).flatten().bincount(minlength=len(areas))
        return small_classes(areas, self.config.area_thd, background=names.background)
