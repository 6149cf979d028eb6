# SPDX-License-Identifier: Apache-2.0
"""Turns about composites for the small vision LLM: mark, caption, ask, edit, track; beside baselines.

The names of the cut-outs of the test split are unknown to it: what carries over is colour, place and form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from photoworld import PALETTE, draw_scene
from shapeworld import Scene, SceneConfig, render, scene_rng
from shapeworld.grid import WHOLE
from shapeworld.referring import EXTREMES
from shapeworld.videos import draw_video
from shapeworld.vocabulary import COLOURS
from shapeworld.words import choose
from vitron.model.engine import Vitron
from vitron.protocol.contract import Region
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import rasterise
from vitron.specialists import Action, Request
from vitron.specialists.mask_head import fits_region
from vitron.specialists.random_walker import segment_region

from recipes.photo.itaclip import nearest
from recipes.photo.tables import Table, Values
from recipes.vitron_tiny.baseline import KeywordRouter, commonest_answers
from recipes.vitron_tiny.commands import ASSETS
from recipes.vitron_tiny.composing import Composer, Drawn, Step, Subject
from recipes.vitron_tiny.editing import edit
from recipes.vitron_tiny.evaluation import Judged, ShippedModel
from recipes.vitron_tiny.evaluation import judge as answer
from recipes.vitron_tiny.images import extreme, prompt_region, region_caption, segment
from recipes.vitron_tiny.questions import question
from recipes.vitron_tiny.scenes import FRAMES, TINTS, Draw, View
from recipes.vitron_tiny.videos import track
from recipes.vitron_tiny.wordings import SEGMENT, TRACK, worded

Bool = NDArray[np.bool_]

SIDE = 64  # pixels: what the model sees
NUMBERS = SceneConfig(num_things=(0.0, 0.5, 0.3, 0.2), occlusion=0.0)
SMALLEST = 40  # pixels of a thing that is asked for
RADIUS = 0.45  # of the rule by colour, of RGB in [0, 1]
OURS = "vitron-tiny"
MASK_HEAD = "its mask head alone"
_PURPOSE, _TRIES = 81, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A turn, and what the baselines are told.

    Attributes:
        kind: Kind of turn.
        drawn: The turn.
        view: Image or video that it is about.
        target: Place of the thing that is meant in its scene; ``None`` without one.
        region: What the user drew on the thing to mark; ``None`` without a region.
    """

    kind: str
    drawn: Drawn
    view: View
    target: int | None = None
    region: Region | None = None


def judge(seeds: Sequence[int], count: int = 20) -> list[Table]:
    """Let the shipped model answer fresh turns about composites of the test split.

    Args:
        seeds: Seeds of the composites.
        count: Turns of each kind for each seed.
    """
    asked = [
        one for seed in seeds for kind in MAKERS for index in range(count) if (one := ask(kind, seed, index))
    ]
    turns = [one.drawn for one in asked]
    known = {id(one.drawn.example): one for one in asked}
    model = ShippedModel(Vitron.from_pretrained(ASSETS, device="cpu", dtype="float32"))
    ours = _by_kind(answer(model, turns, execute=False), known)
    router = _by_kind(answer(KeywordRouter(), turns, execute=False), known)
    return [*_masks(ours), *_calls(ours, router), *_words(ours)]


def ask(kind: str, seed: int, index: int) -> Asked | None:
    """Draw a turn of a kind; ``None`` where no composite allows one."""
    for attempt in range(_TRIES):
        rng = scene_rng(seed, index, _PURPOSE, list(MAKERS).index(kind), attempt)
        draw = Draw(seed=seed, number=index, rng=rng, split="test", phrasing="train", side=SIDE)
        scene = draw_scene(seed, index * _TRIES + attempt, split="test", config=NUMBERS)
        found = MAKERS[kind](draw, scene)
        if found is not None:
            return replace(found, kind=kind)
    return None


def _image(scene: Scene) -> View:
    rendering = render(scene, SIDE)
    return View(Artefact("image", rendering.image), rendering.visible()[:, None], scene, "drawn")


def _clip(draw: Draw, scene: Scene) -> View | None:
    """Return a video seen by a camera that rests, as those that the model knows."""
    video = draw_video(draw.seed, draw.number, frames=FRAMES, split="test", scene=scene)
    video = replace(video, windows=(WHOLE,) * FRAMES)
    found = video.render(SIDE)
    masks = np.stack([found.instances == number + 1 for number in range(len(video.things))])
    if (masks.sum(axis=(2, 3)).T[video.present] < SMALLEST).any():
        return None
    return View(Artefact("video", found.frames), masks, scene, "drawn", None, video)


