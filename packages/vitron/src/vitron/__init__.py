# SPDX-License-Identifier: Apache-2.0
"""Reads the calls in a vision language model's reply and has specialists carry them out."""

from __future__ import annotations

from importlib.metadata import version

from vitron.contract import Instruction, Invocation, Region, SpecialistSpec, Turn
from vitron.language import Grammar, StreamParser, escape, parse, render

__version__ = version("vitron")

__all__ = [
    "Grammar",
    "Instruction",
    "Invocation",
    "Region",
    "SpecialistSpec",
    "StreamParser",
    "Turn",
    "__version__",
    "escape",
    "parse",
    "render",
]
