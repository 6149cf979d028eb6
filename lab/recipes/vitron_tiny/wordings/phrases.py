# SPDX-License-Identifier: Apache-2.0
"""Other words for a noun phrase of the instructions, as users say them; the meaning stays."""

from __future__ import annotations

import re

from recipes.vitron_tiny.scenes import Draw

__all__ = ["said"]

_COLOUR = r"red|orange|yellow|green|cyan|blue|purple|pink|white|black|brown|grey"
_MATERIAL = r"solid|striped|dotted"
_SHAPE = r"circle|square|triangle|star|cross|thing"
_ORDER = "leftmost|rightmost|highest|lowest"
_NOUN = re.compile(
    rf"\b(?P<article>(?:the|an|a) )?(?P<order>(?:{_ORDER}) )?(?P<size>(?:small|large) )?"
    rf"(?P<material>(?:{_MATERIAL}) )?(?P<colour>(?:{_COLOUR}) )?(?P<shape>{_SHAPE})(?P<plural>e?s)?\b"
)

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("disc", "disk", "ball", "round shape", "round thing", "circular shape"),
    "square": ("square shape", "block"),
    "triangle": ("triangular shape",),
    "star": ("star shape",),
    "cross": ("plus sign", "cross shape"),
    "thing": ("object", "shape", "item"),
}
"""Other words for a shape; all take a plural s."""
COLOURS = {"purple": "violet", "grey": "gray"}
SIZES = {"small": ("little", "tiny"), "large": ("big",)}
_PATTERNS = {
    "striped": ("with stripes", "that has stripes", "that is striped"),
    "dotted": ("with dots", "that has dots", "that is dotted"),
    "solid": ("that is solid",),
}
_BEFORE = {
    "leftmost": ("left-most", "furthest left", "far left"),
    "rightmost": ("right-most", "furthest right", "far right"),
    "highest": ("topmost", "uppermost", "top"),
    "lowest": ("bottommost", "lowermost", "bottom"),
}
_BEHIND = {
    "leftmost": ("furthest to the left", "on the far left", "farthest left", "that is furthest left"),
    "rightmost": ("furthest to the right", "on the far right", "farthest right", "that is furthest right"),
    "highest": ("at the very top", "closest to the top", "that is highest", "highest up"),
    "lowest": ("at the very bottom", "closest to the bottom", "that is lowest", "furthest down"),
}
# of places and relations, each group says the same
_PHRASES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"\bat the (top|bottom) (left|right)\b"), (r"in the \1 \2 corner", r"in the \1 \2")),
    (
        re.compile(r"\bat the (left|right)\b"),
        (r"on the \1", r"on the \1 side", r"on the \1-hand side"),
    ),
    (re.compile(r"\bat the (top|bottom)\b(?! left| right)"), (r"near the \1", r"in the \1 part")),
    (re.compile(r"\bin the middle\b"), ("in the center", "in the centre", "at the center")),
    (
        re.compile(r"(?<!the )(?<!hand )\b(left|right) of\b"),
        (r"to the \1 of", r"on the \1 of", r"on the \1 side of"),
    ),
    (re.compile(r"\bbelow\b"), ("under", "underneath", "beneath")),
    (re.compile(r"\babove\b"), ("higher than", "higher up than")),
    (re.compile(r"\bmoving\b"), ("that moves", "going", "that is moving")),
    (
        re.compile(r"\bon an? (\w+) background\b"),
        (r"on \1", r"with a \1 background", r"in front of a \1 background"),
    ),
    (re.compile(r"^to the (left|right)$"), (r"\1", r"towards the \1", r"to the \1 side", r"\1wards")),
    (re.compile(r"^(up|down)$"), (r"\1wards", r"\1ward")),
)
_SEVERAL = re.compile(r"all ((?:\w+ )?(?:circle|square|triangle|star|cross(?=e)|thing))e?s")
_MARKED = (
    *("this", "what I marked", "the marked object", "this one", "this thing", "what is in my box"),
    *("my selection", "the thing I marked", "the selected object", "what I selected", "the marked area"),
    *("the object in my box", "what I circled", "this object", "the thing here"),
)
# phrases that are the whole of a slot; grey alone is a style, for no object becomes grey
_WHOLE = {"this": _MARKED, "grey": ("gray", "black and white", "grayscale", "greyscale")}
_EVERY = (
    "all the {}s",
    "all of the {}s",
    "every {}",
    "each {}",
    "each of the {}s",
    "every single {}",
    "the {}s",
)
_CANONICAL = 0.5  # share of the phrases that stay as they are
_REWORDED = 0.5  # share of the parts of others that do not


