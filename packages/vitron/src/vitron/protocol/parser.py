# SPDX-License-Identifier: Apache-2.0
"""Parses assistant messages: text, calls, signals and issues, whole or as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vitron.errors import RegionError, explain
from vitron.protocol.contract import (
    ArgValue,
    Instruction,
    Invocation,
    Issue,
    IssueCode,
    Region,
    Signal,
    Span,
    SpanKind,
    Turn,
)
from vitron.protocol.escape import held_back, unescape, without_surrogates
from vitron.protocol.legacy import parse_legacy
from vitron.protocol.lexer import Lexer, Token
from vitron.protocol.modules import MODULES, Module, ModuleRegistry
from vitron.protocol.regions.text import Frames, parse_region

MAX_MODULE = 64  # characters after which an open module tag is treated as text
MAX_LEADING = 512  # the same for an instruction tag that is not behind a module
_GAP = "\u200b"  # no space: what is left and right of a broken tag joins to no other one
Event = str | Invocation | Issue


@dataclass(slots=True)
class _Call:
    """A call that is being parsed; a leading one begins with instructions, before its module."""

    start: int
    leads: bool = False
    gap: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    length: int = 0
    content_start: int = 0
    has_module: bool = False
    module: Module | None = None
    leading: list[str] = field(default_factory=list)
    instruction: list[Instruction] = field(default_factory=list)
    args: dict[str, ArgValue] = field(default_factory=dict)
    region: Region | None = None
    frames: Frames | None = None
    bad_region: Issue | None = None
    has_region: bool = False
    sealed: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.instruction or self.args or self.has_region)


class StreamParser:
    """Parses a message as it arrives, in chunks of any size.

    A call is a module, then instructions, then at most one region; white space may separate them, and
    instructions may also precede the module. Tags are read in any case and never shown: outside a call, only
    the content of region tags is text. No input raises an exception: a call that cannot be parsed is an
    issue, and ``spans`` joined are the message.

    Args:
        modules: Modules that may be called.

    Example:
        >>> parser = StreamParser()
        >>> parser.feed("Here. <module>B</module><instruction>segment: the d")
        ['Here. ']
        >>> parser.feed("og</instruction>")
        []
        >>> parser.close().invocations[0].instruction[0].text
        'the dog'
    """

    def __init__(self, modules: ModuleRegistry = MODULES) -> None:
        self._modules = modules
        self._known = ", ".join(module.name for module in modules)
        self._lexer = Lexer()
        self._state = "free"  # or head, between the blocks of a call, or the tag that is open
        self._call = _Call(0)
        self._at = 0
        self._joined = Lexer()  # of the text to show: what stood apart may join to a tag in it
        self._entity = ""
        self._events = list[Event]()
        self._text = list[str]()
        self._chunks = list[str]()  # the message so far
        self._spans = list[tuple[SpanKind, int]]()  # start of each piece; the next one ends it
        self._calls = list[Invocation]()
        self._last: int | None = None  # position of the last call, if it could be parsed
        self._signals = list[Signal]()
        self._issues = list[Issue]()

    def feed(self, chunk: str) -> list[Event]:
        """Parse the next characters.

        Args:
            chunk: Any number of characters. Half a surrogate pair is replaced by U+FFFD.

        Returns:
            New results in order: text to show, complete calls, issues.
        """
        chunk = without_surrogates(chunk)
        self._chunks.append(chunk)
        for token in self._lexer.feed(chunk):
            self._take(token)
        return self.drain()

    def close(self) -> Turn:
        """End the message and return the whole turn."""
        for token in self._lexer.close():
            self._take(token)
        if self._waits_for_module:
            self._give_up()
        elif self._state in ("module", "instruction", "region"):
            self._unclosed()
        if self._state == "head":
            self._finish()
        self._entity += "".join(token.raw for token in self._joined.close())
        self._flush()
        reply = "".join(self._chunks)
        ends = [*(start for _, start in self._spans[1:]), len(reply)]
        spans = [
            Span(kind=kind, start=start, end=end, raw=reply[start:end])
            for (kind, start), end in zip(self._spans, ends, strict=False)
        ]
        return Turn(
            text="".join(self._text),
            invocations=tuple(self._calls),
            signals=tuple(self._signals),
            spans=tuple(spans),
            issues=tuple(self._issues),
        )

    def drain(self) -> list[Event]:
        """Return the results since the last call; after :meth:`close`, the rest."""
        events, self._events = self._events, []
        return events

    @property
    def _waits_for_module(self) -> bool:
        """Whether an instruction without a module is open."""
        return self._state == "instruction" and self._call.leads and not self._call.has_module

    def _take(self, token: Token) -> None:
        match self._state:
            case "free":
                self._in_free(token)
            case "head":
                self._in_head(token)
            case _:
                self._in_content(token)

    def _in_free(self, token: Token) -> None:
        if token.kind == "open" and token.value != "region":
            self._call = _Call(self._at, leads=token.value == "instruction", content_start=self._at)
            self._state = token.value
        elif token.kind == "text":
            self._say(token.raw, self._at)
        elif token.kind == "mark":
            self._piece("mark", self._at)
        elif token.kind == "signal":
            kind: Literal["specific", "shared"] = "specific" if token.value[0] == "p" else "shared"
            self._signals.append(Signal(kind=kind, index=int(token.value[1:]), invocation=self._last))
            self._piece("signal", self._at)
        else:
            self._piece("stray", self._at)
        self._at += len(token.raw)

    def _in_head(self, token: Token) -> None:
        """Parse a token between the blocks of a call."""
        call = self._call
        if token.kind == "text" and not token.raw.strip():
            call.gap.append(token.raw)
            self._at += len(token.raw)
        elif token.kind == "open" and self._continues(token.value):
            self._absorb(token)
            if token.value == "region" and call.has_region:
                self._issue("repeated_tag", "a call has one region, the second is ignored")
            self._state = token.value
        elif token.kind == "close" and call.is_empty and not call.leads:
            self._absorb(token)
            self._issue("mismatched_tag", f"{token.raw} closes nothing")
        else:
            self._finish()
            self._in_free(token)

    def _continues(self, word: str) -> bool:
        """Return whether a block belongs to the open call."""
        call = self._call
        if call.leads and not call.has_module:
            return word != "region"
        return not call.sealed and word != "module" and not (call.leads and word == "instruction")

    def _absorb(self, token: Token) -> None:
        """Make a token part of the call, with the white space before it."""
        call = self._call
        call.gap.clear()
        call.content_start = self._at
        self._at += len(token.raw)

    def _in_content(self, token: Token) -> None:
        call = self._call
        if token.kind == "text":
            call.content.append(token.raw)
            call.length += len(token.raw)
            self._at += len(token.raw)
            if call.length > (MAX_LEADING if self._waits_for_module else MAX_MODULE) and (
                self._state == "module" or self._waits_for_module
            ):
                self._give_up()
        elif self._waits_for_module and token.kind != "open" and token.value != "instruction":
            self._give_up()
            self._in_free(token)
        elif token.kind == "close":
            if token.value != self._state:
                self._issue("mismatched_tag", f"<{self._state}> is closed by {token.raw}")
            self._at += len(token.raw)
            self._end_content()
        else:
            self._unclosed()
            self._in_head(token)

    def _give_up(self) -> None:
        """Cancel an open tag that no name or module followed: its content is text, without a leading verb."""
        content = "".join(self._call.content)
        said = [module.read(content[:MAX_MODULE]) for module in self._modules]
        has_verb = any(isinstance(each, Instruction) and each.verb for each in said)
        shown = content[content.index(":") + 1 :] if has_verb else content
        self._issue("unclosed_tag", f"<{self._state}> is not closed")
        self._state = "free"
        self._piece("broken", self._call.start)
        self._say(shown, self._at - len(shown))

    def _unclosed(self) -> None:
        self._issue("unclosed_tag", f"<{self._state}> is not closed")
        if self._state == "module" and not self._call.content:
            self._state = "head"  # no name was started, so there is no unknown module to report
        else:
            self._end_content()

    def _end_content(self) -> None:
        call, state = self._call, self._state
        content = unescape("".join(call.content))
        call.content.clear()
        call.length = 0
        self._state = "head"
        if state == "module":
            call.has_module = True
            call.module = self._modules.resolve(content)
            if call.module is None:
                name = " ".join(content.split())
                self._issue("unknown_module", f"there is no module {name!r}: known are {self._known}")
            for each in call.leading:
                self._end_instruction(each)
        elif state == "instruction" and call.leads and not call.has_module:
            call.leading.append(content)
        elif state == "instruction":
            self._end_instruction(content)
        else:
            self._end_region(content)

    def _end_instruction(self, content: str) -> None:
        call = self._call
        said = call.module.read(content) if call.module is not None else None
        if isinstance(said, Instruction):
            call.instruction.append(said)
        elif said is not None:
            call.args[said[0]] = said[1]

    def _end_region(self, content: str) -> None:
        call = self._call
        if call.has_region:
            return
        call.sealed = not call.is_empty
        call.has_region = True
        try:
            call.region, call.frames = parse_region(content)
        except RegionError as error:
            if call.module is not None:
                call.bad_region = Issue(
                    code="bad_region",
                    message=explain(error),
                    start=call.content_start,
                    invocation=len(self._calls),
                )

    def _finish(self) -> None:
        """End the call; white space behind it is text."""
        call, gap, self._last = self._call, "".join(self._call.gap), None
        end = self._at - len(gap)
        is_whole = call.module is not None and not call.is_empty
        if call.module is not None and not is_whole:
            self._issue("missing_instruction", f"{call.module.name} is called without an instruction")
        if call.leads and not call.has_module:
            self._issue("missing_module", "an instruction is given without a module")
        self._state = "free"
        self._piece("invocation" if is_whole else "broken", call.start)
        if call.bad_region is not None:
            self._note(call.bad_region)
        if call.module is not None and is_whole:
            found = Invocation(
                module=call.module.name,
                instruction=tuple(call.instruction),
                args=call.args,
                region=call.region,
                frames=call.frames,
                source=(call.start, end),
            )
            self._last = len(self._calls)
            self._calls.append(found)
            self._events.append(found)
        if gap:
            self._say(gap, end)

    def _issue(self, code: IssueCode, message: str) -> None:
        self._note(Issue(code=code, message=message, start=self._call.content_start))

    def _note(self, issue: Issue) -> None:
        self._flush()
        self._issues.append(issue)
        self._events.append(issue)

    def _piece(self, kind: SpanKind, start: int) -> None:
        """Begin a piece of the message that is not text; adjacent unparsed calls share one."""
        if kind != "broken" or not self._spans or self._spans[-1][0] != "broken":
            self._spans.append((kind, start))
        self._flush()

    def _say(self, raw: str, start: int) -> None:
        """Emit text; a possible beginning of an entity, or of a tag in joined text, is kept back."""
        if not self._spans or self._spans[-1][0] != "text":
            self._spans.append(("text", start))
        for token in self._joined.feed(raw):
            if token.kind == "text":
                self._entity += token.raw
                continue
            if token.kind == "open" and token.value != "region":  # the rest asks for nothing in text
                broken = f"{token.raw} is broken by another tag"
                self._note(Issue(code="broken_tag", message=broken, start=self._spans[-1][1]))
            self._entity += _GAP
        held = held_back(self._entity)
        self._show(self._entity[: len(self._entity) - held])
        self._entity = self._entity[len(self._entity) - held :]

    def _flush(self) -> None:
        self._show(self._entity)
        self._entity = ""

    def _show(self, text: str) -> None:
        if not text:
            return
        shown = unescape(text)
        self._text.append(shown)
        if self._events and isinstance(self._events[-1], str):
            shown = f"{self._events.pop()}{shown}"
        self._events.append(shown)


def parse(reply: str, *, modules: ModuleRegistry = MODULES, legacy: bool = False) -> Turn:
    """Parse a whole message.

    Args:
        reply: Raw assistant message.
        modules: Modules that may be called.
        legacy: Whether to parse like the published code; see :func:`vitron.protocol.parse_legacy`.

    Example:
        >>> turn = parse("On it. <module>C</module> <instruction>remove: the dog</instruction>")
        >>> turn.text, turn.invocations[0].module, turn.invocations[0].instruction[0].verb
        ('On it. ', 'image_editing', 'remove')
    """
    if legacy:
        return parse_legacy(reply).to_turn(modules)
    parser = StreamParser(modules)
    parser.feed(reply)
    return parser.close()
