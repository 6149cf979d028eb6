# SPDX-License-Identifier: Apache-2.0
"""Splits characters into text and tags, buffering at most the length of a tag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

WORDS = ("module", "instruction", "region")
TAGS = tuple(f"<{slash}{word}>" for word in WORDS for slash in ("", "/"))
# end tokens of several families of models
MARKS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>")
NUM_SIGNALS = 16
SIGNALS = tuple(f"<sig_{letter}{index}>" for letter in "ps" for index in range(NUM_SIGNALS))
MAX_SPACES = 8  # most white space in one gap of a tag
MAX_TAG = 40  # length of the longest tag

_WHITE = frozenset(" \t\r\n")


class Token(NamedTuple):
    """A token of the message.

    Attributes:
        kind: Kind of the token.
        value: The word of a tag, or the letter and number of a signal.
        raw: The original characters.
    """

    kind: Literal["text", "open", "close", "mark", "signal"]
    value: str
    raw: str


def _table() -> dict[str, tuple[Literal["open", "close", "mark", "signal"], str]]:
    table: dict[str, tuple[Literal["open", "close", "mark", "signal"], str]] = {}
    for word in WORDS:
        table[f"<{word}>"] = ("open", word)
        table[f"</{word}>"] = ("close", word)
    table.update(dict.fromkeys(MARKS, ("mark", "")))
    table.update({signal: ("signal", signal[5:-1]) for signal in SIGNALS})
    return table


_WHOLE = _table()
_SPACED = {key: value for key, value in _WHOLE.items() if value[0] in ("open", "close")}
_PREFIXES = {key[:end] for key in _WHOLE for end in range(1, len(key))}
_SPACED_PREFIXES = {key[:end] for key in _SPACED for end in range(1, len(key))}
# white space may stand behind the bracket, behind the slash, and behind the word
_GAPS = {"<", "</"} | {key[:-1] for key in _SPACED}
_GAP = rf"[ \t\r\n]{{0,{MAX_SPACES}}}"
# the same tags as one expression, for complete ones
_TAG = re.compile(
    rf"<(?:{_GAP}(?:/{_GAP})?(?:{'|'.join(WORDS)}){_GAP}>|"
    + "|".join(re.escape(each[1:]) for each in (*MARKS, *SIGNALS))
    + ")",
    re.ASCII | re.IGNORECASE,
)


class Lexer:
    """Splits a message into tokens as it arrives.

    Tags are read in any case and with white space inside; a ``<`` that begins no tag is text. Every character
    is read once, and the buffer is shorter than the longest tag.
    """

    def __init__(self) -> None:
        self._raw = ""
        self._key = ""
        self._spaces = 0  # white space in the open gap
        self._spaced = False

    @property
    def held(self) -> str:
        """Buffered characters that may still become a tag."""
        return self._raw

    def copy(self) -> Lexer:
        """Return a lexer in the same state."""
        other = Lexer()
        other._raw, other._key = self._raw, self._key
        other._spaces, other._spaced = self._spaces, self._spaced
        return other

    def feed(self, chunk: str) -> Iterator[Token]:
        """Yield the complete tokens; text up to the next tag is one token."""
        text = list[str]()
        place, end = 0, len(chunk)
        while place < end:
            if not self._raw:
                tag = _TAG.search(chunk, place)
                if tag is not None:
                    text.append(chunk[place : tag.start()])
                    yield from _joined(text)
                    text.clear()
                    place = tag.end()
                    yield Token(*_WHOLE["".join(tag[0].split()).lower()], tag[0])
                    continue
                # a bracket before another one begins no tag; the last one may, if its tag can continue
                start = chunk.rfind("<", max(place, end - MAX_TAG + 1))
                text.append(chunk[place : end if start < 0 else start])
                if start < 0:
                    break
                self._raw = self._key = "<"
                place = start + 1
                continue
            if not self._extend(chunk[place]):
                # the buffer begins no tag; the character itself may begin one
                text.append(self._reset())
                continue
            place += 1
            found = _WHOLE.get(self._key)
            if found is not None:
                yield from _joined(text)
                text.clear()
                yield Token(*found, self._reset())
        yield from _joined(text)

    def close(self) -> Iterator[Token]:
        """Yield the buffer as text."""
        if self._raw:
            yield Token("text", "", self._reset())

    def _extend(self, char: str) -> bool:
        if char in _WHITE:
            if self._key not in _GAPS or self._spaces == MAX_SPACES:
                return False
            self._spaces += 1
            self._spaced = True
        else:
            key = self._key + (char.lower() if char.isascii() else char)
            prefixes, whole = (_SPACED_PREFIXES, _SPACED) if self._spaced else (_PREFIXES, _WHOLE)
            if key not in prefixes and key not in whole:
                return False
            self._key, self._spaces = key, 0
        self._raw += char
        return True

    def _reset(self) -> str:
        raw, self._raw, self._key = self._raw, "", ""
        self._spaces, self._spaced = 0, False
        return raw


def _joined(text: list[str]) -> Iterator[Token]:
    raw = "".join(text)
    if raw:
        yield Token("text", "", raw)
