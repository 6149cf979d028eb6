# SPDX-License-Identifier: Apache-2.0
"""Further wordings of questions, for training alone; the held-out ones are shapeworld's own."""

from __future__ import annotations

from collections.abc import Mapping

from shapeworld.questions import Kind, Query, slots

from recipes.vitron_tiny.scenes import Draw

__all__ = ["WORDINGS", "rephrased"]

_ATTRIBUTE = (
    *("which {word} has the {subject}", "tell me the {word} of the {subject}", "{word} of the {subject}"),
    *("I want to know the {word} of the {subject}", "what {word} does the {subject} have"),
    *("the {subject}: what {word} is it", "say what {word} the {subject} is"),
)
_CLAIM = (
    *(
        "tell me if the {subject} is {word}",
        "do you see the {subject} {word}",
        "the {subject} is {word}, right",
    ),
    *("is it true that the {subject} is {word}", "would you say the {subject} is {word}"),
)
WORDINGS: Mapping[Kind, tuple[str, ...]] = {
    "count": (
        *("count the {subject}", "what is the number of {subject}", "how many {subject} do you see"),
        *("tell me how many {subject} there are", "number of {subject}", "how many {subject} can you count"),
        *("I see {subject}: how many are there", "of {subject} how many do you see"),
    ),
    "existence": (
        *("do you see {subject}", "can you see {subject}", "does this picture show {subject}"),
        *("tell me if there is {subject}", "is {subject} in this picture", "have you found {subject}"),
        *("do you see {subject} there", "is {subject} anywhere"),
    ),
    "colour": _ATTRIBUTE,
    "shape": _ATTRIBUTE,
    "material": _ATTRIBUTE,
    "position": _CLAIM,
    "relation": _CLAIM,
    "comparison": (
        *("do you see {word} {subject} than {other}", "tell me if there are {word} {subject} than {other}"),
        *("is it true that there are {word} {subject} than {other}", "{word} {subject} than {other}"),
        *("would you say there are {word} {subject} than {other}",),
    ),
}
"""Sentences by what is asked for; slots are those of the world's questions."""


def rephrased(draw: Draw, query: Query) -> str:
    """Return a question in a wording of this module."""
    return draw.pick(*WORDINGS[query.kind]).format(**slots(query))
