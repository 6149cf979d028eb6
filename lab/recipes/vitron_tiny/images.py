# SPDX-License-Identifier: Apache-2.0
"""Turns about one image: caption, grounding, region, segmentation of one object or several."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from shapeworld import Scene, prompts
from shapeworld.referring import EXTREMES, KINDS, Expression, refer
from shapeworld.words import MARGIN, Description, choose, matching, unique_descriptions, with_article
from vitron.protocol.contract import BoxRegion, PointsRegion, Region, ScribbleRegion
from vitron.protocol.regions.convert import mask_to_region
from vitron.protocol.regions.raster import rasterise
from vitron.protocol.regions.text import format_region

from recipes.vitron_tiny.composing import (
    Action,
    Composer,
    Step,
    Subject,
    call,
    capital,
    listed,
    mask_artefact,
)
from recipes.vitron_tiny.scenes import Draw, View, draw_style, full_noun, noun, scene_of, view
from recipes.vitron_tiny.wordings import CAPTION, FOLLOW_UPS, GROUND, GROUND_ORDER, REGION, SEGMENT, worded

Bool = NDArray[np.bool_]

FOUND = "Here it is."
FOUND_ALL = "Here they are."
_AXES = {"leftmost": ("x", 1), "rightmost": ("x", -1), "highest": ("y", 1), "lowest": ("y", -1)}


def any_view(draw: Draw, occlusion: float = 0.0) -> View | None:
    """Return an image in either style."""
    style = draw_style(draw)
    return view(draw, scene_of(draw, plain=style == "flat", occlusion=occlusion), style)


def crowded_view(draw: Draw) -> View | None:
    """Return an image of rather many objects, which may cover each other."""
    style = draw_style(draw)
    scene = scene_of(draw, counts=(0.1, 0.4, 0.8, 1.0), plain=style == "flat", occlusion=0.15)
    return view(draw, scene, style)


def caption(draw: Draw, shown: View, state: Composer) -> Step | None:
    """List the objects from left to right."""
    things = sorted(shown.scene.things, key=lambda thing: thing.x)
    if any(after.x - before.x < MARGIN for before, after in pairwise(things)):
        return None
    said = listed([with_article(noun(thing)) for thing in things])
    subject = None
    if len(things) == 1:
        subject = Subject(targets=(0,), phrase=f"the {noun(things[0])}")
    return Step(task="caption", text=worded(draw, CAPTION, "?"), reply=f"{capital(said)}.", subject=subject)


def grounding(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Give the box of one object, by name or with its name."""
    orders = [
        (expression, target)
        for expression, target in (
            (Expression(description=Description(), position=order), extreme(shown.scene, order))
            for order in EXTREMES
        )
        if target is not None
    ]
    if orders and draw.chance(0.3):
        expression, target = draw.pick(*orders)
        text = worded(draw, GROUND_ORDER, "?", order=str(expression.position))
        reply, group = (
            f"{capital(with_article(noun(shown.scene.things[target])))} {_box(shown, target)}",
            "caption",
        )
    else:
        target = int(draw.rng.integers(len(shown.scene.things)))
        text = worded(draw, GROUND, "?", thing=f"the {noun(shown.scene.things[target])}")
        reply, group = _box(shown, target), "box"
    subject = Subject(targets=(target,), phrase=f"the {noun(shown.scene.things[target])}")
    return Step(task="grounding", text=text, reply=reply, subject=subject, group=group)


def _box(shown: View, target: int) -> str:
    x0, y0, x1, y1 = shown.box(target)
    return format_region(BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1))


def extreme(scene: Scene, order: str) -> int | None:
    """Return the object that leads by a margin, if one does."""
    axis, sign = _AXES[order]
    keys = [sign * getattr(thing, axis) for thing in scene.things]
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    return ranked[0] if len(keys) > 1 and keys[ranked[1]] - keys[ranked[0]] >= MARGIN else None


def prompt_mask(draw: Draw, mask: Bool) -> tuple[Bool, str]:
    """Point at a mask as a hand would: the region as drawn, ``(H, W)``, and the kind of prompt."""
    region, kind = prompt_region(draw, mask)
    return rasterise(region, *mask.shape), kind


def prompt_region(draw: Draw, mask: Bool) -> tuple[Region, str]:
    """Point at a mask as a hand would: the region, and the kind of prompt."""
    kind = draw.pick("box", "mask", "point", "scribble")
    if kind == "mask":
        return mask_to_region(mask), kind
    height, width = mask.shape
    scale = np.array([width, height])
    if kind == "box":
        x0, y0, x1, y1 = (prompts.box(mask, draw.rng) / np.tile(scale, 2)).tolist()
        return BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1), kind
    if kind == "point":
        x, y = (prompts.points(mask, draw.rng).xy[0] / scale).tolist()
        return PointsRegion(points=((x, y),)), kind
    line = (prompts.scribble(mask, draw.rng, strokes=4).points / scale).tolist()
    return ScribbleRegion(strokes=(tuple((x, y) for x, y in line),)), kind


