# SPDX-License-Identifier: Apache-2.0
"""Baselines: a router that finds the module by a verb, and the commonest answer of each kind of question."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example

from recipes.vitron_tiny.composing import call
from recipes.vitron_tiny.tasks import draw_example, rendered

__all__ = ["RULES", "KeywordRouter", "commonest_answers"]

_ANSWERS_FROM = 600  # training examples

RULES: tuple[tuple[str, str, str, str], ...] = (
    ("restoration", "denoise", r"nois|grain", "the image"),
    ("restoration", "deblur", r"blur|sharp|focus", "the image"),
    ("restoration", "upscale", r"upscale|enlarge|bigger|larger|resolution", "the image"),
    ("video_segmentation", "track", r"\b(?:track|follow) (.+)", r"\1"),
    ("image_editing", "replace", r"\b(?:replace|swap) (.+) (?:with|by|for) (.+)", r"\1 with \2"),
    ("image_editing", "remove", r"\b(?:remove|delete|erase|get rid of) (.+)", r"\1"),
    ("image_editing", "move", r"\b(?:move|shift|push) (.+?) ((?:to the )?(?:left|right|up|down))", r"\1 \2"),
    ("image_editing", "add", r"\b(?:add|put|insert) (.+)", r"\1"),
    (
        "image_editing",
        "recolour",
        r"\b(?:make|paint|recolou?r|turn) (.+?) (?:to )?(\w+)$",
        r"\1 to \2",
    ),
    ("text_to_video", "generate", r"\b(?:video|clip|gif) of (.+)", r"\1"),
    ("text_to_image", "generate", r"\b(?:draw|generate|create|image of|picture of) (.+)", r"\1"),
    ("image_to_video", "animate", r"\b(?:animate|let) (.+)", r"\1"),
    (
        "image_segmentation",
        "segment",
        r"\b(?:segment|mask|mark|highlight|select|outline) (.+)",
        r"\1",
    ),
)
"""Module, verb, pattern, and text of the instruction; the first that matches is called."""


class KeywordRouter:
    """A model without weights: it reads the last user message alone, and has no masks."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Return one call for the first rule that matches, else "yes"."""
        return [self._reply(example.messages[-2].text) for example in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        """Return no mask."""
        return [{} for _ in examples]

    def _reply(self, text: str) -> str:
        text = re.sub(r"\b(please|thanks)\b|[.!?,]+$", "", text.lower()).strip()
        for module, verb, pattern, instruction in RULES:
            found = re.search(pattern, text)
            if found is not None:
                said = found.expand(instruction).strip()
                return rendered("", call(module, (verb, said)))
        return "yes"


@cache
def commonest_answers(task: str) -> Mapping[str, str]:
    """Return the commonest answer of each kind of question among training examples.

    Counted on the judged examples, a dozen of a kind, it would know the luck of the draw.

    Args:
        task: ``question`` or ``video_question``.
    """
    kinds = defaultdict[str, Counter[str]](Counter)
    for index in range(_ANSWERS_FROM):
        example = draw_example(task, 1, index)
        kinds[example.group][example.messages[-1].text] += 1
    return {kind: answers.most_common(1)[0][0] for kind, answers in kinds.items()}
