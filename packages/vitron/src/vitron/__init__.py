# SPDX-License-Identifier: Apache-2.0
"""A vision language model that understands, segments, makes and edits pictures and clips."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from vitron.protocol import Grammar, StreamParser, escape, parse, render
from vitron.protocol.contract import Instruction, Invocation, Region, SpecialistSpec, Turn

if TYPE_CHECKING:
    from vitron.model.engine import Vitron
    from vitron.protocol.media import Artefact
    from vitron.session import Conversation
    from vitron.specialists import Specialist, SpecialistRegistry

__version__ = version("vitron")

__all__ = [
    "Artefact",
    "Conversation",
    "Grammar",
    "Instruction",
    "Invocation",
    "Region",
    "Specialist",
    "SpecialistRegistry",
    "SpecialistSpec",
    "StreamParser",
    "Turn",
    "Vitron",
    "__version__",
    "escape",
    "parse",
    "render",
]

# loaded on first use: whoever only parses needs no picture, and no torch
_HOMES = {
    "Artefact": "vitron.protocol.media",
    "Conversation": "vitron.session",
    "Specialist": "vitron.specialists",
    "SpecialistRegistry": "vitron.specialists",
    "Vitron": "vitron.model.engine",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
