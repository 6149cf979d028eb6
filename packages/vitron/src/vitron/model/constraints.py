# SPDX-License-Identifier: Apache-2.0
"""Constrained decoding: which tokens may come next, so that every call follows the grammar."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from vitron.model.encoding import ConversationEncoder
from vitron.protocol import MODULES, Grammar, ModuleRegistry

__all__ = ["CallLogitsProcessor", "CallState", "Vocabulary"]


class Vocabulary:
    """The texts of all tokens, indexed so that few need to be checked.

    Args:
        encoder: Encoder with the tokenizer.
        size: Number of logits, which may be larger than the vocabulary of the tokenizer.
    """

    def __init__(self, encoder: ConversationEncoder, size: int) -> None:
        self.texts = [encoder.token_text(number) for number in range(size)]
        self.end_id = encoder.end_id
        self.signals = [
            encoder.token_id(f"<sig_{'s' if each.kind == 'shared' else 'p'}{each.index}>")
            for each in encoder.signals
        ]
        silent = {self.end_id, encoder.pad_id}
        self.spoken = [number for number, text in enumerate(self.texts) if text and number not in silent]
        # only these can open or close a tag, so only these are checked in free text
        self.with_bracket = [
            number for number in self.spoken if "<" in self.texts[number] or ">" in self.texts[number]
        ]
        self.plain = torch.zeros(size, dtype=torch.bool)
        self.plain[[number for number in self.spoken if "<" not in self.texts[number]]] = True
        self.by_first = dict[str, list[int]]()
        for number in self.spoken:
            self.by_first.setdefault(self.texts[number][0], []).append(number)
        self.by_text = dict[str, list[int]]()
        for number in self.spoken:
            self.by_text.setdefault(self.texts[number], []).append(number)
        self._sorted = sorted(self.by_text)
        self.masks = dict[Hashable, Tensor]()
        # a token that continues behind a tag may violate the grammar within one step
        self.risky = [
            number
            for number in self.with_bracket
            if len(self.texts[number]) > 1
            and not (self.texts[number][0] == "<" and self.texts[number][-1] == ">")
        ]

    def within(self, text: str) -> Iterator[int]:
        """Yield the tokens that a text begins with, the text itself among them."""
        for end in range(1, len(text) + 1):
            yield from self.by_text.get(text[:end], ())

    def beyond(self, text: str) -> Iterator[int]:
        """Yield the tokens that begin with a text and are longer than it."""
        for place in range(bisect_right(self._sorted, text), len(self._sorted)):
            if not self._sorted[place].startswith(text):
                return
            yield from self.by_text[self._sorted[place]]


class CallState:
    """Grammar state of one message.

    Args:
        vocabulary: Texts of the tokens.
        modules: Modules that may be called.
    """

    def __init__(self, vocabulary: Vocabulary, modules: ModuleRegistry = MODULES) -> None:
        self.vocabulary = vocabulary
        self.grammar = Grammar(modules)
        self._due = 0  # next signal of a started set; 0 is none
        self._allowed: Tensor | None = None
        self._is_known = False  # whether the cached mask is valid for this state

    def advance(self, token: int) -> None:
        """Advance by a token that was sampled."""
        vocabulary = self.vocabulary
        if token == vocabulary.end_id:
            return
        signals = vocabulary.signals
        self._due = (signals.index(token) + 1) % len(signals) if token in signals else 0
        self.grammar.advance(vocabulary.texts[token])
        self._is_known = False

    def advance_forced(self, limit: int) -> list[int]:
        """Advance as long as the grammar allows a single token.

        Args:
            limit: Largest number of tokens.

        Returns:
            The forced tokens.
        """
        forced = list[int]()
        while len(forced) < limit:
            mask = self.allowed()
            found = [] if mask is None else mask.nonzero()[:, 0].tolist()
            if len(found) != 1:
                break
            forced += found
            self.advance(found[0])
        return forced

    def allowed(self) -> Tensor | None:
        """Return which tokens are allowed, ``(V,)`` boolean; ``None`` if all are."""
        if not self._is_known:
            self._allowed, self._is_known = self._may_come(), True
        return self._allowed

    def _may_come(self) -> Tensor | None:
        vocabulary, grammar = self.vocabulary, self.grammar
        if self._due:
            return self._only([vocabulary.signals[self._due]])
        if grammar.behind_call and vocabulary.signals:
            more = self._accepted(["<", " "], tags=True) if grammar.call_may_go_on else []
            return self._only([*more, vocabulary.signals[0]])
        if not grammar.in_call:
            refused = [number for number in vocabulary.risky if not grammar.accepts(vocabulary.texts[number])]
            if not refused:
                return None
            mask = torch.ones(len(vocabulary.texts), dtype=torch.bool)
            mask[refused] = False
            return mask
        # within tags and text the same few states recur
        key = None if grammar.place is None else (grammar.place, grammar.spellings)
        if key is None:
            return self._only(self._accepted(grammar.allowed_next().only or frozenset()))
        if key not in vocabulary.masks:
            vocabulary.masks[key] = self._in_tag_or_text()
        return vocabulary.masks[key]

    def _in_tag_or_text(self) -> Tensor:
        vocabulary, grammar = self.vocabulary, self.grammar
        rest = grammar.must_follow()
        if rest is not None:  # avoids a check of every token of a large vocabulary
            beyond = (number for text in rest for number in vocabulary.beyond(text))
            found = [number for number in beyond if grammar.accepts(vocabulary.texts[number])]
            return self._only([*found, *(number for text in rest for number in vocabulary.within(text))])
        mask = vocabulary.plain.clone()
        mask[[n for n in vocabulary.with_bracket if grammar.accepts(vocabulary.texts[n])]] = True
        return mask

    def _accepted(self, first: Sequence[str] | frozenset[str], *, tags: bool = False) -> list[int]:
        """Return the allowed tokens that begin with one of these characters."""
        texts, found = self.vocabulary.texts, list[int]()
        for char in first:
            for number in self.vocabulary.by_first.get(char, ()):
                text = texts[number]
                if tags and text.strip() not in ("", "<instruction>", "<region>"):
                    continue
                if self.grammar.accepts(text):
                    found.append(number)
        return found

    def _only(self, numbers: list[int]) -> Tensor:
        mask = torch.zeros(len(self.vocabulary.texts), dtype=torch.bool)
        mask[numbers] = True
        return mask

    def constrain(self, logits: Tensor) -> Tensor:
        """Return logits ``(V,)``, minus infinity for tokens that are not allowed."""
        mask = self.allowed()
        if mask is None:
            return logits
        return logits.masked_fill(~mask.to(logits.device), float("-inf"))


class CallLogitsProcessor(LogitsProcessor):
    """Constrains the calls of every row of a batch; for ``generate(logits_processor=[...])``.

    Outside calls logits pass unchanged. One object serves one call of ``generate`` without beams.

    Args:
        vocabulary: Texts of the tokens.
        prompt_length: Length of the padded prompt in tokens.
        modules: Modules that may be called.
    """

    def __init__(self, vocabulary: Vocabulary, prompt_length: int, modules: ModuleRegistry = MODULES) -> None:
        self.vocabulary, self.modules = vocabulary, modules
        self.seen = prompt_length
        self.states = list[CallState]()
        self.done = list[bool]()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores ``(B, V)`` of the next token, given ids ``(B, L)`` so far."""
        if not self.states:
            self.states = [CallState(self.vocabulary, self.modules) for _ in input_ids]
            self.done = [False] * len(self.states)
        for step in range(self.seen, input_ids.shape[1]):
            for row, token in enumerate(input_ids[:, step].tolist()):
                self.done[row] |= token == self.vocabulary.end_id
                if not self.done[row]:
                    self.states[row].advance(token)
        self.seen = input_ids.shape[1]
        rows = [
            scores[row] if self.done[row] else state.constrain(scores[row])
            for row, state in enumerate(self.states)
        ]
        return torch.stack(rows)
