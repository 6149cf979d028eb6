# SPDX-License-Identifier: Apache-2.0
"""``vitron grammar``: writes the grammar of calls for a server."""

from __future__ import annotations

from typing import Annotated, Literal

from common_kernels.runtime.cli import say
from cyclopts import Parameter

from vitron.cli.options import OUTPUT


def grammar(
    *,
    form: Literal["lark", "ebnf"] = "lark",
    num_signals: tuple[int, int] = (4, 4),
    spaced: Annotated[bool, Parameter(negative="")] = False,
    debug: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
) -> None:
    """Show the grammar of whole messages, for servers that constrain what a model generates.

    The form "lark" is that of llguidance: vLLM and SGLang with the backend "guidance". The form "ebnf" is
    that of xgrammar: vLLM, SGLang and TensorRT-LLM; with it corners of boxes may come in any order.

    **Examples**

        vitron grammar > calls.lark
        vitron grammar --form ebnf --num-signals 0 0 > calls.ebnf

    Args:
        form: Format of the grammar.
        num_signals: Numbers of task-specific and of shared signal tokens behind each call; 0 0 for a model
            without them.
        spaced: Allow spaces around tags and numbers, for tokenizers that add them.
        debug: Traceback of an error instead of one sentence.
    """
    from vitron.protocol import call_ebnf, call_grammar

    if min(num_signals) < 0:
        raise ValueError(f"--num-signals must not be negative, got {num_signals[0]} {num_signals[1]}")
    specific, shared = num_signals
    signals = [f"<sig_p{number}>" for number in range(specific)]
    signals += [f"<sig_s{number}>" for number in range(shared)]
    if form == "ebnf":
        say(call_ebnf(signals=signals, spaced=spaced))
    else:
        say(call_grammar(signals=signals, spaced=spaced, special_tags=bool(signals)))
