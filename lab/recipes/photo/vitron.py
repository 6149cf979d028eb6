# SPDX-License-Identifier: Apache-2.0
"""The small vision LLM on turns about composites, beside baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photoworld import PALETTE
from shapeworld import Split
from shapeworld.vocabulary import COLOURS
from vitron.model.engine import Vitron
from vitron.protocol.contract import Region
from vitron.protocol.regions.raster import rasterise
from vitron.specialists import Action, Request
from vitron.specialists.mask_head import fits_region
from vitron.specialists.random_walker import segment_region

from recipes.photo.itaclip import nearest
from recipes.photo.tables import Table, Values
from recipes.vitron_tiny.baseline import KeywordRouter, commonest_answers
from recipes.vitron_tiny.commands import ASSETS
from recipes.vitron_tiny.composites import EDITS, KINDS, Asked, ask
from recipes.vitron_tiny.evaluation import Judged, ShippedModel
from recipes.vitron_tiny.evaluation import judge as answer

Bool = NDArray[np.bool_]

RADIUS = 0.45  # of the rule by colour, of RGB in [0, 1]
OURS = "vitron-tiny"
MASK_HEAD = "its mask head alone"


def judge(seeds: Sequence[int], count: int = 20, model: Path = ASSETS, split: Split = "test") -> list[Table]:
    """Let a model, by default the shipped one, answer fresh turns about composites.

    Args:
        seeds: Seeds of the composites.
        count: Turns of each kind for each seed.
        model: Folder of the model.
        split: Split of cut-outs and photographs.
    """
    asked = [
        one
        for seed in seeds
        for kind in KINDS
        for index in range(count)
        if (one := ask(kind, seed, index, split=split))
    ]
    turns = [one.drawn for one in asked]
    known = {id(one.drawn.example): one for one in asked}
    shipped = ShippedModel(Vitron.from_pretrained(model, device="cpu", dtype="float32"))
    ours = _by_kind(answer(shipped, turns, execute=False), known)
    router = _by_kind(answer(KeywordRouter(), turns, execute=False), known)
    return [*_masks(ours), *_calls(ours, router), *_words(ours)]


MARKS: dict[str, str] = {
    "mark by colour": "nearest colour",
    "mark by place": "largest thing, told the masks",
    "mark by name": "largest thing, told the masks",
    "mark by region": "the region as drawn",
    "track by colour": "nearest colour",
}
Pairs = dict[str, list[tuple[Asked, Judged]]]


def _by_kind(judged: Sequence[Judged], known: dict[int, Asked]) -> Pairs:
    found: Pairs = {kind: [] for kind in KINDS}
    for one in judged:
        own = known[id(one.drawn.example)]
        found[own.kind].append((own, one))
    for pairs in found.values():  # both models in one order
        pairs.sort(key=lambda pair: id(pair[0]))
    return found


def _masks(ours: Pairs) -> list[Table]:
    """Mean IoU of masks, over the frames of a video."""
    tables: list[Table] = []
    for kind, rule in MARKS.items():
        rows: dict[str, list[float]] = {rule: [], OURS: []}
        if kind == "mark by region":
            rows = {rule: [], MASK_HEAD: [], OURS: []}
        for asked, judged in ours[kind]:
            assert judged.masks is not None
            found, truth = judged.masks
            if asked.region is not None:
                rows[MASK_HEAD].append(100 * _iou(found, truth))
                found = _installed(asked, asked.region, found[0])[None]
            rows[OURS].append(100 * _iou(found, truth))
            rows[rule].append(100 * _iou(_ruled(asked, truth), truth))
        tables.append(_table(f"mean IoU, %: {kind}", rows))
    return tables


def _installed(asked: Asked, region: Region, found: Bool) -> Bool:
    """Return the mask that a user gets: of the next specialist where the mask head's does not fit."""
    media = asked.view.media
    action, drawn = Action("segment", "this"), rasterise(region, *media.size)
    request = Request(module="image_segmentation", actions=(action,), media=media, mask=drawn, region=region)
    if found.any() and fits_region(found, request):
        return found
    return segment_region(media.frames[0], region)


