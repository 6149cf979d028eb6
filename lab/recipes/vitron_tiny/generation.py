# SPDX-License-Identifier: Apache-2.0
"""Turns without a given image: images and videos to generate, chains of calls, small talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from shapeworld import Scene, Thing
from shapeworld.scene import Background
from shapeworld.words import with_article
from vitron.demo.painters.shapes import BACKGROUND
from vitron.demo.painters.words import SIZES
from vitron.protocol import MODULES
from vitron.specialists.words import COLOURS

from recipes.vitron_tiny.composing import Composer, Step, Subject, call, listed, mask_artefact
from recipes.vitron_tiny.editing import WAYS, changed, draw_change, moving
from recipes.vitron_tiny.images import name_of
from recipes.vitron_tiny.scenes import FILL, Draw, View, new_noun, noun, view
from recipes.vitron_tiny.wordings import CHAINS, CHAT, DRAW, FILM, TAGS, worded

GROUNDS = ("green", "blue", "yellow", "black", "grey", "brown")
SIDES = ("at the left", "at the right", "at the top", "at the bottom", "in the middle")
DRAWN, FILMED, CHAINED = "Here is your image.", "Here is your video.", "I do both."
ABOUT_TAGS = "It is a tag that calls a tool."

_CENTRES = {
    "at the left": (0.2, 0.5),
    "at the right": (0.8, 0.5),
    "at the top": (0.5, 0.2),
    "at the bottom": (0.5, 0.8),
    "in the middle": (0.5, 0.5),
}
_LATER = ("dislike", "sure", "did")  # small talk about what was done before
_USUAL_SIZE = 0.28
_TRIES = 30


def text_to_image(draw: Draw, shown: View | None, state: Composer) -> Step | None:
    """Ask for an image."""
    count = draw.pick(1, 1, 2, 2, 3)
    nouns = [new_noun(draw) for _ in range(count)]
    if len(set(nouns)) < count:
        return None
    sizes = [draw.pick("", "", "small ", "large ") for _ in nouns]
    placed = draw.chance(0.4)
    sides = [SIDES[i] for i in draw.rng.permutation(len(SIDES))[:count]] if placed else [""] * count
    words = [
        with_article(f"{size}{each} {side}".strip())
        for each, size, side in zip(nouns, sizes, sides, strict=True)
    ]
    text, ground = listed(words), BACKGROUND
    named = {word for each in nouns for word in each.split()}
    if draw.chance(0.3):
        name = draw.pick(*(ground for ground in GROUNDS if ground not in named))
        text, ground = f"{text} on a {name} background", COLOURS[name]
    made = drawn(draw, nouns, sizes, sides, ground)
    return Step(
        task="text_to_image",
        text=worded(draw, DRAW, things=text),
        reply=DRAWN,
        calls=(call("text_to_image", ("generate", text)),),
        results=() if made is None else (made,),
        subject=Subject(targets=(0,), phrase=f"the {nouns[0]}") if made and count == 1 else None,
    )


def drawn(
    draw: Draw,
    nouns: Sequence[str],
    sizes: Sequence[str],
    sides: Sequence[str],
    ground: tuple[int, int, int] = BACKGROUND,
) -> View | None:
    """Return an image of objects; nothing if there is no room for them.

    Args:
        draw: Source of random choices.
        nouns: Colour and shape of each object.
        sizes: Size of each, such as ``"small "``; empty for the usual one.
        sides: Position of each; empty for a free one.
        ground: Colour of the background.
    """
    things = list[Thing]()
    for each, size, side in zip(nouns, sizes, sides, strict=True):
        colour, shape = each.split()
        radius = SIZES.get(size.strip(), _USUAL_SIZE) / 2 / FILL[shape]
        for _ in range(_TRIES):
            x, y = _CENTRES.get(side) or draw.rng.uniform(radius, 1 - radius, 2).tolist()
            if all(np.hypot(x - one.x, y - one.y) > 0.75 * (radius + one.radius) for one in things):
                break
        else:
            return None
        things.append(Thing(shape=shape, colour=colour, material="solid", x=x, y=y, radius=radius))
    scene = Scene(background=Background(kind="gradient", seed=0), things=tuple(things))
    return view(draw, scene, "flat", ground=ground)


def text_to_video(draw: Draw, shown: View | None, state: Composer) -> Step | None:
    """Ask for a video."""
    new, way = new_noun(draw), draw.pick(*WAYS)
    text = f"{with_article(new)} moving {WAYS[way]}"
    first = drawn(draw, [new], [""], [""])
    made = None if first is None else moving(draw, first, 0, way)
    return Step(
        task="text_to_video",
        text=worded(draw, FILM, things=text),
        reply=FILMED,
        calls=(call("text_to_video", ("generate", text)),),
        results=() if made is None else (made,),
        subject=Subject(targets=(0,), phrase=f"the {new}") if made else None,
    )


def chain_on_new(draw: Draw, shown: View | None, state: Composer) -> Step | None:
    """Ask for a new image and for a call on it."""
    kind = draw.pick("draw_mark", "draw_edit", "draw_animate")
    nouns = [new_noun(draw) for _ in range(draw.pick(1, 2))]
    if len({each.split()[1] for each in nouns}) < len(nouns):
        return None
    new, target = listed([with_article(each) for each in nouns]), int(draw.rng.integers(len(nouns)))
    thing, to = f"the {nouns[target]}", ""
    made = drawn(draw, nouns, [""] * len(nouns), [""] * len(nouns))
    if made is None:
        return None
    step = Step(task="chains", text="", reply=CHAINED, group=kind)
    first = call("text_to_image", ("generate", new))
    if kind == "draw_mark":
        masks = made.masks[[target]]
        step = replace(
            step,
            calls=(first, call("image_segmentation", ("segment", thing))),
            masks={1: masks[0]},
            mask_on={1: 0},
            results=(made, mask_artefact(masks, thing)),
            subject=Subject(targets=(target,), phrase=thing, handle=state.next_mask),
        )
    elif kind == "draw_edit":
        to = draw_change(draw, made, target, "recolour")
        after = changed(draw, made, "recolour", (target,), to)
        phrase = f"the {to} {nouns[target].split()[1]}"
        step = replace(
            step,
            calls=(first, call("image_editing", ("recolour", f"{thing} to {to}"))),
            masks={1: made.masks[target]},
            mask_on={1: 0},
            results=() if after is None else (made, after),
            subject=None if after is None else Subject(targets=(target,), phrase=phrase),
        )
    else:
        way = draw.pick(*WAYS)
        to, after = WAYS[way], moving(draw, made, target, way)
        step = replace(
            step,
            calls=(first, call("image_to_video", ("animate", f"{thing} moves {to}"))),
            results=() if after is None else (made, after),
            subject=None if after is None else Subject(targets=(target,), phrase=thing),
        )
    return replace(step, text=worded(draw, CHAINS[kind], new=new, thing=thing, to=to))


def chain_on_shown(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for two calls on the image of the conversation."""
    target = int(draw.rng.integers(len(shown.scene.things)))
    mask = shown.masks[target]
    if draw.chance(0.5):
        phrase = name_of(draw, shown, target)
        after = changed(draw, shown, "remove", (target,), "")
        return Step(
            task="chains",
            text=worded(draw, CHAINS["mark_remove"], thing=phrase),
            reply=CHAINED,
            calls=(
                call("image_segmentation", ("segment", phrase)),
                call("image_editing", ("remove", phrase)),
            ),
            masks={0: mask, 1: mask},
            results=() if after is None else (mask_artefact(mask[None], phrase), after),
            group="mark_remove",
        )
    phrase, way = f"the {noun(shown.scene.things[target])}", draw.pick(*WAYS)
    to = draw_change(draw, shown, target, "recolour")
    between = changed(draw, shown, "recolour", (target,), to)
    after = None if between is None else moving(draw, between, target, way)
    renamed = f"the {to} {shown.scene.things[target].shape}"
    return Step(
        task="chains",
        text=worded(draw, CHAINS["edit_animate"], thing=phrase, to=to, way=WAYS[way]),
        reply=CHAINED,
        calls=(
            call("image_editing", ("recolour", f"{phrase} to {to}")),
            call("image_to_video", ("animate", f"{renamed} moves {WAYS[way]}")),
        ),
        masks={0: mask},
        results=() if between is None or after is None else (between, after),
        subject=None if after is None else Subject(targets=(target,), phrase=renamed),
        group="edit_animate",
    )


def no_call(draw: Draw, shown: View | None, state: Composer) -> Step:
    """Say something that asks for no tool."""
    if draw.chance(0.35):
        return Step(
            task="no_call", text=worded(draw, TAGS, "?", tag=_tag(draw)), reply=ABOUT_TAGS, group="tags"
        )
    group = draw.pick(*(group for group in CHAT if not state.is_empty or group not in _LATER))
    family, reply = CHAT[group]
    mark = "!" if group in ("greeting", "thanks", "bye") else "."
    return Step(task="no_call", text=worded(draw, family, mark), reply=reply, group=group)


def _tag(draw: Draw) -> str:
    """Return the text of a tag, or of a whole call."""
    module = draw.pick(*MODULES)
    said = draw.pick("segment: the star", "remove: the red circle", "generate: a blue square")
    name = draw.pick(module.name, module.letter)
    return draw.pick(
        "<module>",
        "</module>",
        "<instruction>",
        "<region>",
        f"<module>{name}</module>",
        f"<instruction>{said}</instruction>",
        f"<module>{name}</module> <instruction>{said}</instruction>",
        "<region>[10, 20, 300, 400]</region>",
    )