def _by_colour(draw: Draw, shown: View) -> tuple[int, str] | None:
    """Return a thing that alone has its colour, and its phrase."""
    colours = Counter(thing.colour for thing in shown.scene.things)
    options = [
        i
        for i, thing in enumerate(shown.scene.things)
        # a thing without one colour may look like any
        if colours[thing.colour] == 1 and not colours[""] and thing.colour in COLOURS
        if shown.masks[i, 0].sum() >= SMALLEST
    ]
    if not options:
        return None
    target = choose(draw.rng, options)
    return target, f"the {shown.scene.things[target].colour} thing"


def _by_place(draw: Draw, shown: View) -> tuple[int, str] | None:
    found = [
        (i, f"the {order} thing") for order in EXTREMES if (i := extreme(shown.scene, order)) is not None
    ]
    return choose(draw.rng, found) if found else None


def _by_name(draw: Draw, shown: View) -> tuple[int, str] | None:
    names = Counter(thing.shape for thing in shown.scene.things)
    options = [i for i, thing in enumerate(shown.scene.things) if names[thing.shape] == 1]
    target = choose(draw.rng, options) if options else None
    return None if target is None else (target, f"the {shown.scene.things[target].shape}")


def _finished(shown: View, state: Composer, step: Step | None, target: int | None) -> Asked | None:
    if step is None:
        return None
    state.add(step)
    return Asked(kind="", drawn=state.drawn(), view=shown, target=target)


def _shown(shown: View) -> Composer:
    state = Composer()
    state.show(shown)
    return state


Named = Callable[[Draw, View], tuple[int, str] | None]
Maker = Callable[[Draw, Scene], Asked | None]


def _mark(named: Named) -> Maker:
    def make(draw: Draw, scene: Scene) -> Asked | None:
        shown = _image(scene)
        found, state = named(draw, shown), _shown(shown)
        if found is None:
            return None
        target, phrase = found
        text = worded(draw, SEGMENT, thing=phrase)
        return _finished(shown, state, segment(draw, shown, state, phrase, (target,), text=text), target)

    return make


def _has_small(shown: View) -> bool:
    return bool(shown.masks.sum(axis=(1, 2, 3)).min() < SMALLEST)


def _mark_region(draw: Draw, scene: Scene) -> Asked | None:
    shown = _image(scene)
    target = int(draw.rng.integers(len(scene.things)))
    if _has_small(shown) or not scene.things[target].colour:
        return None
    state = _shown(shown)
    region, kind = prompt_region(draw, shown.masks[target, 0])
    text, handle = worded(draw, SEGMENT, thing="this"), state.next_region
    step = segment(draw, shown, state, "this", (target,), text=text, group=kind, handle=handle)
    drawn = replace(step, region=rasterise(region, *shown.media.size))
    asked = _finished(shown, state, drawn, target)
    return None if asked is None else replace(asked, region=region)


def _caption_region(draw: Draw, scene: Scene) -> Asked | None:
    shown = _image(scene)
    if _has_small(shown):
        return None
    state = _shown(shown)
    step = region_caption(draw, shown, state)
    target = None if step is None or step.subject is None else step.subject.targets[0]
    if target is not None and not scene.things[target].colour:
        return None
    return _finished(shown, state, step, target)


def _edit(kind: str) -> Maker:
    def make(draw: Draw, scene: Scene) -> Asked | None:
        shown = _image(scene)
        found, state = _by_colour(draw, shown), _shown(shown)
        if found is None or not set(TINTS) - {thing.colour for thing in scene.things}:
            return None
        subject = Subject(targets=(found[0],), phrase=found[1])
        return _finished(shown, state, edit(draw, shown, state, kind, subject), found[0])

    return make


def _track(draw: Draw, scene: Scene) -> Asked | None:
    shown = _clip(draw, scene)
    found = None if shown is None else _by_colour(draw, shown)
    if shown is None or found is None:
        return None
    state, (target, phrase) = _shown(shown), found
    subject = Subject(targets=(target,), phrase=phrase)
    text = worded(draw, TRACK, thing=phrase)
    return _finished(shown, state, track(shown, state, subject, text=text), target)


def _question(draw: Draw, scene: Scene) -> Asked | None:
    shown = _image(scene)
    state = _shown(shown)
    return _finished(shown, state, question(draw, shown, state), None)


MARKS: dict[str, str] = {
    "mark by colour": "nearest colour",
    "mark by place": "largest thing, told the masks",
    "mark by name": "largest thing, told the masks",
    "mark by region": "the region as drawn",
    "track by colour": "nearest colour",
}
EDITS = ("remove", "recolour", "move")
MAKERS: dict[str, Maker] = {
    "mark by colour": _mark(_by_colour),
    "mark by place": _mark(_by_place),
    "mark by name": _mark(_by_name),
    "mark by region": _mark_region,
    "track by colour": _track,
    **{f"edit: {kind}": _edit(kind) for kind in EDITS},
    "region caption": _caption_region,
    "question": _question,
}

Pairs = dict[str, list[tuple[Asked, Judged]]]


def _by_kind(judged: Sequence[Judged], known: dict[int, Asked]) -> Pairs:
    found: Pairs = {kind: [] for kind in MAKERS}
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
