# SPDX-License-Identifier: Apache-2.0
"""Writes calls in the format of the model; the inverse of the parser."""

from __future__ import annotations

from vitron.protocol.contract import Invocation, Signal, Turn
from vitron.protocol.escape import escape
from vitron.protocol.modules import MODULES, ModuleRegistry
from vitron.protocol.regions.text import format_frames, format_region


def render(turn: Turn, *, modules: ModuleRegistry = MODULES) -> str:
    """Write a turn: its text, then its calls in order, each with its signals.

    Coordinates are rounded to steps of 1/999, see :func:`vitron.protocol.regions.snap`. Everything else is
    restored exactly by :func:`vitron.protocol.parse`.

    Raises:
        ValueError: If a call cannot be written: unknown module or verb, an argument that the module does not
            have, an empty call.
    """
    parts = [escape(turn.text), *_signals(turn, None)]
    for index, call in enumerate(turn.invocations):
        parts += [render_invocation(call, modules=modules), *_signals(turn, index)]
    return "".join(parts)


def _signals(turn: Turn, invocation: int | None) -> list[str]:
    return [_signal(signal) for signal in turn.signals if signal.invocation == invocation]


def _signal(signal: Signal) -> str:
    return f"<sig_{'p' if signal.kind == 'specific' else 's'}{signal.index}>"


def render_invocation(call: Invocation, *, modules: ModuleRegistry = MODULES) -> str:
    """Write one call.

    Raises:
        ValueError: If the call cannot be written; see :func:`render`.

    Example:
        >>> from vitron import Instruction
        >>> render_invocation(Invocation(module="restoration", instruction=(Instruction(verb="denoise"),)))
        '<module>restoration</module> <instruction>denoise:</instruction>'
    """
    if call.module not in modules:
        raise ValueError(f"there is no module {call.module!r}")
    module = modules[call.module]
    said = [module.write(instruction) for instruction in call.instruction]
    for name, value in call.args.items():
        if name not in module.table or not module.table[name].accepts(value):
            raise ValueError(f"{module.name} has no argument {name} that can be {value!r}")
        said.append(f"{name}: {value}")
    if not said and call.region is None and call.frames is None:
        raise ValueError(f"a call of {module.name} needs an instruction, an argument or a region")
    blocks = [f"<module>{module.name}</module>"]
    blocks += [f"<instruction>{escape(text)}</instruction>" for text in said]
    if call.region is not None or call.frames is not None:
        place = [] if call.region is None else [format_region(call.region)]
        place += [] if call.frames is None else [format_frames(call.frames)]
        blocks.append(f"<region>{escape(' '.join(place))}</region>")
    return " ".join(blocks)