def _ruled(asked: Asked, truth: Bool) -> Bool:
    """Return the mask of the baseline, ``(T, H, W)``."""
    if asked.region is not None:
        return rasterise(asked.region, *asked.view.media.size)[None]
    if asked.kind in ("mark by place", "mark by name"):
        return asked.view.masks[asked.view.masks.sum(axis=(1, 2, 3)).argmax()]
    assert asked.target is not None
    label = 1 + COLOURS.index(asked.view.scene.things[asked.target].colour)
    return np.stack([nearest(frame, RADIUS) == label for frame in asked.view.media.frames[: len(truth)]])


def _iou(found: Bool, truth: Bool) -> float:
    shares = [
        np.count_nonzero(one & other) / max(np.count_nonzero(one | other), 1) if (one | other).any() else 1.0
        for one, other in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def _calls(ours: Pairs, router: Pairs) -> list[Table]:
    """Exact calls of edits by colour, and of marks by name, whose nouns the model must copy."""
    kinds = {"edits by colour": [f"edit: {kind}" for kind in EDITS], "mark by name": ["mark by name"]}
    return [
        _table(
            f"exact calls, %: {title}",
            {
                name: [100.0 * judged.score.instructions for kind in chosen for _, judged in found[kind]]
                for name, found in (("keywords", router), (OURS, ours))
            },
        )
        for title, chosen in kinds.items()
    ]


def _words(ours: Pairs) -> list[Table]:
    captions = ours["region caption"]
    things = [asked.view.scene.things[asked.target or 0] for asked, _ in captions]
    said = [judged.reply.lower().rstrip(".").split() for _, judged in captions]
    colours = [thing.colour for thing in things]
    usual = Counter(colours).most_common(1)[0][0]
    guessed = [_mean_colour(asked) for asked, _ in captions]
    named = {
        "commonest colour": [100.0 * (colour == usual) for colour in colours],
        "nearest colour of the thing": [
            100.0 * (one == other) for one, other in zip(guessed, colours, strict=True)
        ],
        OURS: [100.0 * (colour in words[:-1]) for colour, words in zip(colours, said, strict=True)],
    }
    nouns = [100.0 * (words[-1:] == [thing.shape]) for thing, words in zip(things, said, strict=True)]
    return [
        _table("colour named, %: region captions", named),
        Table("name right, %: region captions", {OURS: Values(nouns)}, ours=OURS, unit="turns"),
        _questions(ours["question"]),
    ]


def _questions(asked: Sequence[tuple[Asked, Judged]]) -> Table:
    """Exact answers; the rule gives the commonest answer of each kind among training examples."""
    usual = commonest_answers("question")
    examples = [one.drawn.example for one, _ in asked]
    right = [100.0 * (usual.get(each.group) == each.messages[-1].text) for each in examples]
    ours = [100.0 * (judged.score.text and judged.score.modules) for _, judged in asked]
    return _table(
        "exact answers, %: questions in known words", {"commonest answer of the kind": right, OURS: ours}
    )


def _mean_colour(asked: Asked) -> str:
    """Return the palette's colour nearest to the mean of the thing."""
    pixels = asked.view.media.frames[0][asked.view.masks[asked.target or 0, 0]]
    away = {name: float(np.linalg.norm(pixels.mean(axis=0) / 255 - rgb)) for name, rgb in PALETTE.items()}
    return min(away, key=lambda name: away[name])


def _table(title: str, rows: dict[str, list[float]]) -> Table:
    baselines = tuple(name for name in rows if name != OURS)
    return Table(
        title,
        {name: Values(values) for name, values in rows.items()},
        ours=OURS,
        baselines=baselines,
        unit="turns",
    )
