# SPDX-License-Identifier: Apache-2.0
"""Matching of names and globs to activations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import product

from diffeat.names.grammar import ActivationName

_BRACES = re.compile(r"\{([^{}]*)\}")


def is_pattern(text: str) -> bool:
    """Whether a text has wildcards: ``*``, ``?``, ``[0-3]`` or ``{a,b}``."""
    return any(mark in text for mark in "*?[{")


def matching(
    names: Iterable[ActivationName], patterns: str | ActivationName | Sequence[str | ActivationName]
) -> list[ActivationName]:
    """Keep the names that match at least one pattern, in the order of ``names``.

    Args:
        names: All names of a model, in execution order.
        patterns: Names or globs: ``*`` and ``?`` as in file names, ``[0-3]`` for one of several characters,
            ``{q,k}`` for one of several words.

    Raises:
        LookupError: If a name is not among ``names``, with the closest ones; or if a glob matches none.

    Examples:
        >>> names = [ActivationName.parse(f"vit-block0-self-{letter}") for letter in "qkv"]
        >>> [str(name) for name in matching(names, "*-self-{q,k}")]
        ['vit-block0-self-q', 'vit-block0-self-k']
    """
    ordered = {str(name): name for name in names}
    wanted: set[str] = set()
    several = [patterns] if isinstance(patterns, str | ActivationName) else patterns
    for pattern in map(str, several):
        hits = _hits(pattern, ordered)
        if not hits:
            raise LookupError(explain(pattern, ordered))
        wanted.update(hits)
    return [name for text, name in ordered.items() if text in wanted]


def _hits(pattern: str, names: Iterable[str]) -> list[str]:
    if not is_pattern(pattern):
        return [name for name in names if name == pattern]
    alternatives = expand_braces(pattern)
    return [name for name in names if any(fnmatchcase(name, one) for one in alternatives)]


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{a,b}``: ``"x-{q,k}"`` becomes ``["x-q", "x-k"]``."""
    pieces = _BRACES.split(pattern)
    choices = [piece.split(",") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(words) for words in product(*choices)]


def explain(pattern: str, names: Iterable[str]) -> str:
    """Return the error of a name or glob without a match, with similar names."""
    known = list(names)
    if is_pattern(pattern):
        cure = _near_words(pattern, known) or "list the names with list_activations or 'diffeat names'"
        return f"the pattern {pattern!r} matches none of the {len(known)} activations of this model; {cure}"
    inside = [name for name in known if f"-{pattern}-" in f"-{name}-"]
    if inside:
        shown = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
        cure = "write one in full or a glob"
        return f"{pattern!r} is ambiguous: it is part of {len(inside)} names ({shown}); {cure}"
    near = get_close_matches(pattern, known, n=3, cutoff=0.6)
    cure = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "list the names with list_activations or 'diffeat names'"
    )
    return f"this model has no activation {pattern!r}; {cure}"


def _near_words(pattern: str, names: Iterable[str]) -> str:
    """Suggest another word, if a word of a glob is in no name."""
    words = sorted({word for name in names for word in name.split("-")})
    for word in (word for one in expand_braces(pattern) for word in one.split("-")):
        if word in words or is_pattern(word):
            continue
        if near := get_close_matches(word, words, n=2, cutoff=0.6):
            return f"no name holds {word!r}, did you mean {' or '.join(near)}?"
    return ""
