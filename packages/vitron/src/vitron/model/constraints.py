# SPDX-License-Identifier: Apache-2.0
"""Constrained decoding: the tokens that may come next, so that every call can be parsed.

llguidance computes them from :func:`vitron.protocol.call_grammar`. Text outside calls is free: a matcher
starts behind the tag that begins a call, and ends with the call.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

from vitron.model.encoding import ConversationEncoder
from vitron.model.token_bytes import TokenBytes, read_tokens
from vitron.protocol.grammar import Start, call_grammar
from vitron.protocol.lexer import TAGS, WORDS, Lexer, Token

__all__ = ["CallGrammar", "CallLogitsProcessor", "CallState"]

# of letters and digits also the tokens that continue a word are needed
_INNER = string.digits + "".join(sorted(set("".join(WORDS) + "maskpointspolygonscribble")))
_OUTER = "<>/[]|,;@-_"

# blocks that may continue the last call: all, a region alone, or none
_Tail = Literal["blocks", "region", None]
_TAILS: dict[Start, _Tail] = {"module": "blocks", "further instruction": "blocks", "instruction": "region"}

# the bits of each byte, the lowest first
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(bool)


class CallGrammar:
    """The grammar of calls, compiled for a tokenizer and a registry of modules; threads share it.

    Args:
        encoder: Encoder with tokenizer, signal tokens and modules.
        size: Number of logits, which may be larger than the vocabulary of the tokenizer.
        end_ids: Tokens that end a message, besides that of the encoder.
    """

    def __init__(self, encoder: ConversationEncoder, size: int, end_ids: Iterable[int] = ()) -> None:
        self.size = size
        self.end_ids = frozenset((encoder.end_id, *end_ids))
        self.signals = [
            encoder.token_id(f"<sig_{'s' if each.kind == 'shared' else 'p'}{each.index}>")
            for each in encoder.signals
        ]
        self._encoder = encoder
        self._matchers = dict[Start, LLMatcher]()
        self._refused = dict[tuple[str, _Tail], Tensor | None]()

    @cached_property
    def tokens(self) -> TokenBytes:
        """Bytes of each token."""
        return read_tokens(self._encoder.tokenizer, self.size, literal=TAGS)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        texts, ends = self.tokens.texts, {each for each in self.end_ids if each < self.size}
        known = set(texts)
        for char in _INNER + _OUTER:
            spaced = char in _OUTER and self.tokens.is_spaced and f" {char}".encode() in known
            if char.encode() not in known and not spaced:
                raise ValueError(f"calls cannot be constrained: the tokenizer has no token for {char!r}")
        silent = {number for number, text in enumerate(texts) if not text}
        # in a call no ASCII is spelled by byte tokens: decoders replace runs of them that are not UTF-8
        spare = {number for number in self.tokens.byte_tokens if texts[number] < b"\x80"}
        special = {*self.tokens.special, *self.signals, *ends, *silent, *spare}
        named = [
            f"<special {number}>".encode() if number in special else text for number, text in enumerate(texts)
        ]
        wrapped = TokenizerWrapper(_Tokens(self._encoder, named, sorted(special)))
        # tokens without a "<" are checked at once where any text may go on
        return LLTokenizer(wrapped, slices=["[^<]+"])

    def matcher(self, start: Start) -> LLMatcher:
        """Return a new matcher of a part of the grammar.

        Raises:
            ValueError: If the tokenizer lacks a character that calls need.
        """
        if start not in self._matchers:
            signals = [f"<[{number}]>" for number in self.signals]
            spaced = self.tokens.is_spaced
            text = call_grammar(self._encoder.modules, signals=signals, spaced=spaced, start=start)
            self._matchers[start] = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(text), log_level=0)
        return self._matchers[start].deep_copy()

    def spell(self, text: bytes) -> list[int]:
        """Return tokens of single characters that make up a text; -1 for what no token is."""
        return [self._spelling.get(text[place : place + 1], -1) for place in range(len(text))]

    @cached_property
    def _spelling(self) -> dict[bytes, int]:
        return {
            text: number
            for number, text in enumerate(self.tokens.texts)
            if len(text) == 1 and number not in self.tokens.special
        }

    @cached_property
    def _crossing(self) -> dict[str, list[int]]:
        """Tokens with characters behind a ``>``, by what comes before it: one may open a call and go on."""
        found = defaultdict[str, list[int]](list)
        for number, text in enumerate(self.tokens.texts):
            chars = text.decode("latin-1")
            for place, char in enumerate(chars[:-1]):
                if char == ">":
                    found[chars[:place]].append(number)
        return dict(found)

    def refused(self, state: CallState) -> Tensor | None:
        """Return the ids of tokens that end a tag and go on against the grammar; ``None`` without any."""
        key = (state.held.lower(), state.tail)
        if key not in self._refused:
            found = set[int]()
            for before, numbers in self._crossing.items():
                if any(token.kind == "open" for token in Lexer().feed(f"{state.held}{before}>")):
                    found |= {number for number in numbers if not state.accepts(number)}
            self._refused[key] = torch.tensor(sorted(found)) if found else None
        return self._refused[key]


class _Tokens:
    """A tokenizer as llguidance takes one; calling it returns the ids of a text."""

    def __init__(self, encoder: ConversationEncoder, tokens: list[bytes], special: list[int]) -> None:
        self.eos_token_id, self.bos_token_id = encoder.end_id, None
        self.tokens, self.special_token_ids = tokens, special
        self._encoder = encoder

    def __call__(self, text: bytes) -> list[int]:
        return self._encoder.tokenize(text.decode())


class CallState:
    """Grammar state of one message.

    Args:
        grammar: Compiled grammar.
    """

    def __init__(self, grammar: CallGrammar) -> None:
        self.grammar = grammar
        self._lexer = Lexer()
        self._matcher: LLMatcher | None = None
        # without signals the end of a call is open: what may continue it, and the characters since
        self._tail: _Tail = None
        self._since = ""
        self._run = b""
        self._memory: tuple[NDArray[np.int32], NDArray[np.bool_], Tensor] | None = None

    @property
    def in_call(self) -> bool:
        """Whether a call is open: the message may not end."""
        return self._matcher is not None

    @property
    def held(self) -> str:
        """Characters that may become a tag."""
        return self._lexer.held

    @property
    def tail(self) -> _Tail:
        """Blocks that may continue the last call, if only white space has followed it."""
        if self._tail is None:
            return None
        blank = not self._since.encode("latin-1").decode("utf-8", "replace").strip()
        return self._tail if blank else None

    def accepts(self, token: int) -> bool:
        """Return whether a token of free text is allowed, without advancing."""
        ahead = CallState(self.grammar)
        ahead._lexer, ahead._tail, ahead._since = self._lexer.copy(), self._tail, self._since
        ahead._run = self._run
        return ahead._read(token)

    def advance(self, token: int) -> None:
        """Advance by a token that was sampled.

        Raises:
            ValueError: If the grammar does not allow it.
        """
        if not (self._read(token) if self._matcher is None else self._consume(self._matcher, [token])):
            raise ValueError(f"the grammar of calls does not allow token {token} here")

    def try_advance(self, token: int) -> bool:
        """Advance by a token if it is allowed, and return whether it is.

        Takes a small part of the time of a mask: the most likely token of all is nearly always allowed. A
        token that ends the message is not read.
        """
        if self._matcher is not None:
            return self._consume(self._matcher, [token])  # what is not allowed leaves the matcher as it is
        refused = self.grammar.refused(self)
        if refused is not None and bool((refused == token).any()):
            return False
        return token in self.grammar.end_ids or self._read(token)

    def advance_forced(self, limit: int) -> list[int]:
        """Advance as long as the grammar leaves no choice.

        Args:
            limit: Largest number of tokens.

        Returns:
            The forced tokens, as the tokenizer splits the text that must follow.
        """
        forced = list[int]()
        while self._matcher is not None and len(forced) < limit:
            found = self._forced()[: limit - len(forced)]
            if not found:
                break
            self._consume(self._matcher, found)
            forced += found
        return forced

    def _forced(self) -> list[int]:
        """Return the tokens that must follow."""
        if self._matcher is None:
            return []
        if not self.grammar.tokens.is_spaced:
            return self._matcher.compute_ff_tokens()
        # what a spaced tokenizer makes of a text depends on what precedes it
        allowed = self._mask(self._matcher).nonzero()[:, 0]
        return allowed.tolist() if len(allowed) == 1 else []

    def allowed(self) -> Tensor | None:
        """Return which tokens are allowed, ``(V,)`` boolean on the CPU; ``None`` outside a call.

        The next call of this state writes to the same memory.

        Raises:
            RuntimeError: If llguidance fails.
        """
        return None if self._matcher is None else self._mask(self._matcher)

    def _mask(self, matcher: LLMatcher) -> Tensor:
        # memory, arrays and tensors of their own for each token would take longer than the rest
        if self._memory is None:
            packed = allocate_token_bitmask(1, self.grammar.size)
            bits = np.empty((packed.nbytes, 8), np.bool_)
            self._memory = packed, bits, torch.from_numpy(bits.reshape(-1)[: self.grammar.size])
        packed, bits, mask = self._memory
        fill_next_token_bitmask(matcher, packed)
        if matcher.is_error():
            raise RuntimeError(f"constrained decoding failed: {matcher.get_error()[:200]}")
        np.take(_BITS, packed.view(np.uint8)[0], axis=0, out=bits, mode="clip")
        return mask

    def constrain(self, logits: Tensor) -> Tensor:
        """Return logits ``(V,)``, minus infinity for tokens that are not allowed; outside calls unchanged."""
        allowed = self.allowed()
        if allowed is not None:
            return torch.where(allowed.to(logits.device), logits, float("-inf"))
        refused = self.grammar.refused(self)
        if refused is None:
            return logits
        return logits.index_fill(0, refused.to(logits.device), float("-inf"))

    def _read(self, token: int) -> bool:
        """Read a token of free text, and start a matcher where it opens a call; return if it is allowed."""
        grammar = self.grammar
        data = self._text(token)
        if b"<" not in data and not self._lexer.held and self._tail is None and token not in grammar.signals:
            return True  # most of free text
        text = data.decode("latin-1")
        whole, end = self._lexer.held + text, 0
        for found in self._lexer.feed(text):
            end += len(found.raw)
            start = self._opened(found) if found.kind == "open" else None
            if start is not None:
                rest = grammar.spell(whole[end:].encode("latin-1"))
                return self._consume(self._begin(start), rest)
            if found.kind != "text":
                self._tail = None
            self._since += found.raw if self._tail else ""
        if token in grammar.signals:
            return self._consume(self._begin("signals"), grammar.signals[: grammar.signals.index(token) + 1])
        return True

    def _text(self, token: int) -> bytes:
        """Return the bytes of a token, which decoders replace in runs of byte tokens that are not UTF-8."""
        tokens = self.grammar.tokens
        self._run = self._run + tokens.texts[token] if token in tokens.byte_tokens else b""
        try:
            self._run.decode()
        except UnicodeDecodeError:
            return b"\xff"
        return tokens.texts[token]

    def _opened(self, tag: Token) -> Start | None:
        """Return what an opening tag begins."""
        if tag.value == "module":
            return "module"
        if tag.value == "instruction":
            return "further instruction" if self.tail == "blocks" else "instruction"
        return "region" if self.tail else None

    def _begin(self, start: Start) -> LLMatcher:
        self._matcher = self.grammar.matcher(start)
        self._tail = None if self.grammar.signals else _TAILS.get(start)
        self._since, self._run, self._lexer = "", b"", Lexer()
        return self._matcher

    def _consume(self, matcher: LLMatcher, tokens: list[int]) -> bool:
        """Advance within a call, and leave one that has ended; return whether all tokens are allowed."""
        count = 0 if -1 in tokens else matcher.try_consume_tokens(tokens)
        if matcher.is_stopped():
            self._matcher = None
        return count == len(tokens)


class CallLogitsProcessor(LogitsProcessor):
    """Constrains the calls of every row of a batch; for ``generate(logits_processor=[...])``.

    Outside calls logits pass unchanged. One object serves one call of ``generate`` without beams.

    Args:
        grammar: Compiled grammar.
        prompt_length: Length of the padded prompt in tokens.
    """

    def __init__(self, grammar: CallGrammar, prompt_length: int) -> None:
        self.grammar, self.seen = grammar, prompt_length
        self.states = list[CallState | None]()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores ``(B, V)`` of the next token, given ids ``(B, L)`` so far."""
        if not self.states:
            self.states = list[CallState | None](CallState(self.grammar) for _ in input_ids)
        for step in range(self.seen, input_ids.shape[1]):
            for row, token in enumerate(input_ids[:, step].tolist()):
                state = self.states[row]
                if token in self.grammar.end_ids:
                    self.states[row] = None
                elif state is not None:
                    state.advance(token)
        self.seen = input_ids.shape[1]
        rows = zip(self.states, scores, strict=True)
        return torch.stack([row if state is None else state.constrain(row) for state, row in rows])
