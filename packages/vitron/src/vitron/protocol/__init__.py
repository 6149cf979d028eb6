# SPDX-License-Identifier: Apache-2.0
"""The language of calls: modules, parser, writer, grammar, and the function calls of OpenAI's interface."""

from vitron.protocol.escape import escape, unescape
from vitron.protocol.grammar import Allowed, Grammar
from vitron.protocol.legacy import LegacyReply, parse_legacy
from vitron.protocol.modules import MODULES, Argument, Module, ModuleRegistry
from vitron.protocol.parser import StreamParser, parse
from vitron.protocol.render import render, render_invocation
from vitron.protocol.tools import from_message, invocation_schema, to_tool_calls, tool_schemas

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
