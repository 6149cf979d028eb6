# SPDX-License-Identifier: Apache-2.0
"""The bytes that each token of a tokenizer stands for, as its decoder writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

__all__ = ["TokenBytes", "read_tokens"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """The tokens of a tokenizer.

    Attributes:
        texts: Bytes of each token inside a message; none for ids without a token.
        special: Ids of tokens that are no text, such as end tokens and placeholders.
        byte_tokens: Ids of ``<0x0A>`` and the like, which spell characters that are no token.
        is_spaced: Whether words may be decoded with spaces that nobody wrote, as by SentencePiece and
            WordPiece.
    """

    texts: list[bytes]
    special: frozenset[int]
    byte_tokens: frozenset[int]
    is_spaced: bool


def read_tokens(tokenizer: Any, size: int, *, literal: Collection[str] = ()) -> TokenBytes:
    """Return the bytes of all tokens.

    Byte-level tokens are mapped byte by byte, as one may hold part of a character; others are decoded behind
    another token, which keeps their leading spaces.

    Args:
        tokenizer: Fast tokenizer of transformers.
        size: Number of ids.
        literal: Special tokens that are text all the same, such as tags.
    """
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special and token.content not in literal}
    special |= {each for each in tokenizer.all_special_ids if tokenizer.decode([each]) not in literal}
    kinds = set(_kinds(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]))
    names: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    is_byte_level = "ByteLevel" in kinds
    texts = _byte_level(names) if is_byte_level else _decoded(tokenizer, names)
    found = [_BYTE_TOKEN.fullmatch(name or "") for name in names] if "ByteFallback" in kinds else []
    byte_tokens = {number: bytes([int(each[1], 16)]) for number, each in enumerate(found) if each}
    for number, text in byte_tokens.items():
        texts[number] = text
    texts += [b""] * (size - len(texts))
    return TokenBytes(
        texts,
        frozenset(each for each in special if each < size),
        frozenset(byte_tokens),
        is_spaced=not is_byte_level,
    )


def _kinds(decoder: dict[str, Any] | None) -> Iterator[str]:
    """Yield the types of a decoder and of those that it is composed of."""
    if decoder is not None:
        yield decoder["type"]
        for each in decoder.get("decoders", ()):
            yield from _kinds(each)


def _byte_level(names: list[str | None]) -> list[bytes]:
    table = {char: byte for byte, char in bytes_to_unicode().items()}

    def read(name: str) -> bytes:
        # added tokens are written as they are, which differs only with characters outside the table
        return bytes(map(table.__getitem__, name)) if table.keys() >= set(name) else name.encode()

    return [read(name or "") for name in names]


def _decoded(tokenizer: Any, names: list[str | None]) -> list[bytes]:
    """Return what tokens add behind another one, which keeps their leading spaces."""
    anchor = next(number for number, name in enumerate(names) if name and name.isascii() and name.isalpha())
    backend = tokenizer.backend_tokenizer
    start = len(backend.decode([anchor], skip_special_tokens=False))
    pairs = [[anchor, number] for number in range(len(names))]
    return [text[start:].encode() for text in backend.decode_batch(pairs, skip_special_tokens=False)]
