# SPDX-License-Identifier: Apache-2.0
"""Grammar of calls: the characters that may come next, so that every generated call can be parsed.

Outside a call everything is allowed. From a module tag on, only what is parsed without an issue: the
name of a module, instructions that are not empty, a box with its corners in order or the handle of a mask.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from vitron.protocol.lexer import Lexer, Token
from vitron.protocol.modules import MODULES, ModuleRegistry

MAX_STEP = 999
MAX_FRAME = 99_999

_State = Literal["free", "forced", "instruction", "region"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """A set of characters.

    Attributes:
        only: The characters; ``None`` is every one.
        without: Excluded characters.
    """

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def __contains__(self, char: object) -> bool:
        return char not in self.without if self.only is None else char in self.only

    @property
    def everything(self) -> bool:
        """Whether every character is allowed."""
        return self.only is None and not self.without


EVERYTHING = Allowed()
_TEXT = Allowed(without=frozenset("<"))


@dataclass(frozen=True, slots=True)
class _Number:
    """An integer between bounds; the lower bound may depend on an earlier number."""

    low: int
    high: int
    above: int | None = None  # distance back to the number that this one must exceed
    equal: bool = False

    def bounds(self, numbers: Sequence[int]) -> tuple[int, int]:
        if self.above is None:
            return self.low, self.high
        return numbers[-self.above] + (0 if self.equal else 1), self.high


_BOX: tuple[str | _Number, ...] = (
    "[",
    _Number(0, MAX_STEP - 1),
    ", ",
    _Number(0, MAX_STEP - 1),
    ", ",
    _Number(0, MAX_STEP, above=2),
    ", ",
    _Number(0, MAX_STEP, above=2),
    "]",
)
_NAME: tuple[str | _Number, ...] = ("mask_", _Number(1, MAX_STEP))
_FRAMES: tuple[str | _Number, ...] = (
    "| ",
    _Number(0, MAX_FRAME),
    ", ",
    _Number(0, MAX_FRAME, above=1, equal=True),
    "</region>",
)
_REGIONS = (
    _FRAMES,
    *((*place, *end) for place in (_BOX, _NAME) for end in (("</region>",), (" ", *_FRAMES))),
)


@dataclass(slots=True)
class _Path:
    """A path through the pieces of a region."""

    pieces: tuple[str | _Number, ...]
    piece: int = 0
    typed: str = ""
    numbers: tuple[int, ...] = ()

    def choices(self) -> dict[str, _Path]:
        """Return the next characters and the paths they lead to; nothing for a finished path."""
        if self.piece == len(self.pieces):
            return {}
        here = self.pieces[self.piece]
        if isinstance(here, str):
            char = here[len(self.typed)]
            return {char: self._typed(self.typed + char, done=len(self.typed) + 1 == len(here))}
        low, high = here.bounds(self.numbers)
        found = {
            digit: self._typed(self.typed + digit)
            for digit in "0123456789"
            if _may_become(self.typed + digit, low, high)
        }
        if self.typed and low <= int(self.typed) <= high:
            after = _Path(self.pieces, self.piece + 1, "", (*self.numbers, int(self.typed)))
            found |= after.choices()
        return found

    def _typed(self, text: str, *, done: bool = False) -> _Path:
        if done:
            return _Path(self.pieces, self.piece + 1, "", self.numbers)
        return _Path(self.pieces, self.piece, text, self.numbers)


def _may_become(typed: str, low: int, high: int) -> bool:
    """Return whether digits, possibly with more behind them, can form an integer between bounds."""
    if typed[0] == "0":
        return typed == "0" and low <= 0
    first = last = int(typed)
    while first <= high:
        if last >= low:
            return True
        first, last = first * 10, last * 10 + 9
    return False


class Grammar:
    """An automaton over the characters of an assistant message.

    Args:
        modules: Modules that may be called.

    Example:
        >>> grammar = Grammar()
        >>> grammar.allowed_next().everything
        True
        >>> grammar.advance("Sure. <module>resto")
        >>> sorted(grammar.allowed_next().only)
        ['r']
    """

    def __init__(self, modules: ModuleRegistry = MODULES) -> None:
        names = tuple(f"{name}</module>" for name in modules.spellings())
        self._names = names
        self._lexer = Lexer()
        self._state: _State = "free"
        # behind an instruction: white space, then possibly another block of the same call
        self._tail = False
        # an instruction that precedes its module
        self._leads = False
        # behind a region, which ends a call
        self._ended = False
        self._forced: tuple[str, ...] = ()
        self._typed = ""
        self._after: _State = "free"
        self._marks = ""
        self._paths: tuple[_Path, ...] = ()

    def copy(self) -> Grammar:
        """Return an independent copy in the same state."""
        other = object.__new__(Grammar)
        other.__dict__.update(self.__dict__)
        other._lexer = self._lexer.copy()
        return other

    @property
    def spellings(self) -> tuple[str, ...]:
        """Texts that may follow the tag of a module, up to the end of its name."""
        return self._names

    @property
    def in_call(self) -> bool:
        """Whether some characters are excluded."""
        return self._state != "free"

    @property
    def behind_call(self) -> bool:
        """Whether a call was just completed; further blocks may follow, unless it has its region."""
        return self._state == "free" and (self._tail or self._ended)

    @property
    def call_may_go_on(self) -> bool:
        """Whether a further block of the same call may come here."""
        return self._state == "free" and self._tail

    def can_end(self) -> bool:
        """Return whether the message may end here."""
        return self._state == "free"

    def allowed_next(self) -> Allowed:
        """Return the characters that may come next; never none."""
        match self._state:
            case "free":
                return EVERYTHING
            case "forced":
                return Allowed(frozenset(text[0] for text in self.must_follow() or ()))
            case "instruction":
                return EVERYTHING if self._says_something else _TEXT
            case "region":
                return Allowed(frozenset(char for path in self._paths for char in path.choices()))

    def must_follow(self) -> tuple[str, ...] | None:
        """Return the texts of which one must come next, such as the rest of a tag, or ``None``."""
        if self._state != "forced":
            return None
        done = len(self._typed)
        return tuple(text[done:] for text in self._forced if text.startswith(self._typed))

    @property
    def place(self) -> Hashable | None:
        """Key that is equal in states that allow the same texts; ``None`` if unknown."""
        if self._state == "forced":
            return self.must_follow(), self._forced is self._names, self._after
        if self._state == "instruction":
            return self._marks if self._marks in ("", ":") else "said"
        return None

    @property
    def _says_something(self) -> bool:
        return bool(self._marks) and self._marks != ":"

    def accepts(self, text: str) -> bool:
        """Return whether a text may come next, character by character, without advancing."""
        ahead = self.copy()
        try:
            ahead.advance(text)
        except ValueError:
            return False
        return True

    def advance(self, text: str) -> None:
        """Advance by the next characters.

        Raises:
            ValueError: If one of them is not allowed; the ones before it are consumed.
        """
        for place, char in enumerate(text):
            if char not in self.allowed_next():
                raise ValueError(f"{char!r} may not come behind {text[max(0, place - 20) : place]!r}")
            match self._state:
                case "free":
                    for token in self._lexer.feed(char):
                        self._take(token)
                case "forced":
                    self._force(char)
                case "instruction":
                    self._say(char)
                case "region":
                    self._place(char)

    def _take(self, token: Token) -> None:
        """Advance by a token of free text like the parser."""
        if token.kind == "text" and not token.raw.strip():
            return
        in_tail, self._tail, self._ended = self._tail, False, False
        if token.kind != "open":
            return
        if token.value == "module":
            self._leads = False
            self._expect(self._names, "instruction")
        elif token.value == "instruction":
            self._state, self._marks = "instruction", ""
            self._leads = not in_tail or self._leads
        elif in_tail:
            self._state = "region"
            self._paths = tuple(_Path(pieces) for pieces in _REGIONS)

    def _expect(self, texts: tuple[str, ...], after: _State) -> None:
        self._state, self._forced, self._typed, self._after = "forced", texts, "", after

    def _force(self, char: str) -> None:
        self._typed += char
        if self._typed not in self._forced:
            return
        if self._leads and self._forced is self._names:
            self._state, self._tail = "free", True
        elif self._leads and self._after == "free":
            self._expect(("<module>", " <module>"), "forced")
        elif self._leads:
            self._expect(self._names, "free")
        elif self._forced is self._names:
            self._expect(("<instruction>", " <instruction>"), "instruction")
        else:
            self._state, self._marks = self._after, ""
            self._tail = self._after == "free"

    def _say(self, char: str) -> None:
        if char == "<":
            self._expect(("</instruction>",), "free")
            self._typed = char
        elif not char.isspace() and len(self._marks) < 2:
            self._marks += char

    def _place(self, char: str) -> None:
        found = (path.choices().get(char) for path in self._paths)
        self._paths = tuple(path for path in found if path is not None)
        if any(path.piece == len(path.pieces) for path in self._paths):
            self._state, self._ended = "free", True
