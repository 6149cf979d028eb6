# SPDX-License-Identifier: Apache-2.0
"""Text that cannot be taken for a tag."""

from __future__ import annotations

import re

_AMBIGUOUS = re.compile(r"&(?=lt;|amp;)")
_ENTITY = re.compile(r"&(lt|amp);")
_CHARACTERS = {"lt": "<", "amp": "&"}


def escape(text: str) -> str:
    """Write text so that it holds no tag: every ``<`` becomes ``&lt;``.

    What a user says goes through here before a model or a parser sees it, so that it can never make a call.
    An ``&`` is written as ``&amp;`` only where it would begin one of these two entities.

    Args:
        text: Anything.

    Example:
        >>> escape("1 < 2 & <module>")
        '1 &lt; 2 & &lt;module>'
    """
    return _AMBIGUOUS.sub("&amp;", text).replace("<", "&lt;")


def unescape(text: str) -> str:
    """Undo :func:`escape`; other entities stay as they are."""
    return _ENTITY.sub(lambda found: _CHARACTERS[found[1]], text)


def held_back(text: str) -> int:
    """Return how many characters at the end may be the beginning of an entity."""
    place = text.rfind("&", max(0, len(text) - 4))
    tail = text[place:] if place >= 0 else ""
    return len(tail) if tail and any(whole.startswith(tail) for whole in ("&lt;", "&amp;")) else 0