def said(draw: Draw, phrase: str) -> str:
    """Return other words for a phrase of an instruction.

    Args:
        draw: Source of the choices.
        phrase: Noun phrases of the small world with their places and relations, or a direction: "the leftmost
            star", "a small red circle at the left and a blue star", "all circles", "to the left", and "this"
            for what the user marked. What is unknown stays.

    Example:
        ``"the leftmost red circle"`` may become ``"the red disc on the far left"``.
    """
    if draw.chance(_CANONICAL):
        return phrase
    if phrase in _WHOLE:
        return draw.pick(*_WHOLE[phrase])
    if several := _SEVERAL.fullmatch(phrase):
        phrase = draw.pick(*_EVERY).format(several[1]).replace("crosss", "crosses")
    for pattern, others in _PHRASES:
        if draw.chance(_REWORDED):
            phrase = pattern.sub(draw.pick(*others), phrase)
    phrase = _NOUN.sub(lambda found: _noun(draw, found), phrase)
    for one, other in COLOURS.items():
        if draw.chance(_REWORDED):
            phrase = re.sub(rf"\b{one}\b", other, phrase)
    return phrase


def _noun(draw: Draw, found: re.Match[str]) -> str:
    part = {name: (text or "").strip() for name, text in found.groupdict().items()}
    article, shape = part["article"], part["shape"]
    # "at the left", "moving up", "above the star": not the next of a list
    rest = re.match(r" (?!and\b)", found.string[found.end() :]) is not None
    before, behind = [part["size"]], list[str]()
    if part["size"] and draw.chance(_REWORDED):
        before = [draw.pick(*SIZES[part["size"]])]
    order = part["order"]
    # what stands behind a noun must not come between it and its place
    if order and not rest and not part["plural"] and draw.chance(0.4):
        behind.append(draw.pick(*_BEHIND[order]))
    elif order:
        before.insert(0, draw.pick(*_BEFORE[order]) if draw.chance(_REWORDED) else order)
    material, colour = part["material"], part["colour"]
    if material and not rest and not behind and not part["plural"] and draw.chance(0.4):
        behind.append(draw.pick(*_PATTERNS[material]))
        material = ""
    elif colour and not material and not rest and not behind and not part["plural"] and draw.chance(0.15):
        behind.append(draw.pick("that is {}", "that's {}", "which is {}").format(colour))
        colour = ""
    looks = [material, colour]
    if draw.chance(0.2):
        looks.reverse()
    if draw.chance(0.35):
        shape = draw.pick(*SHAPES[shape])
    noun = " ".join(filter(None, [*before, *looks, _plural(shape) if part["plural"] else shape, *behind]))
    if article == "the":
        if rest and draw.chance(0.12):
            noun = f"{noun} {draw.pick('that is', 'which is', 'that lies')}"
        luck = draw.rng.random()
        is_part = found.string[: found.start()].endswith("of ")  # "each of the circles"
        article = "the" if is_part or luck > 0.17 else "that" if luck > 0.12 else ""
    elif article:
        article = "an" if noun[0] in "aeiou" else "a"
    return " ".join(filter(None, [article, noun]))


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")