def region_caption(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Name the object of a region."""
    target = int(draw.rng.integers(len(shown.scene.things)))
    region, kind = prompt_mask(draw, shown.masks[target, 0])
    return Step(
        task="region_caption",
        text=worded(draw, REGION, "?"),
        reply=f"{capital(with_article(full_noun(shown.scene.things[target])))}.",
        region=region,
        subject=Subject(targets=(target,), phrase="this", handle=state.next_region),
        group=kind,
    )


def referring_segmentation(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Segment the object, or all the objects, of a phrase."""
    if draw.chance(0.2):
        return _plural_segmentation(draw, shown, state)
    kind = choose(draw.rng, KINDS)
    reference = refer(shown.scene, draw.rng, kind=kind)
    if reference is None:
        return None
    phrase, target = reference.expression.phrase(), reference.target
    return segment(
        draw, shown, state, phrase, (target,), text=worded(draw, SEGMENT, thing=phrase), group=kind
    )


def _plural_segmentation(draw: Draw, shown: View, state: Composer) -> Step | None:
    count = len(shown.scene.things)
    found = ("all things", tuple(range(count))) if count > 1 and draw.chance(0.15) else plural(draw, shown)
    if found is None:
        return None
    phrase, targets = found
    text = plural_text(draw, "segment", phrase, targets)
    return segment(draw, shown, state, phrase, targets, text=text, group="plural")


def segment(
    draw: Draw,
    shown: View,
    state: Composer,
    phrase: str,
    targets: tuple[int, ...],
    *,
    text: str,
    group: str = "",
    form: str = "",
    handle: str = "",
) -> Step:
    """Return a turn that segments objects in an image."""
    masks = shown.masks[list(targets)]
    several = phrase.startswith("all ")
    return Step(
        task="sketch_segmentation" if phrase == "this" else "referring_segmentation",
        text=text,
        reply=FOUND_ALL if several else FOUND,
        calls=(call("image_segmentation", ("segment", phrase), region=handle),),
        masks={0: union(masks)},
        results=(mask_artefact(masks, phrase),),
        subject=Subject(targets=targets, phrase=phrase, handle=state.next_mask),
        action=None if several else act("image_segmentation", "segment", "", targets[0], shown, state),
        group=group,
        form=form,
    )


def union(masks: Bool) -> Bool:
    """Return the union of masks ``(K, T, H, W)``."""
    return np.asarray(masks.any(axis=0), dtype=np.bool_)


def act(module: str, verb: str, ending: str, target: int, shown: View, state: Composer) -> Action:
    """Return the record of a call on one object."""
    return Action(module=module, verb=verb, ending=ending, target=target, view=shown, input=state.input)


def plural(draw: Draw, shown: View) -> tuple[str, tuple[int, ...]] | None:
    """Return a phrase such as "all circles" and its objects, of which there are two or more."""
    options = dict[str, tuple[int, ...]]()
    for thing in shown.scene.things:
        for one in (Description(shape=thing.shape), Description(colour=thing.colour)):
            options[f"all {one.noun(plural=True)}"] = matching(one, shown.scene)
    several = [(phrase, targets) for phrase, targets in options.items() if len(targets) > 1]
    return draw.pick(*several) if several else None


def plural_text(draw: Draw, verb: str, phrase: str, targets: tuple[int, ...]) -> str:
    """Return a user text that asks to segment or remove several objects."""
    number = "both" if len(targets) == 2 and draw.chance(0.3) else "all"
    return worded(draw, FOLLOW_UPS[f"{verb}_{number}"], things=phrase.removeprefix("all "))


def sketch_segmentation(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Segment the object of a region."""
    target = int(draw.rng.integers(len(shown.scene.things)))
    region, kind = prompt_mask(draw, shown.masks[target, 0])
    text, handle = worded(draw, SEGMENT, thing="this"), state.next_region
    step = segment(draw, shown, state, "this", (target,), text=text, group=kind, handle=handle)
    return replace(step, region=region)


def name_of(draw: Draw, shown: View, target: int) -> str:
    """Return a phrase that names one object: colour and shape, or what suffices, or its position."""
    scene = shown.scene
    options = [f"the {one.noun()}" for one in unique_descriptions(scene, target) if one.material is None]
    short = [phrase for phrase in options if phrase != "the thing"]
    if len(scene.things) > 1 and draw.chance(0.2):
        ordered = [phrase for order in EXTREMES if (phrase := _ordered(scene, target, order)) is not None]
        short = ordered or short
    return draw.pick(*short) if short and draw.chance(0.5) else f"the {noun(scene.things[target])}"


def _ordered(scene: Scene, target: int, order: str) -> str | None:
    """Return "the leftmost star" if it is that, and there are others."""
    shape = scene.things[target].shape
    alike = [i for i, thing in enumerate(scene.things) if thing.shape == shape]
    part = replace(scene, things=tuple(scene.things[i] for i in alike))
    first = extreme(part, order)
    return f"the {order} {shape}" if first is not None and alike[first] == target else None
