# SPDX-License-Identifier: Apache-2.0
"""Examples about one image: caption, grounding, question, region, segmentation, editing, restoration."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from shapeworld import Scene, prompts
from shapeworld.questions import Kind as QuestionKind
from shapeworld.questions import Query, ask
from shapeworld.referring import EXTREMES, KINDS, Expression, refer
from shapeworld.vocabulary import HELD_OUT
from shapeworld.words import MARGIN, Description, choose, unique_descriptions, with_article
from vitron.data.example import Example
from vitron.demo.painters.find import choose as choose_things
from vitron.demo.painters.find import things_in
from vitron.demo.painters.shapes import shape_mask, side_for, stamp
from vitron.demo.painters.words import COLOURS, SHAPES, read_phrase
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import BoxRegion, PointsRegion, Region, ScribbleRegion
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import rasterise
from vitron.protocol.regions.text import format_region

from recipes.vitron_tiny.composing import call, example, listed, punctuated, user_text
from recipes.vitron_tiny.prompts import CAPTION, EDITS, GROUND, GROUND_ORDER, REGION, RESTORE, SEGMENT
from recipes.vitron_tiny.question_wordings import rephrased
from recipes.vitron_tiny.scenes import (
    MATERIALS,
    TINTS,
    Draw,
    View,
    draw_style,
    full_noun,
    new_noun,
    noun,
    scene_of,
    view,
)

Bool = NDArray[np.bool_]

_QUESTIONS: tuple[QuestionKind, ...] = (
    *("count", "existence", "colour", "shape", "material", "position", "relation", "comparison"),
)
_VALUES = {*SHAPES, *COLOURS, *MATERIALS}
SIZES = {"small": "small ", "": "", "large": "large "}
PLACES = ("left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "middle")
STYLES = ("grey", "sepia", "negative", "night", "pencil")
WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}

AXES = {"leftmost": ("x", 1), "rightmost": ("x", -1), "highest": ("y", 1), "lowest": ("y", -1)}

EDITED = "I changed it."


def _draw_view(draw: Draw, occlusion: float = 0.0) -> View | None:
    style = draw_style(draw)
    return view(draw, scene_of(draw, plain=style == "flat", occlusion=occlusion), style)


def caption(draw: Draw) -> Example | None:
    """List the objects from left to right."""
    shown = _draw_view(draw)
    if shown is None:
        return None
    things = sorted(shown.scene.things, key=lambda thing: thing.x)
    if any(after.x - before.x < MARGIN for before, after in pairwise(things)):
        return None
    said = listed([with_article(noun(thing)) for thing in things])
    return example("caption", user_text(draw, CAPTION, "?"), f"{said}.", view=shown)


def grounding(draw: Draw) -> Example | None:
    """Give the box of one object, by name or with its name."""
    shown = _draw_view(draw)
    if shown is None:
        return None
    orders = [
        (expression, target)
        for expression, target in (
            (Expression(description=Description(), position=order), _extreme(shown.scene, order))
            for order in EXTREMES
        )
        if target is not None
    ]
    if orders and draw.chance(0.3):
        expression, target = draw.pick(*orders)
        text = user_text(draw, GROUND_ORDER, "?", order=str(expression.position))
        reply, group = f"{with_article(noun(shown.scene.things[target]))} {_box(shown, target)}", "caption"
    else:
        target = int(draw.rng.integers(len(shown.scene.things)))
        text = user_text(draw, GROUND, "?", thing=f"the {noun(shown.scene.things[target])}")
        reply, group = _box(shown, target), "box"
    return example("grounding", text, reply, view=shown, group=group)


def _box(shown: View, target: int) -> str:
    x0, y0, x1, y1 = shown.box(target)
    return format_region(BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1))


def _extreme(scene: Scene, order: str) -> int | None:
    """Return the object that leads by a margin, if one does."""
    axis, sign = {"leftmost": ("x", 1), "rightmost": ("x", -1), "highest": ("y", 1), "lowest": ("y", -1)}[
        order
    ]
    keys = [sign * getattr(thing, axis) for thing in scene.things]
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    return ranked[0] if len(keys) > 1 and keys[ranked[1]] - keys[ranked[0]] >= MARGIN else None


def question(draw: Draw) -> Example | None:
    """Ask for one word."""
    shown = _draw_view(draw, occlusion=0.3)
    if shown is None:
        return None
    kind = choose(draw.rng, _QUESTIONS)
    asked = ask(shown.scene, draw.rng, kind=kind, phrasing=draw.phrasing)
    if asked is None or not _known(asked.query):
        return None
    again = draw.phrasing == "train" and draw.chance(0.7)
    text = rephrased(draw, asked.query) if again else asked.text
    return example("question", punctuated(draw, text, "?"), asked.answer, view=shown, group=asked.kind)


def _known(query: Query) -> bool:
    """Whether a question names none but the values of this world."""
    described = [query.subject, *([query.other] if query.other is not None else [])]
    named = {getattr(one, name) for one in described for name in one.named()}
    return named <= _VALUES


def prompt_mask(draw: Draw, mask: Bool) -> tuple[Bool, str]:
    """Point at a mask as a hand would: the region as drawn, ``(H, W)``, and the kind of prompt."""
    kind = draw.pick("box", "mask", "point", "scribble")
    if kind == "mask":
        return mask, kind
    height, width = mask.shape
    scale = np.array([width, height])
    region: Region
    if kind == "box":
        x0, y0, x1, y1 = (prompts.box(mask, draw.rng) / np.tile(scale, 2)).tolist()
        region = BoxRegion(x0=x0, y0=y0, x1=x1, y1=y1)
    elif kind == "point":
        x, y = (prompts.points(mask, draw.rng).xy[0] / scale).tolist()
        region = PointsRegion(points=((x, y),))
    else:
        line = (prompts.scribble(mask, draw.rng, strokes=4).points / scale).tolist()
        region = ScribbleRegion(strokes=(tuple((x, y) for x, y in line),))
    return rasterise(region, height, width), kind


def region_caption(draw: Draw) -> Example | None:
    """Name what a region shows."""
    shown = _draw_view(draw)
    if shown is None:
        return None
    target = int(draw.rng.integers(len(shown.scene.things)))
    region, kind = prompt_mask(draw, shown.masks[target, 0])
    reply = f"{with_article(full_noun(shown.scene.things[target]))}."
    return example(
        "region_caption", user_text(draw, REGION, "?"), reply, view=shown, region=region, group=kind
    )


def referring_segmentation(draw: Draw) -> Example | None:
    """Mark the one object that words mean."""
    kind = choose(draw.rng, KINDS)
    style = draw_style(draw)
    scene = scene_of(draw, counts=(0.1, 0.4, 0.8, 1.0), plain=style == "flat", occlusion=0.15)
    reference = refer(scene, draw.rng, kind=kind)
    shown = None if reference is None else view(draw, scene, style)
    if reference is None or shown is None:
        return None
    phrase = reference.expression.phrase()
    return example(
        "referring_segmentation",
        user_text(draw, SEGMENT, thing=phrase),
        "here it is.",
        call("image_segmentation", ("segment", phrase)),
        view=shown,
        masks={0: shown.masks[reference.target]},
        group=kind,
    )


def sketch_segmentation(draw: Draw) -> Example | None:
    """Mark what a region points at."""
    shown = _draw_view(draw)
    if shown is None:
        return None
    target = int(draw.rng.integers(len(shown.scene.things)))
    mask = shown.masks[target, 0]
    region, kind = prompt_mask(draw, mask)
    return example(
        "sketch_segmentation",
        user_text(draw, SEGMENT, thing="this"),
        "here it is.",
        call("image_segmentation", ("segment", "this")),
        view=shown,
        region=region,
        masks={0: mask[None]},
        group=kind,
    )


def editable(draw: Draw) -> tuple[View, int, str] | None:
    """Return an image, one of its objects, and words by which the toy painter finds it."""
    scene = scene_of(draw, plain=True)
    target = int(draw.rng.integers(len(scene.things)))
    options = [f"the {one.noun()}" for one in unique_descriptions(scene, target) if one.material is None]
    short = [phrase for phrase in options if phrase != "the thing"]
    if len(scene.things) > 1 and draw.chance(0.2):
        ordered = [phrase for order in EXTREMES if (phrase := _ordered(scene, target, order)) is not None]
        short = ordered or short
    phrase = draw.pick(*short) if short and draw.chance(0.5) else f"the {noun(scene.things[target])}"
    if draw.chance(0.15):
        shown = view(draw, scene, "drawn")
        if shown is not None and is_found(shown, target, phrase):
            return shown, target, phrase
    shown = view(draw, scene, "flat")
    return None if shown is None else (shown, target, phrase)


def _ordered(scene: Scene, target: int, order: str) -> str | None:
    """Return "the leftmost star" if it is that, and there are others."""
    shape = scene.things[target].shape
    alike = [i for i, thing in enumerate(scene.things) if thing.shape == shape]
    part = replace(scene, things=tuple(scene.things[i] for i in alike))
    first = _extreme(part, order)
    return f"the {order} {shape}" if first is not None and alike[first] == target else None


def is_found(shown: View, target: int, phrase: str) -> bool:
    """Whether the toys find by words what is meant."""
    try:
        found = choose_things(things_in(shown.media.frames[0]), read_phrase(phrase))
    except UnsupportedRequestError:
        found = []
    if not found:
        return False
    mask, truth = np.any([thing.mask for thing in found], axis=0), shown.masks[target, 0]
    return bool((mask & truth).sum() > 0.6 * (mask | truth).sum())


def editing(draw: Draw) -> Example | None:
    """Change an image in one of six ways."""
    found = editable(draw)
    if found is None:
        return None
    shown, target, phrase = found
    kind = draw.pick(*EDITS)
    mask = shown.masks[target]
    if kind == "add":
        return _add(draw, shown)
    if kind == "restyle":
        to = draw.pick(*STYLES)
        text, said, mask = user_text(draw, EDITS[kind], to=to), f"the picture in {to}", np.ones_like(mask)
    elif kind == "remove":
        text, said = user_text(draw, EDITS[kind], thing=phrase), phrase
    else:
        to, said = change(draw, shown.scene, target, phrase, kind)
        text = user_text(draw, EDITS[kind], thing=phrase, to=to)
    edit = call("image_editing", (kind, said))
    return example("editing", text, EDITED, edit, view=shown, masks={0: mask}, group=kind)


def change(draw: Draw, scene: Scene, target: int, phrase: str, kind: str) -> tuple[str, str]:
    """Return what an object is to become, as a user says it, and the instruction."""
    thing = scene.things[target]
    if kind == "recolour":
        taken = {one.colour for one in scene.things}
        to = draw.pick(
            *(colour for colour in TINTS if colour not in taken and (colour, thing.shape) not in HELD_OUT)
        )
        return to, f"{phrase} to {to}"
    if kind == "replace":
        to = with_article(new_noun(draw, without=thing.shape))
        return to, f"{phrase} with {to}"
    to = WAYS[draw.pick(*WAYS)]
    return to, f"{phrase} {to}"


def _add(draw: Draw, shown: View) -> Example | None:
    size, place = draw.pick(*SIZES), draw.pick(*PLACES)
    thing = with_article(f"{SIZES[size]}{new_noun(draw)}")
    where = f"{'in' if place == 'middle' else 'at'} the {place}"
    phrase = read_phrase(f"{thing} {where}")
    side = side_for(phrase, draw.side, draw.side)
    canvas = np.zeros((draw.side, draw.side, 3), dtype=np.uint8)
    spare = draw.side - side
    row, column = (
        round(spare * (0.08 if first in place else 0.92 if last in place else 0.5))
        for first, last in (("top", "bottom"), ("left", "right"))
    )
    stamp(canvas, shape_mask(str(phrase.shape), side, side), row, column, (1, 1, 1))
    edit = call("image_editing", ("add", f"{thing} {where}"))
    text = user_text(draw, EDITS["add"], thing=thing, to=where)
    return example(
        "editing", text, EDITED, edit, view=shown, masks={0: canvas[None, ..., 0] > 0}, group="add"
    )


def restoration(draw: Draw) -> Example | None:
    """Ask for a better image."""
    shown = _draw_view(draw)
    if shown is None:
        return None
    kind = draw.pick(*RESTORE)
    degraded = replace_image(shown, degrade(shown.media.frames[0], kind, draw.rng))
    clean = call("restoration", (kind, "the picture"))
    return example(
        "restoration", user_text(draw, RESTORE[kind]), "I cleaned it.", clean, view=degraded, group=kind
    )


def replace_image(shown: View, image: NDArray[np.uint8]) -> View:
    """Return a view with another image."""
    return View(Artefact("image", image), shown.masks, shown.scene)


def degrade(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a noisy or blurred image; one that is to be enlarged stays as it is."""
    if kind == "denoise":
        noise = rng.normal(0, 22, image.shape)
        return (image + noise).round().clip(0, 255).astype(np.uint8)
    if kind == "deblur":
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.6)), dtype=np.uint8)
    return image
