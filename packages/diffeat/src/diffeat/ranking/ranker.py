# SPDX-License-Identifier: Apache-2.0
"""Ranks activations by a user's own labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffeat.features import Features
from diffeat.names.grammar import Names
from diffeat.options import ExtractionOptions, RankingOptions
from diffeat.ranking.labels import KeypointLabels, MaskLabels
from diffeat.ranking.report import Ranked, Ranking
from diffeat.ranking.scores import ScoreBook
from diffeat.ranking.sources import Candidate, MemorySource, ModelSource, Source, StoreSource
from diffeat.ranking.tasks import KeypointTask, MaskTask, Task
from diffeat.store.store import FeatureStore

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

OnScore = Callable[[int, int, str], None]


class Ranker:
    """Scores activations by a probe on labelled pixels, or by labelled points, on held-out images.

    A score is the mean over folds of images, so that no image is used for training and test. With a folder,
    every score is saved at once and nothing is computed twice.

    Args:
        source: A model, a store that holds the images, or features of them.
        labels: Masks or keypoints.
        ranking: Options of the scores.
        extraction: Options of the extraction by a model. A store is searched for its prompt; its seed is also
            that of folds, pixels and weights.
        folder: Folder in which scores are kept.
        memory: Bytes of features that may be held at a time; a model runs once for each such part.
        batch_size: Images per pass.
        device: Device on which MLPs learn.
        overwrite: Whether to discard scores that an earlier run left in the folder.

    Raises:
        StoreError: If the folder holds scores of other labels, features or settings.
        ValueError: If there are more folds than images.

    Examples:
        >>> labels = MaskLabels.read("images", "masks")  # doctest: +SKIP
        >>> ranking = Ranker(extractor, labels, folder="scores").rank("up-*")  # doctest: +SKIP
        >>> ranking.rows[0].names  # doctest: +SKIP

    Source: arXiv 2410.03558, Sec. 5 and App. D, where each activation is judged alone by label-scarce
    segmentation; the forward selection is ours.
    """

    def __init__(
        self,
        source: FeatureExtractor | FeatureStore | Features | Source,
        labels: MaskLabels | KeypointLabels,
        *,
        ranking: RankingOptions | None = None,
        extraction: ExtractionOptions | None = None,
        folder: str | Path | None = None,
        memory: int = 1 << 30,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
        overwrite: bool = False,
    ) -> None:
        self.options, extraction = ranking or RankingOptions(), extraction or ExtractionOptions()
        self.task: Task
        if isinstance(labels, MaskLabels):
            self.task = MaskTask(labels, self.options, seed=extraction.seed, device=device)
        else:
            self.task = KeypointTask(labels, self.options, seed=extraction.seed)
        self.source = _source(source, labels, extraction, batch_size)
        self.memory = memory
        self.folder = folder
        self._key = {"features": self.source.digest, **self.task.key}
        self._book = ScoreBook(folder, self._key, overwrite=overwrite)

    def rank(self, names: Names = "*", *, on_score: OnScore | None = None) -> Ranking:
        """Score each activation alone.

        Args:
            names: Names, globs or presets; maps and text tokens are skipped.
            on_score: Called after each activation with activations done, all of them, and its name.

        Returns:
            The activations, best first.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        candidates = self.source.candidates(names)
        self._judge([(each,) for each in candidates], on_score)
        rows = [self._row((each,)) for each in candidates]
        # equal scores stay in execution order
        rows.sort(key=lambda row: -row.mean)
        return Ranking(tuple(rows), self.task.metric, dict(self._key))

    def select(
        self,
        names: Names = "*",
        *,
        channels: int,
        candidates: int = 20,
        min_gain: float = 0.0,
        on_score: OnScore | None = None,
    ) -> Ranking:
        """Choose the best set of activations, one after the other.

        Starts with the best and adds the one with the largest gain each time, as long as it fits the budget
        and gains more than ``min_gain``.

        Args:
            names: Activations to choose from.
            channels: Budget, the largest number of channels in all.
            candidates: Number of best single activations that are tried.
            min_gain: Least gain in the mean for another activation.
            on_score: Called after each scored set.

        Returns:
            A row for each step: the set so far, its score and cost; the last one is the selection.

        Raises:
            LookupError: If a pattern matches nothing.
            ValueError: If no activation fits the budget.
        """
        listed = {each.name: each for each in self.source.candidates(names)}
        self.check_budget(names, channels)
        single = self.rank(names, on_score=on_score)
        pool = [listed[row.names[0]] for row in single.rows if row.channels <= channels][:candidates]
        chosen: tuple[Candidate, ...] = (pool.pop(0),)
        steps = [self._row(chosen)]
        while True:
            left = channels - sum(each.channels for each in chosen)
            trials = [(*chosen, each) for each in pool if each.channels <= left]
            self._judge(trials, on_score)
            means = [self._row(trial).mean for trial in trials]
            if not trials or max(means) <= steps[-1].mean + min_gain:
                return Ranking(tuple(steps), self.task.metric, dict(self._key))
            chosen = trials[means.index(max(means))]
            pool.remove(chosen[-1])
            steps.append(self._row(chosen))

    def check_budget(self, names: Names, channels: int) -> None:
        """Refuse a budget that no activation fits.

        Args:
            names: Activations to choose from.
            channels: Most channels in all.

        Raises:
            LookupError: If a pattern matches nothing.
            ValueError: If the budget is too small.
        """
        least = min(each.channels for each in self.source.candidates(names))
        if channels < least:
            raise ValueError(f"channels must hold at least one activation, {least} channels, got {channels}")

    def evaluate(self, names: Names) -> Ranked:
        """Score activations together, such as a preset.

        Args:
            names: Names, globs or presets.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        group = tuple(self.source.candidates(names))
        self._judge([group], None)
        return self._row(group)

    def _row(self, group: Sequence[Candidate]) -> Ranked:
        names = [each.name for each in group]
        scores = [self._book.get(names, fold) for fold in range(self.options.folds)]
        known = [score for score in scores if score is not None]
        shares = [each.flop_share for each in group if each.flop_share is not None]
        return Ranked(
            names=tuple(names),
            mean=fmean(known),
            deviation=stdev(known) if len(known) > 1 else 0.0,
            scores=tuple(known),
            channels=sum(each.channels for each in group),
            bytes=sum(each.bytes for each in group),
            # one pass returns all: it costs as much as the last of them
            flop_share=max(shares) if len(shares) == len(group) else None,
            family=group[0].family if len(group) == 1 else "set",
        )

    def _judge(self, groups: Sequence[tuple[Candidate, ...]], on_score: OnScore | None) -> None:
        """Fill in missing scores."""
        folds = range(self.options.folds)
        missing = [
            group
            for group in groups
            if any(self._book.get([each.name for each in group], fold) is None for fold in folds)
        ]
        done = len(groups) - len(missing)
        for part in self._parts(missing):
            held = self._gather(sorted({each.name for group in part for each in group}))
            for group in part:
                names = [each.name for each in group]
                together = torch.cat([held[name] for name in names], dim=1)
                for fold in folds:
                    if self._book.get(names, fold) is None:
                        self._book.add(names, fold, self.task.score(together, fold))
                done += 1
                if on_score is not None:
                    on_score(done, len(groups), " + ".join(names))

    def _parts(self, groups: Sequence[tuple[Candidate, ...]]) -> Iterator[list[tuple[Candidate, ...]]]:
        """Split the work so that the features of a part fit the memory, or belong to one group."""
        part: list[tuple[Candidate, ...]] = []
        held: dict[str, int] = {}
        for group in groups:
            sizes = {each.name: 2 * each.channels * self.task.cells * self.task.num_images for each in group}
            if part and sum((held | sizes).values()) > self.memory:
                yield part
                part, held = [], {}
            part.append(group)
            held |= sizes
        if part:
            yield part

    def _gather(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the task's input for all images: ``(images, C, ...)`` in half precision."""
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        first = 0
        for batch in self.source.batches(names):
            count = 0
            for name in names:
                reduced = self.task.reduce(batch[name].float(), first)
                parts[name].append(_halved(reduced))
                count = len(reduced)
            first += count
        if first != self.task.num_images:
            raise ValueError(f"features must be of the {self.task.num_images} labelled images, got {first}")
        return {name: torch.cat(values) for name, values in parts.items()}


def _halved(values: Tensor) -> Tensor:
    """Return half precision, or unchanged values if it would overflow."""
    half = values.half()
    return values if bool(half.isinf().any()) else half


def _source(
    source: FeatureExtractor | FeatureStore | Features | Source,
    labels: MaskLabels | KeypointLabels,
    extraction: ExtractionOptions,
    batch_size: int,
) -> Source:
    from diffeat.extractor import FeatureExtractor

    if isinstance(source, FeatureExtractor):
        return ModelSource(source, labels.images, options=extraction, batch_size=batch_size)
    if isinstance(source, FeatureStore):
        return StoreSource(source, labels.images, prompt=extraction.prompt, batch_size=batch_size)
    return MemorySource(source) if isinstance(source, Features) else source
