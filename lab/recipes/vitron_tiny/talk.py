# SPDX-License-Identifier: Apache-2.0
"""Examples that begin with words: pictures and clips to be made, chains of calls, and plain chat."""

from __future__ import annotations

from shapeworld.words import with_article
from vitron.contract import Invocation
from vitron.data.example import Example
from vitron.language import MODULES

from recipes.vitron_tiny.pictures import EDITED, WAYS, change, editable
from recipes.vitron_tiny.wording import Family, call, example, listed, punctuated, say
from recipes.vitron_tiny.worlds import TINTS, Draw, any_style, new_noun, noun, scene_of, view

DRAW: Family = (
    ("draw {things}", "make a picture of {things}", "paint {things}", "show me a picture of {things}"),
    ("I want a picture of {things}", "create a picture with {things}"),
)
FILM: Family = (
    ("make a clip of {things}", "film {things}", "show me a clip of {things}"),
    ("I want a clip of {things}", "create a clip with {things}"),
)
ANIMATE: Family = (
    ("let {thing} move {way}", "animate {thing}: it moves {way}", "make a clip where {thing} moves {way}"),
    ("make {thing} go {way} in a clip", "{thing} should come alive and move {way}"),
)
CHAINS: dict[str, Family] = {
    "draw_mark": (
        ("draw {new} and segment {thing}", "make a picture of {new}, then mark {thing}"),
        ("paint {new}, and after that cut out {thing}",),
    ),
    "draw_edit": (
        ("draw {new} and make {thing} {to}", "make a picture of {new}, then paint {thing} {to}"),
        ("paint {new}, and after that change {thing} to {to}",),
    ),
    "draw_animate": (
        ("draw {new} and let {thing} move {to}", "make a picture of {new}, then let {thing} move {to}"),
        ("paint {new}, and after that animate {thing}: it moves {to}",),
    ),
    "mark_remove": (
        ("segment {thing} and remove it", "mark {thing}, then delete it"),
        ("cut out {thing}, and after that erase it",),
    ),
    "edit_animate": (
        ("make {thing} {to} and let it move {way}", "paint {thing} {to}, then let it move {way}"),
        ("change {thing} to {to}, and after that animate it: it moves {way}",),
    ),
}
GROUNDS = ("green", "blue", "yellow", "black", "grey", "brown")
SIDES = ("at the left", "at the right", "at the top", "at the bottom", "in the middle")
DRAWN, FILMED, MOVED, CHAINED = "here is your picture.", "here is your clip.", "here it moves.", "I do both."


def text_to_image(draw: Draw) -> Example | None:
    """Ask for a picture."""
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
    return example("text_to_image", say(draw, DRAW, things=text), DRAWN, make)


def text_to_video(draw: Draw) -> Example | None:
    """Ask for a clip."""
    text = f"{with_article(new_noun(draw))} moving {WAYS[draw.pick(*WAYS)]}"
    make = call("text_to_video", ("generate", text))
    return example("text_to_video", say(draw, FILM, things=text), FILMED, make)


def image_to_video(draw: Draw) -> Example | None:
    """Ask that a thing of a picture moves."""
    found = editable(draw)
    if found is None:
        return None
    shown, _, phrase = found
    way = WAYS[draw.pick(*WAYS)]
    move = call("image_to_video", ("animate", f"{phrase} moves {way}"))
    text = say(draw, ANIMATE, thing=phrase, way=way)
    return example("image_to_video", text, MOVED, move, view=shown)


def chains(draw: Draw) -> Example | None:
    """Ask for two things at once."""
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
    text = say(draw, CHAINS[kind], new=new, thing=thing, to=to)
    return example("chains", text, CHAINED, call("text_to_image", ("generate", new)), then, group=kind)


def _chain_on_picture(draw: Draw, kind: str) -> Example | None:
    found = editable(draw)
    if found is None:
        return None
    shown, target, phrase = found
    mask = shown.masks[target]
    calls: tuple[Invocation, Invocation]
    if kind == "mark_remove":
        text = say(draw, CHAINS[kind], thing=phrase)
        calls = (call("image_segmentation", ("segment", phrase)), call("image_editing", ("remove", phrase)))
        return example("chains", text, CHAINED, *calls, view=shown, masks={0: mask, 1: mask}, group=kind)
    phrase, way = f"the {noun(shown.scene.things[target])}", WAYS[draw.pick(*WAYS)]
    to, said = change(draw, shown.scene, target, phrase, "recolour")
    after = f"the {to} {shown.scene.things[target].shape}"
    text = say(draw, CHAINS[kind], thing=phrase, to=to, way=way)
    calls = (
        call("image_editing", ("recolour", said)),
        call("image_to_video", ("animate", f"{after} moves {way}")),
    )
    # the second works on what the first makes, which is not among the media yet
    return example("chains", text, CHAINED, *calls, view=shown, masks={0: mask}, group=kind)


# what is said, in training and held out, and the reply
CHAT: dict[str, tuple[Family, str]] = {
    "greeting": (
        (("hello", "hi", "good morning", "hey", "good evening"), ("hi there", "good day")),
        "hello! what can I do?",
    ),
    "thanks": (
        (
            ("thanks", "thank you", "that is great", "well done", "thank you very much"),
            ("many thanks", "great work"),
        ),
        "you are welcome.",
    ),
    "bye": ((("bye", "good bye", "see you", "that is all"), ("I am done", "good night")), "good bye!"),
    "able": (
        (
            ("what can you do", "what are you good at", "how can you help me", "help"),
            ("tell me what you can do", "what do you know"),
        ),
        "I describe, mark, change and make pictures and clips.",
    ),
    "who": (
        (("who are you", "what are you", "what is your name"), ("say who you are", "are you a person")),
        "I am vitron, a small model.",
    ),
    "may": (
        (
            ("can you edit pictures", "can you segment things", "can you make clips", "do you draw pictures"),
            ("are you able to edit pictures", "could you track things"),
        ),
        "yes. show me what, and say how.",
    ),
    "how": (
        (
            ("how do you segment a picture", "how does editing work", "how do you make a picture"),
            ("how do you track a thing", "how does drawing work"),
        ),
        "I call a tool that does it.",
    ),
    "not": (
        (
            ("do not segment anything", "do not change the picture", "please do nothing", "stop", "wait"),
            ("do not draw anything", "leave the picture alone"),
        ),
        "all right, I do nothing.",
    ),
    "nice": (
        (("nice picture", "I like this", "what a nice picture"), ("I like this picture", "this is nice")),
        "I am glad you like it.",
    ),
    "unknown": (
        (
            ("what is the weather", "who won the game", "what time is it", "what is two and two"),
            ("what day is it", "who is the king"),
        ),
        "I only know pictures and clips.",
    ),
}
TAGS: Family = (
    (
        "what does {tag} mean",
        "what is {tag}",
        "I found {tag} in a text",
        "do not write {tag}",
        "is {tag} a tag",
        "explain {tag}",
    ),
    ("why do you write {tag}", "what is the meaning of {tag}"),
)
ABOUT_TAGS = "it is a tag that calls a tool."


def no_call(draw: Draw) -> Example | None:
    """Say something that asks for no tool."""
    shown = None
    if draw.chance(0.4):
        style = any_style(draw)
        shown = view(draw, scene_of(draw, plain=style == "flat"), style)
    if draw.chance(0.35):
        text, reply, group = say(draw, TAGS, tag=_tag(draw)), ABOUT_TAGS, "tags"
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
