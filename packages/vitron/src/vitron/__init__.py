# SPDX-License-Identifier: Apache-2.0
"""Reads the calls in a vision language model's reply and has specialists carry them out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from vitron.contract import Instruction, Invocation, Region, SpecialistSpec, Turn
from vitron.language import Grammar, StreamParser, escape, parse, render

if TYPE_CHECKING:
    from vitron.conversation import Conversation
    from vitron.media import Artefact
    from vitron.specialists import SpecialistRegistry

__version__ = version("vitron")

__all__ = [
    "Artefact",
    "Conversation",
    "Grammar",
    "Instruction",
    "Invocation",
    "Region",
    "SpecialistRegistry",
    "SpecialistSpec",
    "StreamParser",
    "Turn",
    "__version__",
    "escape",
    "parse",
    "render",
]

# loaded on first use: whoever only parses needs no picture
_HOMES = {
    "Artefact": "vitron.media",
    "Conversation": "vitron.conversation",
    "SpecialistRegistry": "vitron.specialists",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
