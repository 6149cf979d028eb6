# SPDX-License-Identifier: Apache-2.0
"""``vitron parse``: shows what an assistant message holds."""

from __future__ import annotations

from typing import Annotated

from common_kernels.runtime.cli import say
from cyclopts import Parameter

from vitron.cli.options import OUTPUT, read_text


def parse(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    legacy: Annotated[bool, Parameter(negative="")] = False,
    debug: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
) -> int:
    """Show text, calls, signals, spans and issues of an assistant message as JSON.

    Exit code 1 if there are issues.

    **Examples**

        vitron parse "On it. <module>C</module><instruction>remove: the dog</instruction>"

    Args:
        text: Assistant message; - reads it from stdin.
        legacy: Parse as the published code does, its losses included.
        debug: Traceback of an error instead of one sentence.
    """
    from vitron.protocol import parse as parse_message

    turn = parse_message(read_text(text), legacy=legacy)
    say(turn.model_dump_json(indent=2))
    return int(bool(turn.issues))
