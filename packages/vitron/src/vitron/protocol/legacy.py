# SPDX-License-Identifier: Apache-2.0
"""Parses an assistant message with the losses of the published code.

The result is that of the published code's regular expressions, in linear time. It is meant for comparisons:
how many calls of a model each parser keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitron.protocol.contract import Instruction, Invocation, Turn
from vitron.protocol.modules import ModuleRegistry

LETTERS = "ABCDEFG"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyReply:
    """Result of the published code for an assistant message.

    Attributes:
        text: Text for the user.
        module: Content of the first module tag; ``None`` if there is none.
        instruction: Text behind the last colon of each instruction, of all calls together.
        region: Content of the first region tag, which is not used.
        runs: Whether the call runs: not with an unknown letter, without an instruction, or for
            ``F`` with fewer than two.
    """

    text: str
    module: str | None
    instruction: tuple[str, ...]
    region: str | None
    runs: bool

    def to_turn(self, modules: ModuleRegistry) -> Turn:
        """Return the result as a turn: at most one call, no region."""
        module = modules.resolve(self.module) if self.runs and self.module is not None else None
        said = tuple(Instruction(text=text) for text in self.instruction if text.strip())
        calls = () if module is None else (Invocation(module=module.name, instruction=said),)
        return Turn(text=self.text, invocations=calls)


def parse_legacy(reply: str) -> LegacyReply:
    """Parse an assistant message like the published code.

    Tags are matched in lower case and on one line; only the first module is used, with the instructions of
    all calls; text up to the last colon is lost; text between two pairs of angle brackets is removed from
    the text for the user, while an end mark at the end stays.

    Args:
        reply: Raw assistant message.

    Example:
        >>> parse_legacy("<module>B</module><instruction>find: a clock at 10:45</instruction>").instruction
        ('45',)
    """
    modules, regions = _between(reply, "module"), _between(reply, "region")
    said = [text.split(":")[-1].strip() for text in _between(reply, "instruction")]
    module = modules[0] if modules else None
    known = module is not None and len(module) == 1 and module in LETTERS
    return LegacyReply(
        text=_clean(reply),
        module=module,
        instruction=tuple(said),
        region=regions[0] if regions else None,
        runs=known and len(said) >= (2 if module == "F" else 1),
    )


def _between(reply: str, tag: str) -> list[str]:
    """Return the matches of ``<tag>(.*?)</tag>``, in linear time."""
    found, opening, closing = list[str](), f"<{tag}>", f"</{tag}>"
    for line in reply.split("\n"):
        place = 0
        while (start := line.find(opening, place)) >= 0:
            stop = line.find(closing, start)
            if stop < 0:
                break
            found.append(line[start + len(opening) : stop])
            place = stop + len(closing)
    return found


def _clean(reply: str) -> str:
    """Remove what ``<[^>]+>.*?<[^>]+>`` matches, in linear time."""
    out, place = list[str](), 0
    while (start := _tag(reply, place)) is not None:
        first = reply.index(">", start)
        line = reply.find("\n", first)
        second = _tag(reply, first + 1, len(reply) if line < 0 else line)
        if second is None:
            # a further tag in this line would have been the second one
            if line < 0:
                break
            out.append(reply[place:line])
            place = line
        else:
            out.append(reply[place:start])
            place = reply.index(">", second) + 1
    return "".join([*out, reply[place:]])


def _tag(text: str, place: int, end: int | None = None) -> int | None:
    """Return the start of the next ``<[^>]+>`` that begins before ``end``."""
    while (start := text.find("<", place, end)) >= 0:
        if text.find(">", start) < 0:
            return None
        if not text.startswith(">", start + 1):
            return start
        place = start + 2
    return None
