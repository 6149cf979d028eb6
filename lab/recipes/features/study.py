# SPDX-License-Identifier: Apache-2.0
"""The study: rank, choose, judge on fresh images, and hold the paper's claims against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from diffeat import ActivationName, ExtractionOptions
from diffeat.ranking import PropertyReport, Ranking, measure_properties

from recipes.features.bench import TIMESTEP, Bench, Report
from recipes.features.claims import by_depth, by_kind, by_region, correlations, filter_rows
from recipes.features.scenes import KINDS, SIDE, Kind, draw_masks
from recipes.features.sets import LATENT, LEGACY, PAPER, PIXELS, channels_of, generic
from recipes.features.stereo import judge_stereo
from recipes.gates import bound

# images for ranking, for judging and for measuring have nothing in common
RANK_SEED, FRESH_SEED, LOOK_SEED = 300, 400, 500
Sets = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a study found.

    Attributes:
        rankings: Ranking of all activations by kind of labels.
        chosen: Sets by title; those chosen for a kind of labels are called by it.
        judged: Scores on fresh images: kind, then title of the set, then one per seed.
        looks: Label-free measures.
        stereo: Figures on the real pair.
    """

    rankings: dict[Kind, Ranking]
    chosen: Sets
    judged: dict[Kind, dict[str, list[float]]]
    looks: PropertyReport
    stereo: dict[str, Any]


def run_study(bench: Bench, kinds: Sequence[Kind] = KINDS, *, report: Report = lambda line: None) -> Found:
    """Rank all activations, choose sets, and judge these on fresh images.

    Args:
        bench: Model and sizes.
        kinds: Kinds of labels.
        report: Called with a line about each step.
    """
    rankings: dict[Kind, Ranking] = {}
    chosen: Sets = {"legacy": LEGACY, "paper": PAPER, "latent": LATENT, PIXELS: (PIXELS,)}
    for kind in kinds:
        ranker = bench.ranker(kind, RANK_SEED, bench.sizes.images)
        rankings[kind] = ranker.rank(
            bench.names,
            on_score=lambda done, total, name, kind=kind: report(f"{kind}: {done} of {total}, {name}"),
        )
        budget = channels_of(rankings[kind], LEGACY)
        steps = ranker.select(
            bench.names,
            channels=budget,
            candidates=bench.sizes.candidates,
            on_score=lambda done, total, name, kind=kind: report(f"{kind}, sets: {done} of {total}"),
        )
        chosen[f"for {kind}"] = steps.rows[-1].names
    chosen["for all"] = generic(rankings, channels_of(rankings[kinds[0]], LEGACY))
    judged = judge(bench, kinds, chosen, report)
    looks = measure_properties(
        bench.extractor,
        draw_masks("shape", LOOK_SEED, bench.sizes.measured).images,
        bench.names,
        ExtractionOptions(timesteps=(TIMESTEP,), size=SIDE),
        on_name=lambda done, total: report(f"properties: {done} of {total}"),
    )
    report("stereo pair")
    stereo = judge_stereo(bench.extractor, chosen)
    return Found(rankings, chosen, judged, looks, stereo)


def judge(
    bench: Bench, kinds: Sequence[Kind], sets: Sets, report: Report
) -> dict[Kind, dict[str, list[float]]]:
    """Judge sets on images that none of them was chosen on."""
    taken = list(dict.fromkeys(name for names in sets.values() for name in names))
    judged: dict[Kind, dict[str, list[float]]] = {kind: {title: [] for title in sets} for kind in kinds}
    for kind in kinds:
        for seed in range(FRESH_SEED, FRESH_SEED + bench.sizes.seeds):
            ranker = bench.ranker(kind, seed, bench.sizes.fresh, taken)
            for title, names in sets.items():
                judged[kind][title].append(ranker.evaluate(names).mean)
            report(f"{kind}: judged on fresh images of seed {seed}")
    return judged


def gain(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the mean difference over seeds, and the lower bound of its 95 % interval.

    Args:
        ours: Scores of one set, one per seed of images.
        theirs: Scores of the other one on the same images.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return {"mean": fmean(differences), "lower": bound(differences)}


def misses(judged: Mapping[Kind, Mapping[str, Sequence[float]]], kinds: Sequence[Kind]) -> list[str]:
    """Return a sentence for each kind on which the ranked selection does not beat the legacy one.

    Args:
        judged: Scores on fresh images.
        kinds: Kinds of labels.
    """
    failures: list[str] = []
    for kind in kinds:
        found = gain(judged[kind][f"for {kind}"], judged[kind]["legacy"])
        if found["lower"] <= 0:
            failures.append(
                f"{kind}: the ranked selection beats the legacy one by {found['mean']:.4f}, with its 95 % "
                f"bound {found['lower']:.4f}"
            )
    return failures


def to_card(bench: Bench, found: Found) -> dict[str, Any]:
    """Return everything that was measured as JSON values."""
    names = [ActivationName.parse(name) for name in bench.names]
    rankings: dict[str, Ranking] = dict(found.rankings.items())
    return {
        "timestep": TIMESTEP,
        "side": SIDE,
        "sizes": asdict(bench.sizes),
        "num_activations": bench.every,
        "num_spatial": len(bench.names),
        "rankings": {
            kind: [
                {
                    "name": row.names[0],
                    "mean": round(row.mean, 5),
                    "deviation": round(row.deviation, 5),
                    "channels": row.channels,
                    "flop_share": round(bench.shares[row.names[0]] or 0.0, 4),
                    "family": row.family,
                }
                for row in ranking.rows
            ]
            for kind, ranking in found.rankings.items()
        },
        "sets": {title: list(each) for title, each in found.chosen.items()},
        "judged": found.judged,
        "gain_over_legacy": {
            kind: {title: gain(scores, by_set["legacy"]) for title, scores in by_set.items()}
            for kind, by_set in found.judged.items()
        },
        "properties": {
            "by_region": by_region(found.looks.rows),
            "by_kind": by_kind(found.looks.rows),
            "self_q_by_depth": by_depth(found.looks.rows, "self-q"),
            "block_out_by_depth": by_depth(found.looks.rows, "out"),
            "correlation_with_scores": correlations(found.looks.rows, rankings),
        },
        "filters": filter_rows(names, rankings),
        "stereo": found.stereo,
    }
