# SPDX-License-Identifier: Apache-2.0
"""``diffeat pck``: correspondence on SPair-71k, on its own test split or on the authors' list of pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.cli import Device, Report, emit, explain, progress, show, warn
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Matching, Selection, load_extractor, note, plural

if TYPE_CHECKING:
    from diffeat.pck import PCK, Against, Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class PairExtraction(Extraction):
    """Options of an extraction for images of known categories.

    Attributes:
        prompt: Prompt of each image; {category} is replaced by its category.
    """

    prompt: str = "a photo of a {category}"


@Parameter(name="*", group=Group("Pairs", sort_key=3))
@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of images, and their scoring.

    Attributes:
        split: Split of SPair-71k; published figures are on test.
        list: JSON list of the authors' 360 pairs, instead of a split.
        limit: Number of pairs, evenly spread over all; results are then not comparable.
        side: Cells per side to which features are resized.
        rounded: Whether to round as the authors' code: a point of the source to the next whole cell, a cell
            found to its corner.
        threshold: Largest distance of a hit, in larger sides; may be repeated.
        keep: Number of images whose features are held in memory.
    """

    split: Literal["trn", "val", "test"] = "test"
    list: Path | None = None
    limit: int | None = None
    side: int = 512
    rounded: Annotated[bool, Parameter(negative="")] = False
    threshold: tuple[float, ...] = (0.1,)
    keep: int = 64

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("side", 1), ("keep", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}, got {value}")


def pck(
    root: Path,
    /,
    *,
    selection: Selection = Selection(),
    pairs: Pairs = Pairs(),
    matching: Matching = Matching(),
    options: PairExtraction = PairExtraction(),
    machine: Device = Device(),
    model: str = "tiny-sdxl",
    report: Report = Report(),
) -> int:
    """Measure PCK by nearest neighbours, without any training or through a trained head.

    The full test split has 12,234 pairs; published figures refer to it unless stated otherwise. The
    paper's script uses a list of 360 pairs: the two are not comparable and have different names here.

    **Examples**

        diffeat pck SPair-71k --model path/to/sd21 -n up-level1-upsampler-out -t 261 --num-noises 8 --size 768
        diffeat pck SPair-71k/JPEGImages --list pairs.json --model path/to/sdxl -p Ours-XL --rounded
        diffeat pck SPair-71k --model path/to/sd15 --head hyper/head.safetensors --window 15

    Args:
        root: Folder of SPair-71k (PairAnnotation, JPEGImages), or of its images with --list.
        model: Shipped name, folder or hub id of a pipeline.
    """
    head, names, plain = matching.reading(selection, options)
    from diffeat.pck import evaluate_pairs, pair_features

    left_out: set[str] = set()

    def on_error(name: str, error: Exception) -> None:
        left_out.add(name)
        warn(f"pair {name} is left out: {explain(error)}")

    chosen, protocol = _read_pairs(root, pairs, on_error)
    extractor = load_extractor(model, machine)
    features = pair_features(extractor, names, plain, head=head, keep=pairs.keep)
    with progress("pairs") as bar:
        found = evaluate_pairs(
            chosen,
            features,
            side=pairs.side,
            thresholds=pairs.threshold,
            soft=matching.soft(),
            is_rounded=pairs.rounded,
            on_pair=bar,
            on_error=lambda pair, error: on_error(pair.name, error),
        )
    if left_out:
        protocol += f", {plural(len(left_out), 'pair')} left out: not comparable"
    _report(found, protocol, sorted(left_out), json=report.json)
    return int(bool(left_out))


def _report(
    found: Mapping[tuple[float, Against], PCK], protocol: str, left_out: Sequence[str], *, json: bool
) -> None:
    """Show the scores of each threshold and reference."""
    count = next(iter(found.values())).pairs
    if json:
        rows = [
            {
                "threshold": threshold,
                "against": against,
                "per_point": score.per_point,
                "per_image": score.per_image,
                "by_category": score.by_category,
            }
            for (threshold, against), score in found.items()
        ]
        emit({"protocol": protocol, "pairs": count, "left_out": left_out, "pck": rows})
        return
    from rich.table import Table

    table = Table("PCK", "against", "per point", "per image", title=protocol)
    for (threshold, against), score in found.items():
        table.add_row(f"@{threshold:g}", against, f"{score.per_point:.4f}", f"{score.per_image:.4f}")
    show(table)
    note(f"{plural(count, 'pair')} scored")


def _read_pairs(
    root: Path, options: Pairs, on_error: Callable[[str, Exception], None]
) -> tuple[list[Pair], str]:
    """Return the pairs, grouped by category because they share images, and their title."""
    from diffeat.pck import SPAIR_PAIRS, read_pair_list, read_spair, spread

    if options.list is not None:
        pairs = read_pair_list(options.list, root, on_error=on_error)
        protocol = f"list of {len(pairs)} pairs"
    else:
        pairs = read_spair(root, options.split)
        protocol = f"SPair-71k {options.split}, {len(pairs)} pairs"
        if len(pairs) != SPAIR_PAIRS[options.split]:
            protocol += f" of its {SPAIR_PAIRS[options.split]:,}: not comparable"
    if options.limit is not None and options.limit < len(pairs):
        protocol += f", {options.limit} of them"
    return sorted(spread(pairs, options.limit), key=lambda pair: pair.category), protocol
