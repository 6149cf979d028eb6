# SPDX-License-Identifier: Apache-2.0
"""Check of auxiliary texts before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from itaclip.text.classes import ClassList
from itaclip.text.prompts import (
    PromptTooLongError,
    Templates,
    Tokenizer,
    build_prompts,
    check_names,
    context_length,
    tokenize,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Result of the check.

    Attributes:
        faults: Faults that make the texts unusable with this model, a sentence each.
        remarks: Remarks on what is allowed but may lower the score.
        longest: Number of tokens of the longest prompt that fits.
        context: Number of tokens that the model reads.
    """

    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    longest: int
    context: int


def review_texts(
    classes: ClassList,
    texts: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
    *,
    context: int | None = None,
    templates: Templates = "imagenet",
) -> Review:
    """Check names and texts against a tokenizer, and the texts against each other.

    Args:
        classes: The classes.
        texts: Texts of each class but the background, from :func:`itaclip.text.aux_texts`.
        tokenizer: A tokenizer of open_clip.
        context: Number of tokens that the model reads; that of the tokenizer if ``None``.
        templates: Prompt templates, as for :func:`itaclip.text.get_templates`.
    """
    context = context_length(None, tokenizer) if context is None else context
    faults: list[str] = []
    remarks: list[str] = []
    longest = 0
    for text in (*classes.names, *(text for row in texts for text in row)):
        try:
            tokens = tokenize(tokenizer, build_prompts(text, templates), context)  # (templates, context)
        except PromptTooLongError as error:
            faults.append(str(error))
        else:
            longest = max(longest, int((tokens != tokens[:, -1:]).sum(1).max()))
    try:
        check_names(tokenizer, classes.names, classes.owner, context, background=classes.background)
    except ValueError as error:
        faults.append(str(error))
    first_of: dict[str, str] = {}
    labels = {label.casefold(): label for label in classes.foreground}
    for label, row in zip(classes.foreground, texts, strict=True):
        if not row:
            remarks.append(f"{label!r} has no text and is not mixed")
        for text in row:
            key = text.strip().casefold()
            if text.strip().endswith("."):
                remarks.append(f"the text of {label!r} ends in a full stop, and templates add another")
            if key in labels:
                remarks.append(f"the text of {label!r} is the name of the class {labels[key]!r}")
            if (other := first_of.setdefault(key, label)) != label:
                remarks.append(f"{label!r} and {other!r} have the same text")
    return Review(faults=tuple(faults), remarks=tuple(remarks), longest=longest, context=context)
