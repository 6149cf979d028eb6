# SPDX-License-Identifier: Apache-2.0
"""``diffeat pck``: correspondence on SPair-71k, on its own test split or on the authors' list of pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from diffeat.cli.options import (
    Debug,
    Device,
    DtypeOption,
    Json,
    Model,
    Names,
    NumNoises,
    PresetOption,
    Seed,
    Size,
    Timestep,
    chosen_names,
    load_extractor,
    make_inputs,
)
from diffeat.cli.output import count, progress, say, show, user_errors

if TYPE_CHECKING:
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor
    from diffeat.pck import Pair


def pck(
    model: Model,
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT",
            help="Folder of SPair-71k (PairAnnotation, JPEGImages); with --list, of its pictures.",
            show_default=False,
        ),
    ],
    names: Names = None,
    preset: PresetOption = None,
    split: Annotated[
        Literal["trn", "val", "test"], typer.Option(help="Published figures are on test.")
    ] = "test",
    pair_list: Annotated[
        Path | None,
        typer.Option("--list", help="JSON list of the authors' 360 pairs, instead of a split."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many pairs, evenly spread; not comparable any more.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="For each image; {category} stands for what it shows.")
    ] = "a photo of a {category}",
    side: Annotated[int, typer.Option(min=1, help="Cells that features are brought to.")] = 512,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Largest distance of a hit; may be repeated. [0.1]")
    ] = None,
    keep: Annotated[int, typer.Option(min=2, help="Images whose features are held at a time.")] = 64,
    t: Timestep = 50,
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Measure PCK by nearest neighbours, without any training.

    The full test split has 12,234 pairs; published figures are on it unless they
    say otherwise. The paper's script takes a list of 360 pairs: the two do not
    compare, so they have different names here.

    [bold]Examples[/bold]

      diffeat pck path/to/sd21 SPair-71k -n up-level1-upsampler-out -t 261 \
        --num-noises 8 --size 768

      diffeat pck path/to/sdxl SPair-71k/JPEGImages --list pairs.json -p Ours-XL

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.pck import SPAIR_PAIRS, evaluate_pairs, read_pair_list, read_spair

        wanted = chosen_names(names, preset)
        pairs = read_spair(root, split) if pair_list is None else read_pair_list(pair_list, root)
        protocol = f"list of {len(pairs)} pairs"
        if pair_list is None:
            protocol = f"SPair-71k {split}, {len(pairs)} pairs"
            if len(pairs) != SPAIR_PAIRS[split]:
                protocol += f" of its {SPAIR_PAIRS[split]:,}: not comparable"
        if limit is not None and limit < len(pairs):
            pairs = _spread(pairs, limit)
            protocol += f", {limit} of them"
        inputs = make_inputs(t=t, prompt="", size=size, seed=seed, num_noises=num_noises, batch_size=1)
        extractor = load_extractor(model, device=device, dtype=dtype)
        arguments = inputs.recipe.arguments()
        features = _features(extractor, wanted, prompt, arguments, keep)
        # pairs of one category share images
        pairs = sorted(pairs, key=lambda pair: pair.category)
        with progress("pairs") as bar:
            found = evaluate_pairs(pairs, features, side=side, thresholds=threshold or (0.1,), on_pair=bar)
        rows = [
            {
                "threshold": key[0],
                "against": key[1],
                "per_point": score.per_point,
                "per_image": score.per_image,
                "by_category": score.by_category,
            }
            for key, score in found.items()
        ]
    if json_output:
        typer.echo(json.dumps({"protocol": protocol, "pairs": len(pairs), "pck": rows}))
        return
    table = Table("PCK", "against", "per point", "per image", title=protocol)
    for row in rows:
        table.add_row(
            f"@{row['threshold']:g}",
            str(row["against"]),
            f"{row['per_point']:.4f}",
            f"{row['per_image']:.4f}",
        )
    show(table)
    say(f"{count(len(pairs), 'pair')} judged")


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _features(
    extractor: FeatureExtractor, names: list[str], prompt: str, arguments: dict[str, Any], keep: int
) -> Callable[[Path, str], Tensor]:
    """Concatenated features of an image, the last ones kept."""

    @lru_cache(keep)
    def features(path: Path, category: str) -> Tensor:
        text = prompt.replace("{category}", category)
        return extractor([path], names, prompt=text, **arguments).concat()[0]

    return features
