# SPDX-License-Identifier: Apache-2.0
"""``diffeat rank``: which activations are worth taking for labels of your own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffeat.cli.options import (
    BatchSize,
    Debug,
    Device,
    DtypeOption,
    Json,
    Names,
    NumNoises,
    PresetOption,
    Prompt,
    Seed,
    Size,
    Timestep,
    chosen_names,
    load_extractor,
    make_inputs,
)
from diffeat.cli.output import count, progress, say, show, user_errors, warn

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.ranking import KeypointLabels, MaskLabels, Ranked, Ranker, Ranking
    from diffeat.store import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is to be found out: single activations, sets to compare, a selection."""

    names: Sequence[str]
    compare: Sequence[str]
    budget: int | None
    candidates: int


def rank(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or hub name of a pipeline, tiny-sdxl, or a store made by 'diffeat extract'.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    images: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="Folder of labelled pictures.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="Folder of masks with the pictures' names, a class number per pixel (255 is ignored); or a "
            'JSON file {"picture": {"point": \\[x, y]}}.',
            show_default=False,
        ),
    ],
    names: Names = None,
    preset: PresetOption = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of scores, ranking.json and ranking.png.")
    ] = Path("diffeat-ranking"),
    classes: Annotated[str | None, typer.Option(help="Names of the classes, between commas.")] = None,
    probe: Annotated[
        Literal["logistic", "mlp"],
        typer.Option(help="On masks: logistic regression, or the paper's ten MLPs (slow)."),
    ] = "logistic",
    folds: Annotated[int, typer.Option(help="Parts of the images; each judges once.")] = 5,
    pixels: Annotated[int, typer.Option(help="On masks: pixels drawn from each image.")] = 256,
    side: Annotated[int, typer.Option(help="On points: cells that features are brought to.")] = 64,
    threshold: Annotated[float, typer.Option(help="On points: largest distance of a hit, in sides.")] = 0.1,
    budget: Annotated[
        int | None, typer.Option(metavar="CHANNELS", help="Also choose a set of at most so many channels.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Best activations that a set is chosen from.")] = 20,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", "-c", help="A preset or quoted glob judged as a set; may be repeated."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows shown.")] = 20,
    t: Timestep = 50,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Judge every activation by labels of your own, best first.

    With masks an activation's figure is the mIoU of a small classifier of single
    pixels; with points it is the share found by nearest neighbours. Images that
    judge are never learned from. A run that was stopped goes on where it was.

    [bold]Examples[/bold]

      diffeat rank path/to/sdxl pictures/ masks/ -n "up-*" --classes "sky,tree"

      diffeat rank path/to/sd15 pictures/ masks/ --budget 3520 -c Legacy-v1.5 \
        -c Ours-v1.5

      diffeat rank features/ pictures/ points.json --threshold 0.05

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.ranking import Ranker, Setup

        wanted = chosen_names(names, preset) if names or preset else ["*"]
        setup = Setup(
            probe=probe, folds=folds, pixels=pixels, side=side, threshold=threshold, seed=seed, device="cpu"
        )
        inputs = make_inputs(
            t=t, prompt=prompt, size=size, seed=seed, num_noises=num_noises, batch_size=batch_size
        )
        known = _read_labels(images, labels, classes)
        ranker = Ranker(
            _source(model, device, dtype),
            known,
            setup=setup,
            recipe=inputs.recipe,
            prompt=prompt,
            folder=out,
            batch_size=batch_size,
        )
        wish = _Wish(names=wanted, compare=compare or (), budget=budget, candidates=candidates)
        report = _run(ranker, wish, out, None if json_output else top)
    if json_output:
        typer.echo(json.dumps(report))


def _read_labels(images: Path, labels: Path, classes: str | None) -> MaskLabels | KeypointLabels:
    from diffeat.ranking import KeypointLabels, MaskLabels

    if labels.suffix.lower() == ".json":
        if classes is not None:
            raise ValueError("--classes belongs to masks, but the labels are points")
        return KeypointLabels.read(images, labels)
    names = [part.strip() for part in (classes or "").split(",") if part.strip()]
    return MaskLabels.read(images, labels, classes=names)


def _source(model: str, device: str, dtype: str) -> FeatureExtractor | FeatureStore:
    from diffeat.store import FeatureStore

    return (
        FeatureStore(model)
        if FeatureStore.is_at(model)
        else load_extractor(model, device=device, dtype=dtype)
    )


def _run(ranker: Ranker, wish: _Wish, out: Path, top: int | None) -> dict[str, Any]:
    if wish.budget is not None:
        ranker.check_budget(wish.names, wish.budget)  # not after hours of ranking
    with progress("activations") as bar:
        ranking = ranker.rank(wish.names, on_score=lambda done, total, name: bar(done, total))
    ranking.to_json(out / "ranking.json")
    files = [out / "ranking.json", *_chart(ranking, out / "ranking.png")]
    report: dict[str, Any] = {"metric": ranking.metric, "images": ranker.task.num_images}
    report["ranking"] = [_plain(row) for row in ranking.rows]
    if top is not None:
        show(ranking.table(top, title=f"each of {len(ranking.rows)} activations alone"))
    compared = {each: ranker.evaluate(each) for each in wish.compare}
    if compared:
        report["compared"] = {each: _plain(row) for each, row in compared.items()}
        if top is not None:
            show(_as_ranking(ranking, compared.values()).table(title="sets to compare"))
    if wish.budget is not None:
        with progress("sets") as bar:
            selection = ranker.select(
                wish.names,
                channels=wish.budget,
                candidates=wish.candidates,
                on_score=lambda done, total, name: bar(done, total),
            )
        selection.to_json(out / "selection.json")
        files.append(out / "selection.json")
        report["selection"] = [_plain(row) for row in selection.rows]
        if top is not None:
            show(selection.table(title=f"set of at most {wish.budget} channels, step by step"))
    report["files"] = [str(file) for file in files]
    say(f"{count(len(ranking.rows), 'activation')} judged; look at {', '.join(report['files'])}")
    return report


def _as_ranking(like: Ranking, rows: Any) -> Ranking:
    from diffeat.ranking import Ranking

    return Ranking(tuple(rows), like.metric, like.settings)


def _chart(ranking: Ranking, path: Path) -> list[Path]:
    try:
        ranking.chart(path)
    except ImportError as error:
        warn(str(error))
        return []
    return [path]


def _plain(row: Ranked) -> dict[str, Any]:
    return {
        "names": list(row.names),
        "mean": round(row.mean, 5),
        "deviation": round(row.deviation, 5),
        "channels": row.channels,
        "bytes": row.bytes,
        "flop_share": row.flop_share,
        "family": row.family,
    }
