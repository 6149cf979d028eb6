# SPDX-License-Identifier: Apache-2.0
"""``diffeat rank``: activations ranked by labels of your own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from common_kernels.runtime.cli import Output, emit, progress, show, warn
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Machine, Selection, load_extractor, note, plural
from diffeat.options import RankingOptions

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.ranking.labels import KeypointLabels, MaskLabels
    from diffeat.ranking.ranker import Ranker
    from diffeat.ranking.report import Ranked, Ranking
    from diffeat.store.store import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOutput(Output):
    """Folder of the scores.

    Attributes:
        output: Folder of scores, ranking.json and ranking.png.
        overwrite: Discard earlier scores.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("diffeat-ranking")


@Parameter(name="*", group=Group("Sets", sort_key=4))
@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Classes, and sets to score besides single activations.

    Attributes:
        classes: Class name, in the order of the numbers in the masks; may be repeated.
        budget: Largest number of channels of a chosen set; without it no set is chosen.
        candidates: Number of best activations from which a set is chosen.
        compare: Preset or quoted glob scored as a set; may be repeated.
        top: Number of rows shown.
    """

    classes: list[str] = field(default_factory=list[str])
    budget: int | None = None
    candidates: int = 20
    compare: Annotated[list[str], Parameter(alias="-c")] = field(default_factory=list[str])
    top: int = 20

    def __post_init__(self) -> None:
        for name in ("candidates", "top"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")


def rank(
    images: Path,
    labels: Path,
    /,
    *,
    output: RankOutput = RankOutput(),
    selection: Selection = Selection(),
    ranking: Annotated[RankingOptions, Parameter(name="*", group=Group("Ranking", sort_key=3))] = (
        RankingOptions()
    ),
    sets: Sets = Sets(),
    options: Extraction = Extraction(),
    machine: Machine = Machine(),
    model: str = "tiny-sdxl",
) -> None:
    """Rank every activation by labels of your own, best first.

    With masks the score of an activation is the mIoU of a small classifier of single pixels; with points it
    is the share found by nearest neighbours. Test images are never used for training. A run that was stopped
    resumes.

    **Examples**

        diffeat rank images/ masks/ --model path/to/sdxl -n "up-*" --classes sky --classes tree
        diffeat rank images/ masks/ --model path/to/sd15 --budget 3520 -c Legacy-v1.5 -c Ours-v1.5
        diffeat rank images/ points.json --model features/ --threshold 0.05

    Args:
        images: Folder of labelled images.
        labels: Folder of masks with the names of the images, a class number per pixel (255 is ignored), or a
            JSON file {"image": {"point": [x, y]}}.
        model: Shipped name, folder or hub id of a pipeline, or a store made by diffeat extract.
    """
    names = selection.chosen(default=["*"])
    from diffeat.ranking.ranker import Ranker

    known = _read_labels(images, labels, sets.classes)
    ranker = Ranker(
        _source(model, machine),
        known,
        ranking=ranking,
        extraction=options.plain(),
        folder=output.output,
        batch_size=machine.batch_size,
        overwrite=output.overwrite,
    )
    if sets.budget is not None:
        ranker.check_budget(names, sets.budget)  # checked before hours of ranking
    report = _Report(output.output, None if output.json else sets.top)
    report.judge_single(ranker, names)
    report.compare(ranker, sets.compare)
    if sets.budget is not None:
        report.select(ranker, names, sets.budget, sets.candidates)
    if output.json:
        emit({**report.content, "files": list(map(str, report.files))})
    note(f"{plural(len(report.content['ranking']), 'activation')} ranked; results in {output.output}")


def _read_labels(images: Path, labels: Path, classes: list[str]) -> MaskLabels | KeypointLabels:
    from diffeat.ranking.labels import KeypointLabels, MaskLabels

    if labels.suffix.lower() == ".json":
        if classes:
            raise ValueError("--classes needs masks, but the labels are points")
        return KeypointLabels.read(images, labels)
    return MaskLabels.read(images, labels, classes=classes)


def _source(model: str, machine: Machine) -> FeatureExtractor | FeatureStore:
    from diffeat.store.store import FeatureStore

    return FeatureStore(model) if FeatureStore.is_at(model) else load_extractor(model, machine)


class _Report:
    """Report of a ranking: tables on stdout or plain values for JSON, and files.

    Args:
        folder: Folder of the files.
        top: Rows of a table; no tables if ``None``.
    """

    def __init__(self, folder: Path, top: int | None) -> None:
        self.folder = folder
        self.top = top
        self.content: dict[str, Any] = {}
        self.files: list[Path] = []

    def judge_single(self, ranker: Ranker, names: list[str]) -> None:
        """Rank all activations alone."""
        with progress("activations") as bar:
            ranking = ranker.rank(names, on_score=lambda done, total, name: bar(done, total))
        self._write(ranking, "ranking.json")
        try:
            ranking.chart(self.folder / "ranking.png")
            self.files.append(self.folder / "ranking.png")
        except ImportError as error:
            warn(str(error))
        self.content |= {"metric": ranking.metric, "images": ranker.task.num_images}
        self.content["ranking"] = _plain(ranking.rows)
        self._show(ranking, f"each of {len(ranking.rows)} activations alone", self.top)

    def compare(self, ranker: Ranker, patterns: list[str]) -> None:
        """Score sets and compare them."""
        from diffeat.ranking.report import Ranking

        if not patterns:
            return
        rows = [ranker.evaluate(each) for each in patterns]
        self.content["compared"] = dict(zip(patterns, _plain(rows), strict=True))
        self._show(Ranking(tuple(rows), ranker.task.metric, {}), "sets to compare")

    def select(self, ranker: Ranker, names: list[str], budget: int, candidates: int) -> None:
        """Choose a set under a budget."""
        with progress("sets") as bar:
            selection = ranker.select(
                names,
                channels=budget,
                candidates=candidates,
                on_score=lambda done, total, name: bar(done, total),
            )
        self._write(selection, "selection.json")
        self.content["selection"] = _plain(selection.rows)
        self._show(selection, f"set of at most {budget} channels, step by step")

    def _write(self, ranking: Ranking, name: str) -> None:
        ranking.to_json(self.folder / name)
        self.files.append(self.folder / name)

    def _show(self, ranking: Ranking, title: str, top: int | None = None) -> None:
        if self.top is not None:
            show(ranking.table(top, title=title))


def _plain(rows: Iterable[Ranked]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        values = asdict(row)
        del values["scores"]
        found.append({**values, "mean": round(row.mean, 5), "deviation": round(row.deviation, 5)})
    return found
