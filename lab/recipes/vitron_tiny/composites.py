# SPDX-License-Identifier: Apache-2.0
"""Turns about photographic composites: mark, caption, ask, edit, track.

The names of the cut-outs of other splits are unknown to a model: what carries over is colour, place and form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from photoworld import draw_scene
from shapeworld import Scene, SceneConfig, render, scene_rng
from shapeworld import Split as PhotoSplit
from shapeworld.grid import WHOLE
from shapeworld.referring import EXTREMES
from shapeworld.videos import draw_video
from shapeworld.vocabulary import COLOURS
from shapeworld.words import choose
from vitron.protocol.contract import Region
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import rasterise

from recipes.vitron_tiny.composing import Composer, Drawn, Step, Subject
from recipes.vitron_tiny.editing import edit
from recipes.vitron_tiny.images import extreme, prompt_region, region_caption, segment
from recipes.vitron_tiny.questions import question
from recipes.vitron_tiny.scenes import FRAMES, TINTS, Draw, View
from recipes.vitron_tiny.videos import track
from recipes.vitron_tiny.wordings import SEGMENT, TRACK, worded

__all__ = ["EDITS", "KINDS", "Asked", "ask", "draw_composite"]

Bool = NDArray[np.bool_]

SIDE = 64  # pixels: what the model sees
NUMBERS = SceneConfig(num_things=(0.0, 0.5, 0.3, 0.2), occlusion=0.0)
SMALLEST = 40  # pixels of a thing that is asked for
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


def ask(kind: str, seed: int, index: int, *, split: PhotoSplit = "test") -> Asked | None:
    """Draw a turn of a kind; ``None`` where no composite allows one.

    Args:
        kind: One of :data:`KINDS`.
        seed: Random seed of composites and choices.
        index: Number of the turn.
        split: Split of cut-outs and photographs.
    """
    for attempt in range(_TRIES):
        rng = scene_rng(seed, index, _PURPOSE, KINDS.index(kind), attempt)
        draw = Draw(seed=seed, number=index, rng=rng, split=split, phrasing="train", side=SIDE)
        scene = draw_scene(seed, index * _TRIES + attempt, split=split, config=NUMBERS)
        found = _MAKERS[kind](draw, scene)
        if found is not None:
            return replace(found, kind=kind)
    return None


def draw_composite(seed: int, index: int) -> Drawn:
    """Draw a turn for training, the kinds in turn; all things of its composite have a colour.

    Raises:
        RuntimeError: If no composite allows one.
    """
    for number in range(index * _TRIES, (index + 1) * _TRIES):
        found = ask(KINDS[index % len(KINDS)], seed, number, split="train")
        if found is not None and all(thing.colour for thing in found.view.scene.things):
            return found.drawn
    raise RuntimeError(f"no composite for turn {index}")


def _image(scene: Scene) -> View:
    rendering = render(scene, SIDE)
    return View(Artefact("image", rendering.image), rendering.visible()[:, None], scene, "drawn")


def _clip(draw: Draw, scene: Scene) -> View | None:
    """Return a video seen by a camera that rests, as those that the model knows."""
    video = draw_video(draw.seed, draw.number, frames=FRAMES, split=draw.split, scene=scene)
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


EDITS = ("remove", "recolour", "move")
_MAKERS: dict[str, Maker] = {
    "mark by colour": _mark(_by_colour),
    "mark by place": _mark(_by_place),
    "mark by name": _mark(_by_name),
    "mark by region": _mark_region,
    "track by colour": _track,
    **{f"edit: {kind}": _edit(kind) for kind in EDITS},
    "region caption": _caption_region,
    "question": _question,
}

KINDS = tuple(_MAKERS)
"""Kinds of turns."""
