# SPDX-License-Identifier: Apache-2.0
"""Segments scenes by the rows of the study and keeps every figure, so that a cut loses one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, TypedDict

import torch
from itaclip import ITACLIP
from itaclip.encoder import build_encoder
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.features import WindowEncoder
from itaclip.inputs import Normalizer
from itaclip.loading import load_clip
from itaclip.text.classes import ClassList
from itaclip.text.embed import text_features
from rich.progress import Progress
from shapeworld import Split
from torch import Tensor

from recipes.segmentation.memory import RememberingEncoder
from recipes.segmentation.prior import PriorITACLIP, PriorWindows
from recipes.segmentation.rows import Row
from recipes.segmentation.scenes import CLASSES, Kind, Sample, View, draw
from recipes.segmentation.texts import Aux, auxiliary
from recipes.tiny_clip.ship import WEIGHTS


class Figures(TypedDict):
    """What one row gave on the scenes of one seed, in per cent.

    Attributes:
        miou: Mean over the classes and the ground of intersection over union.
        found: Share of the things' pixels that got their class.
        ground: Intersection over union of the ground.
        seconds: Time it took, beyond what was remembered.
    """

    miou: float
    found: float
    ground: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """One figure that is wanted.

    Attributes:
        row: Configuration of the segmentation.
        kind: Which classes.
        view: View of the scenes.
        seed: Random seed of the scenes.
    """

    row: Row
    kind: Kind
    view: View
    seed: int


class Bench:
    """A model and the rows it was measured by.

    Args:
        folder: The model, in open_clip's format.
        scenes: In each sample.
        results: File of one JSON object a line that is read at the start and added to; none if ``None``.
        split: Split of the world.
        draw: Draws a sample; another world than shapeworld keeps no results.
        device: Where the model computes.
    """

    def __init__(
        self,
        folder: Path,
        scenes: int,
        results: Path | None = None,
        split: Split = "test",
        draw: Callable[[View, int, int, Split], Sample] = draw,
        device: str = "cpu",
    ) -> None:
        self.model, self.tokenizer = load_clip(folder, device=device, dtype="float32")
        self.sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        self.scenes, self.results, self.split = scenes, results, split
        self.encoder = RememberingEncoder(build_encoder(self.model).tower)
        self.normalizer = Normalizer(self.model)
        self._known: dict[str, Figures] = dict(_read(results))
        self._text = lru_cache(maxsize=64)(self._embed)
        self._draw = lru_cache(maxsize=8)(draw)

    def measure(self, jobs: Sequence[Job], progress: Progress | None = None) -> dict[Job, Figures]:
        """Return the figures of all jobs; those of one sample are best asked for together.

        Args:
            jobs: What is wanted; what is known already is not measured again.
            progress: Progress display.
        """
        wanted = [job for job in dict.fromkeys(jobs) if self._key(job) not in self._known]
        task = None if progress is None else progress.add_task("rows", total=len(wanted))
        samples = dict.fromkeys((job.view, job.seed) for job in wanted)
        for view, seed in samples:
            sample = self._draw(view, seed, self.scenes, self.split)
            if self.encoder.is_crowded:
                self.encoder.forget()
            for job in _neighbours_together(job for job in wanted if (job.view, job.seed) == (view, seed)):
                self._keep(job, self.score(job.row, job.kind, sample))
                if progress is not None and task is not None:
                    progress.advance(task)
        return {job: self._known[self._key(job)] for job in jobs}

    def score(self, row: Row, kind: Kind, sample: Sample) -> Figures:
        """Segment a sample and compare it with the truth."""
        begin = perf_counter()
        matrix = self.confusions(row, kind, sample).sum(dim=0)
        scores = Scores(matrix, ("ground", *CLASSES[kind]))
        things = matrix[1:]
        return Figures(
            miou=round(scores.mean_iou, 4),
            found=round(float(100 * things[:, 1:].diagonal().sum() / things.sum()), 4),
            ground=round(float(scores.iou[0]), 4),
            seconds=round(perf_counter() - begin, 2),
        )

    def confusions(self, row: Row, kind: Kind, sample: Sample) -> Tensor:
        """Segment a sample; return the counts of each image by true and found class, ``(B, K, K)``."""
        segmenter = self.segmenter(row, kind)
        results = zip(segmenter.stream(sample.images), sample.truth[kind], strict=True)
        return torch.stack(
            [confusion(result.labels, truth, len(segmenter.class_names)) for result, truth in results]
        )

    def segmenter(self, row: Row, kind: Kind) -> ITACLIP:
        """Return what segments by a row, its classes set, on the common tower."""
        if row.prior is None:
            segmenter = ITACLIP(self.model, self.tokenizer, row.config)
            segmenter.windows = WindowEncoder(self.encoder, self.normalizer, row.config)
        else:
            windows = PriorWindows(self.encoder, self.normalizer, row.config, row.prior)
            segmenter = PriorITACLIP(
                self.model, self.tokenizer, row.config, row.prior, windows=windows, pool=self.encoder.pooled
            )
        classes = ClassList.build(CLASSES[kind], background=row.background)
        return segmenter.set_text_features(
            self._text(kind, row.background, row.templates, row.aux, row.config.alpha if row.aux else 0.0),
            classes,
        )

    def _embed(
        self,
        kind: Kind,
        background: tuple[str, ...],
        templates: str | tuple[str, ...],
        aux: Aux | None,
        alpha: float,
    ) -> Tensor:
        classes = ClassList.build(CLASSES[kind], background=background)
        texts = None if aux is None else auxiliary(kind, aux)
        return text_features(self.model, self.tokenizer, classes, texts, alpha, templates=templates)

    def _key(self, job: Job) -> str:
        row = job.row
        facts = {
            "model": self.sha256,
            "scenes": [self.split, self.scenes, job.seed, job.view],
            "classes": CLASSES[job.kind],
            "config": row.config.to_dict(),
            "prior": None if row.prior is None else asdict(row.prior),
            "texts": [row.background, row.templates, auxiliary(job.kind, row.aux) if row.aux else None],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]

    def _keep(self, job: Job, figures: Figures) -> None:
        key = self._key(job)
        self._known[key] = figures
        if self.results is None:
            return
        self.results.parent.mkdir(parents=True, exist_ok=True)
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **figures}) + "\n")


def _read(results: Path | None) -> Iterator[tuple[str, Figures]]:
    if results is None or not results.exists():
        return
    for line in results.read_text("utf-8").splitlines():
        try:
            stored: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:  # the run was cut while it wrote
            continue
        yield stored.pop("key"), Figures(**stored)


def _neighbours_together(jobs: Iterable[Job]) -> list[Job]:
    """Sort jobs so that rows of one encoding follow each other, those with the common windows first."""
    rows: dict[Row, list[Job]] = {}
    for job in jobs:
        rows.setdefault(job.row, []).append(job)
    order = sorted(rows, key=lambda row: -row.config.stride)
    return [job for row in order for job in rows[row]]
