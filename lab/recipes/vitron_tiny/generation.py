# SPDX-License-Identifier: Apache-2.0
"""Examples without a given image: images and videos to generate, chains of calls, small talk."""

from __future__ import annotations

from shapeworld.words import with_article
from vitron.data.example import Example
from vitron.protocol import MODULES
from vitron.protocol.contract import Invocation

from recipes.vitron_tiny.composing import call, example, listed, punctuated, user_text
from recipes.vitron_tiny.images import EDITED, WAYS, change, editable
from recipes.vitron_tiny.prompts import ANIMATE, CHAINS, CHAT, DRAW, FILM, TAGS
from recipes.vitron_tiny.scenes import TINTS, Draw, draw_style, new_noun, noun, scene_of, view

GROUNDS = ("green", "blue", "yellow", "black", "grey", "brown")
SIDES = ("at the left", "at the right", "at the top", "at the bottom", "in the middle")
DRAWN, FILMED, MOVED, CHAINED = "here is your picture.", "here is your clip.", "here it moves.", "I do both."


def text_to_image(draw: Draw) -> Example | None:
    """Ask for an image."""
    count = draw.pick(1, 1, 2, 2, 3)
    nouns = [new_noun(draw) for _ in range(count)]
    if len(set(nouns)) < count:
        return None
    placed = draw.chance(0.4)
    sides = [SIDES[i] for i in draw.rng.permutation(len(SIDES))]
    words = [
        with_article(f"{draw.pick('', '', 'small ', 'large ')}{each}") + (f" {side}" if placed else "")
        for each, side in zip(nouns, sides, strict=False)
    ]
    text = listed(words)
    named = {word for each in nouns for word in each.split()}
    if draw.chance(0.3):
        text += f" on a {draw.pick(*(ground for ground in GROUNDS if ground not in named))} background"
    make = call("text_to_image", ("generate", text))
    return example("text_to_image", user_text(draw, DRAW, things=text), DRAWN, make)


def text_to_video(draw: Draw) -> Example | None:
    """Ask for a video."""
    text = f"{with_article(new_noun(draw))} moving {WAYS[draw.pick(*WAYS)]}"
    make = call("text_to_video", ("generate", text))
    return example("text_to_video", user_text(draw, FILM, things=text), FILMED, make)


def image_to_video(draw: Draw) -> Example | None:
    """Ask that an object of an image moves."""
    found = editable(draw)
    if found is None:
        return None
    shown, _, phrase = found
    way = WAYS[draw.pick(*WAYS)]
    move = call("image_to_video", ("animate", f"{phrase} moves {way}"))
    text = user_text(draw, ANIMATE, thing=phrase, way=way)
    return example("image_to_video", text, MOVED, move, view=shown)


def chains(draw: Draw) -> Example | None:
    """Ask for two objects at once."""
    kind = draw.pick(*CHAINS)
    return _chain_on_picture(draw, kind) if kind in ("mark_remove", "edit_animate") else _chain(draw, kind)


def _chain(draw: Draw, kind: str) -> Example | None:
    nouns = [new_noun(draw) for _ in range(draw.pick(1, 2))]
    if len({each.split()[1] for each in nouns}) < len(nouns):
        return None
    new, about = listed([with_article(each) for each in nouns]), draw.pick(*nouns)
    thing, to, then = f"the {about}", "", call("image_segmentation", ("segment", f"the {about}"))
    if kind == "draw_edit":
        to = draw.pick(*(colour for colour in TINTS if all(colour not in each for each in nouns)))
        then = call("image_editing", ("recolour", f"{thing} to {to}"))
    elif kind == "draw_animate":
        to = WAYS[draw.pick(*WAYS)]
        then = call("image_to_video", ("animate", f"{thing} moves {to}"))
    text = user_text(draw, CHAINS[kind], new=new, thing=thing, to=to)
    return example("chains", text, CHAINED, call("text_to_image", ("generate", new)), then, group=kind)


def _chain_on_picture(draw: Draw, kind: str) -> Example | None:
    found = editable(draw)
    if found is None:
        return None
    shown, target, phrase = found
    mask = shown.masks[target]
    calls: tuple[Invocation, Invocation]
    if kind == "mark_remove":
        text = user_text(draw, CHAINS[kind], thing=phrase)
        calls = (call("image_segmentation", ("segment", phrase)), call("image_editing", ("remove", phrase)))
        return example("chains", text, CHAINED, *calls, view=shown, masks={0: mask, 1: mask}, group=kind)
    phrase, way = f"the {noun(shown.scene.things[target])}", WAYS[draw.pick(*WAYS)]
    to, said = change(draw, shown.scene, target, phrase, "recolour")
    after = f"the {to} {shown.scene.things[target].shape}"
    text = user_text(draw, CHAINS[kind], thing=phrase, to=to, way=way)
    calls = (
        call("image_editing", ("recolour", said)),
        call("image_to_video", ("animate", f"{after} moves {way}")),
    )
    # the second works on what the first makes, which is not among the media yet
    return example("chains", text, CHAINED, *calls, view=shown, masks={0: mask}, group=kind)


ABOUT_TAGS = "it is a tag that calls a tool."


def no_call(draw: Draw) -> Example | None:
    """Say something that asks for no tool."""
    shown = None
    if draw.chance(0.4):
        style = draw_style(draw)
        shown = view(draw, scene_of(draw, plain=style == "flat"), style)
    if draw.chance(0.35):
        text, reply, group = user_text(draw, TAGS, tag=_tag(draw)), ABOUT_TAGS, "tags"
    else:
        group = draw.pick(*CHAT)
        family, reply = CHAT[group]
        text = draw.pick(*family[draw.phrasing != "train"])
        text = punctuated(draw, text, "!" if group in ("greeting", "thanks", "bye") else ".")
    return example("no_call", text, reply, view=shown, group=group)


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


__all__ = ["CHAT", "EDITED", "chains", "image_to_video", "no_call", "text_to_image", "text_to_video"]
