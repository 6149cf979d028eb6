# SPDX-License-Identifier: Apache-2.0
"""The language of calls: modules, parser, writer, grammar, and the function calls of OpenAI's interface."""

from vitron.language.escape import escape, unescape
from vitron.language.grammar import Allowed, Grammar
from vitron.language.legacy import LegacyReply, parse_legacy
from vitron.language.modules import MODULES, Argument, Module, ModuleRegistry
from vitron.language.parser import StreamParser, parse
from vitron.language.render import render, render_invocation
from vitron.language.tools import from_message, invocation_schema, to_tool_calls, tool_schemas

__all__ = [
    "MODULES",
    "Allowed",
    "Argument",
    "Grammar",
    "LegacyReply",
    "Module",
    "ModuleRegistry",
    "StreamParser",
    "escape",
    "from_message",
    "invocation_schema",
    "parse",
    "parse_legacy",
    "render",
    "render_invocation",
    "to_tool_calls",
    "tool_schemas",
    "unescape",
]
