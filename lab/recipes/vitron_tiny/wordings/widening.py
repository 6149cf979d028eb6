# SPDX-License-Identifier: Apache-2.0
"""More forms of training for each family, from the TOML files of ``paraphrases/``.

They were written from a sample of the forms of training alone, without a look at the held-out ones: a table
for each family, with the texts that :func:`~recipes.vitron_tiny.wordings.forms.expand` reads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

from recipes.vitron_tiny.wordings.forms import Family, Kind, expand

__all__ = ["widen", "widen_all"]

_FOLDER = Path(__file__).with_name("paraphrases")
_KINDS: Mapping[str, Kind] = {
    "requests": "request",
    "questions": "question",
    "statements": "statement",
    "fixed": "fixed",
}


@cache
def _paraphrases() -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    for file in sorted(_FOLDER.glob("*.toml")):
        tables |= cast("dict[str, dict[str, str]]", tomllib.loads(file.read_text("utf-8")))
    return tables


def widen(name: str, family: Family) -> Family:
    """Return a family with its paraphrases behind its own forms.

    Args:
        name: Name of the family; that of a mapping and the key, with a dot between, in a mapping.
        family: Family.
    """
    kinds = dict(zip(family.train, family.kinds, strict=True))
    for kind, lines in _paraphrases()[name].items():
        for form in expand(lines):
            kinds.setdefault(form, _KINDS[kind])
    return family._replace(train=tuple(kinds), kinds=tuple(kinds.values()))


def widen_all(name: str, families: Mapping[str, Family]) -> dict[str, Family]:
    """Return all families of a mapping with their paraphrases."""
    return {key: widen(f"{name}.{key}", family) for key, family in families.items()}
