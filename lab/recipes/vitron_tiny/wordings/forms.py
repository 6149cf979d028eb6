# SPDX-License-Identifier: Apache-2.0
"""How user messages are worded: forms of a family, polite frames around them, and the noise of typing.

A form is a sentence with slots in braces. A request begins with its verb, so that frames such as "can you
..." fit around it; questions and statements take fewer frames. Held-out forms stand without a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

from recipes.vitron_tiny.scenes import Draw
from recipes.vitron_tiny.wordings.phrases import said

__all__ = ["Family", "Kind", "Place", "expand", "family", "framed", "typed", "worded"]

Kind = Literal["request", "question", "statement", "fixed"]
Place = Literal["", "image", "video"]

_COMMON = 8  # so many first forms of a family are what most people type
_COMMON_SHARE = 0.25
_BARE = {"request": 0.4, "question": 0.7, "statement": 0.7, "fixed": 1.0}  # share without a frame
_LONGEST = 9  # words of a form that still takes a frame
_PLACED = 0.12
_TYPOS = 0.04
_UPPER = 0.01
_UNPUNCTUATED = 0.15  # without commas
_CHOICE = re.compile(r"\(([^()]*)\)")
_LITERAL_WORD = re.compile(r"(?<![{\w'<])[a-z]{4,}(?![}\w'>])")

FRAMES: dict[Kind, tuple[str, ...]] = {
    "request": (
        *("please {}", "{} please", "{}, please", "can you {}", "could you {}", "can you please {}"),
        *("could you please {}", "would you {}", "would you please {}", "will you {}", "can u {}", "pls {}"),
        *("I want you to {}", "I'd like you to {}", "I would like you to {}", "I need you to {}"),
        *("hey, {}", "hey, can you {}", "hi, could you {}", "hi, please {}", "hello, can you {}"),
        *("now {}", "now please {}", "okay, {}", "ok, {}", "ok now {}", "okay, now {}", "alright, {}"),
        *("next, {}", "then {}", "so {}", "just {}", "go ahead and {}", "try to {}", "{} now", "{}, thanks"),
        *("I was hoping you could {}", "you should {}", "I think you should {}", "thanks, now {}"),
        *("great, now {}", "good, now {}", "first, {}", "also {}", "and {}", "and now {}", "finally, {}"),
        *(
            "is it possible to {}",
            "are you able to {}",
            "would you be able to {}",
            "would it be possible to {}",
        ),
        *(
            "do you think you could {}",
            "I was wondering if you could {}",
            "it would be great if you could {}",
        ),
        *("{} if you can", "if possible, {}", "please just {}", "please could you {}", "can you quickly {}"),
        *("vitron, {}", "hey vitron, {}", "hello, please {}", "{} thx", "{} ok", "maybe you could {}"),
        *("why don't you {}", "perhaps {}", "oh, and {}", "your task is to {}", "you can {} now"),
        *("{} for me", "can you {} for me", "could you {} for me", "please {} for me"),
        *("I want to {}", "I'd like to {}", "I would like to {}", "I need to {}", "I wanna {}", "help me {}"),
        *("help me to {}", "can you help me {}", "let's {}", "let us {}", "can we {}", "could we {}"),
        *("we need to {}", "how about we {}", "why don't we {}", "I'm trying to {}"),
    ),
    "question": (
        *("hey, {}", "ok, {}", "okay, {}", "so {}", "and {}", "now, {}", "hi, {}", "please tell me: {}"),
        *("hey, quick question: {}", "question: {}", "I wonder, {}"),
    ),
    "statement": (
        *("{} please", "{}, please", "hey, {}", "ok, {}", "okay, {}", "now {}", "so {}", "{}, thanks"),
        *("ok now {}", "hi, {}", "actually, {}", "alright, {}", "vitron, {}", "oh, {}", "well, {}"),
    ),
    "fixed": (),
}
"""What may stand around a form of each kind."""

# around "show me ..." another person must be the one who acts
_BY_USER = re.compile(
    r"(^|\b)(for me|I want to|I'd like to|I would like to|I need to|I wanna|help me|let|we|I'm trying to)\b"
)
_PERSON = re.compile(r"\b(me|my|I)\b|^say\b")
PLACES: dict[Place, tuple[str, ...]] = {
    "": (),
    "image": (
        *("in this image", "in the image", "in this photo", "in the photo", "in this picture"),
        *("in the picture", "in this pic", "here"),
    ),
    "video": ("in this video", "in the video", "in this clip", "in the clip", "here"),
}
"""Ends of a sentence that say where a thing is."""
_ASKING = re.compile(
    r"^(\w+, )?((can|could|would|will|should|may|might|who|whom|how|what|which|where|when|why"
    r"|does|did|is|isn't|are|aren't|am|was|has|any idea)\b(?! an?\b| nice)|(do|have) (you|I|we|they|any)\b)"
)
_PLACEABLE = re.compile(r"\{(thing|things|to|subject)\}$")


class Family(NamedTuple):
    """Wordings of one request.

    Attributes:
        train: Forms of training, the commonest first.
        held_out: Forms that training never shows, neither bare nor framed.
        kinds: Kind of each form of ``train``.
        place: Kind of medium that a sentence may name at its end.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    kinds: tuple[Kind, ...]
    place: Place = ""


