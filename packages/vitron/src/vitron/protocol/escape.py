# SPDX-License-Identifier: Apache-2.0
"""Escaping of text, so that it cannot be parsed as a tag."""

from __future__ import annotations

import re

_AMBIGUOUS = re.compile(r"&(?=lt;|amp;)")
_ENTITY = re.compile(r"&(lt|amp);")
_CHARACTERS = {"lt": "<", "amp": "&"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def escape(text: str) -> str:
    """Escape text so that it holds no tag: every ``<`` becomes ``&lt;``.

    Text of users is escaped before a model or a parser sees it, so that it can never become a call.
    An ``&`` is written as ``&amp;`` only where it would begin one of these two entities.

    Args:
        text: Any text.

    Example:
        >>> escape("1 < 2 & <module>")
        '1 &lt; 2 & &lt;module>'
    """
    return _AMBIGUOUS.sub("&amp;", text).replace("<", "&lt;")


def unescape(text: str) -> str:
    """Undo :func:`escape`; other entities stay as they are."""
    return _ENTITY.sub(lambda found: _CHARACTERS[found[1]], text)


def without_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs, which no encoding of text has, by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def held_back(text: str) -> int:
    """Return the number of characters at the end that may begin an entity."""
    place = text.rfind("&", max(0, len(text) - 4))
    tail = text[place:] if place >= 0 else ""
    return len(tail) if tail and any(whole.startswith(tail) for whole in ("&lt;", "&amp;")) else 0
