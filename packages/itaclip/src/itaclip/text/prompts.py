# SPDX-License-Identifier: Apache-2.0
"""Prompts: names and texts in templates, as tokens that fit the context of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# open_clip's tokenizers have no common base; all are called with texts and ``context_length=``
Tokenizer = Callable[..., Tensor]
Templates = str | Sequence[str]
TEMPLATE_SETS = ("imagenet", "photo", "plain")
_FEW_WORDS = 200  # that fit into a message


class PromptTooLongError(ValueError):
    """A prompt has more tokens than the text tower reads; truncated, it would mean something else."""


@lru_cache(maxsize=1)
def _imagenet_templates() -> tuple[str, ...]:
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES  # pulls in torchvision and timm

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def get_templates(templates: Templates = "imagenet") -> tuple[str, ...]:
    """Return templates with one ``{}`` each.

    Args:
        templates: ``"imagenet"`` for the 80 of OpenAI, ``"photo"`` for ``a photo of a {}.``, ``"plain"`` for
            the text alone, or one or more templates of your own.

    Raises:
        ValueError: If the set is unknown or empty, or a template has not one ``{}``.

    Example:
        >>> len(get_templates()), get_templates()[0], get_templates(["a map of {}"])
        (80, 'a bad photo of a {}.', ('a map of {}',))

    Source: the ImageNet prompts of CLIP (arXiv 2103.00020), which arXiv 2411.12044v2 keeps.
    """
    if isinstance(templates, str) and "{}" in templates:
        templates = (templates,)
    if isinstance(templates, str):
        sets = {"photo": ("a photo of a {}.",), "plain": ("{}",)}
        if templates not in TEMPLATE_SETS:
            raise ValueError(f"templates must be one of {', '.join(TEMPLATE_SETS)}, got {templates!r}")
        return _imagenet_templates() if templates == "imagenet" else sets[templates]
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"a template must hold {{}} once, got {template!r}")
    if not templates:
        raise ValueError("templates is empty: give at least one")
    return tuple(templates)


def build_prompts(text: str, templates: Templates = "imagenet") -> list[str]:
    """Return one prompt per template, in their order.

    Example:
        >>> build_prompts("cat", ["a photo of a {}.", "{}"])
        ['a photo of a cat.', 'cat']
    """
    return [template.replace("{}", text) for template in get_templates(templates)]


def context_length(clip_model: Any, tokenizer: Tokenizer) -> int:
    """Return the number of tokens that the text tower reads, start and end included."""
    for owner in (clip_model, tokenizer):
        length = getattr(owner, "context_length", None)
        if isinstance(length, int):
            return length
    raise TypeError(f"the context length is stated by neither {type(clip_model).__name__} nor its tokenizer")


def tokenize(tokenizer: Tokenizer, prompts: Sequence[str], context: int) -> Tensor:
    """Turn prompts into tokens and refuse those that would be truncated.

    Args:
        tokenizer: A tokenizer of open_clip.
        prompts: ``n`` texts.
        context: Number of tokens that the model reads.

    Returns:
        ``(n, context)`` int64, padded at the end.

    Raises:
        PromptTooLongError: If a prompt is longer; the message names it.
    """
    prompts = list(prompts)
    empty, pad = _empty(tokenizer, context)
    # the tokenizers truncate silently, so they get room for one token more than the model has
    wide = tokenizer(prompts, context_length=context + 1)  # (n, context + 1)
    if torch.equal(tokenizer([""], context_length=context + 1)[0, :context], empty):
        tokens = wide[:, :context]
        # where the end token also pads, a prompt without one at its end has lost it
        last = context - 1 if bool((empty == pad).all()) else context
        over = wide[:, last] != pad
    else:  # a class token stands behind the padding
        tokens = tokenizer(prompts, context_length=context)  # (n, context)
        over = (wide != pad).sum(1) > (tokens != pad).sum(1)
    if over.any():
        prompt = prompts[int(over.nonzero()[0, 0])]
        needed = int((tokenizer([prompt], context_length=context + len(prompt.encode()) + 8) != pad).sum())
        shown = prompt if len(prompt) <= 120 else f"{prompt[:120]}..."
        raise PromptTooLongError(
            f"prompt {shown!r} needs {needed} tokens and the model reads {context}: shorten the name or text"
        )
    return tokens


def check_names(
    tokenizer: Tokenizer, names: Sequence[str], owner: Sequence[int], context: int, *, background: bool
) -> None:
    """Refuse names that the tokenizer does not know, and equal tokens for two classes.

    Args:
        tokenizer: A tokenizer of open_clip.
        names: All names.
        owner: Class id of each.
        context: Number of tokens that the model reads.
        background: Whether class 0 is the background, whose names may repeat those of a class.

    Raises:
        ValueError: If a name has no word in a closed vocabulary, or two classes have names with equal
            tokens; the message names them.
        PromptTooLongError: If a name alone is too long.
    """
    empty, _ = _empty(tokenizer, context)
    special = set(empty.tolist())
    unknown = getattr(getattr(tokenizer, "tokenizer", None), "unk_token_id", None)
    seen: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(tokenize(tokenizer, names, context).tolist()):
        content = set(row) - special
        if unknown is not None and unknown not in special and content <= {unknown}:
            raise ValueError(
                f"class name {names[index]!r} has no word that the model's vocabulary knows: "
                f"take {_words(tokenizer)}another model (--model ViT-B-16 --pretrained openai)"
            )
        first = seen.setdefault(tuple(row), index)
        mine, other = owner[index], owner[first]
        if mine != other and not (background and 0 in (mine, other)):
            raise ValueError(
                f"class names {names[first]!r} and {names[index]!r} are the same tokens to this model"
            )


def _empty(tokenizer: Tokenizer, context: int) -> tuple[Tensor, int]:
    row = tokenizer([""], context_length=context)[0]  # (context,)
    # the last place may be a class token
    return row, int(row[-2])


def _words(tokenizer: Tokenizer) -> str:
    """Return the words of a small vocabulary for a sentence; nothing of a large one."""
    read = getattr(getattr(tokenizer, "tokenizer", None), "get_vocab", dict)
    words = sorted(word for word in read() if word.isalpha())
    return f"its words ({', '.join(words)}) or " if 0 < len(words) <= _FEW_WORDS else ""