def expand(lines: str) -> Iterator[str]:
    """Yield the forms of a text with one template on each line, where ``(a|b)`` is either, also nested."""
    for line in filter(None, map(str.strip, lines.splitlines())):
        parts = _CHOICE.split(line)
        options = [part.split("|") if place % 2 else [part] for place, part in enumerate(parts)]
        for chosen in product(*options):
            form = " ".join("".join(chosen).split())
            yield from expand(form) if "(" in form else [form]


def family(
    *,
    requests: str = "",
    questions: str = "",
    statements: str = "",
    fixed: str = "",
    held_out: str,
    place: Place = "",
) -> Family:
    """Return the family of templates; each text is read by :func:`expand`."""
    kinds: dict[str, Kind] = {}
    named: tuple[tuple[Kind, str], ...] = (
        *(("request", requests), ("question", questions), ("statement", statements), ("fixed", fixed)),
    )
    for kind, lines in named:
        for form in expand(lines):
            kinds.setdefault(form, kind)
    held = tuple(dict.fromkeys(expand(held_out)))
    return Family(tuple(kinds), held, tuple(kinds.values()), place)


def framed(form: str, kind: Kind, place: Place = "") -> list[str]:
    """Return all sentences that training makes of a form, itself included, its slots still open."""
    cores = [form]
    if kind != "fixed" and _PLACEABLE.search(form):
        cores += [f"{form} {where}" for where in PLACES[place]]
    return [*cores, *(frame.replace("{}", core) for core in cores for frame in _fitting(form, kind))]


@cache
def _fitting(form: str, kind: Kind) -> list[str]:
    by_user = _PERSON.search(form) is not None
    return [frame for frame in FRAMES[kind] if not (by_user and _BY_USER.search(frame))]


def worded(draw: Draw, family: Family, mark: str = ".", **slots: str) -> str:
    """Return a user text: a form, perhaps in a frame, reworded and typed as people do.

    Args:
        draw: Source of the choices; its phrasing chooses between the two sets of forms.
        family: Wordings to choose from.
        mark: Usual end of a statement; requests and questions have their own.
        slots: Canonical words for the slots, which :func:`~recipes.vitron_tiny.wordings.said` rewords.
    """
    if draw.phrasing == "train":
        forms = family.train
        common = draw.chance(_COMMON_SHARE)
        place = int(draw.rng.integers(min(_COMMON, len(forms)) if common else len(forms)))
        form, kind = forms[place], family.kinds[place]
        text = form
        if kind != "fixed" and family.place and _PLACEABLE.search(form) and draw.chance(_PLACED):
            text = f"{text} {draw.pick(*PLACES[family.place])}"
        if len(form.split()) <= _LONGEST and not draw.chance(_BARE[kind]):
            text = draw.pick(*_fitting(form, kind)).replace("{}", text)
        text = _mistyped(draw, text) if draw.chance(_TYPOS) else text
        end = "?" if kind == "question" or _ASKING.match(text) else "." if kind == "request" else mark
    else:
        text = draw.pick(*family.held_out)
        end = "?" if _ASKING.match(text) else mark
    if draw.chance(_UNPUNCTUATED):
        text = text.replace(",", "")
    return typed(draw, text.format(**{name: said(draw, slot) for name, slot in slots.items()}), end)


def _mistyped(draw: Draw, text: str) -> str:
    """Drop, double or swap a letter of one word outside the slots."""
    words = list(_LITERAL_WORD.finditer(text))
    if not words:
        return text
    word = draw.pick(*words)
    at = word.start() + 1 + int(draw.rng.integers(len(word[0]) - 2))
    change: Callable[[str, str], str] = draw.pick(
        lambda one, other: other, lambda one, other: one + one + other, lambda one, other: other + one
    )
    return text[:at] + change(text[at], text[at + 1]) + text[at + 2 :]


def typed(draw: Draw, text: str, end: str = ".") -> str:
    """Return a sentence as it may be typed: capital letter, end mark and apostrophes come and go.

    Args:
        draw: Source of the choices.
        text: The sentence, without an end mark.
        end: Its usual end mark.
    """
    luck = draw.rng.random()
    if luck < _UPPER and "<" not in text:
        text = text.upper()
    elif luck < 0.4:
        text = text[0].upper() + text[1:]
    elif luck < 0.5 and "<" not in text:
        text = text.replace("I'", "i'").replace("I ", "i ")
    if draw.chance(0.1):
        text = text.replace("'", "")
    if not text[-1].isalnum():
        return text
    luck = draw.rng.random()
    return text + (
        end
        if luck < 0.45
        else "!"
        if luck < 0.48
        else "..."
        if luck < 0.49
        else 2 * end
        if luck < 0.5
        else ""
    )
