# SPDX-License-Identifier: Apache-2.0
"""One reply on its way: which token comes next, and what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitron.model.decoding import CallState
from vitron.protocol.messages import MessageChunk, SamplingParams

if TYPE_CHECKING:
    from vitron.model.engine import Vitron

__all__ = ["Writing"]


class Writing:
    """The state of a reply, without that of the language model.

    Args:
        vitron: Whose reply it is.
        sampling: How it is drawn.
    """

    def __init__(self, vitron: Vitron, sampling: SamplingParams) -> None:
        self._vitron = vitron
        self._sampling = sampling
        self._state = CallState(vitron.vocabulary, vitron.modules) if sampling.constrained else None
        self._draw = torch.Generator().manual_seed(sampling.seed)
        self._chosen = 0
        self._taken = list[int]()
        self._told = ""
        self._signal = list[Tensor]()

    def choose(self, logits: Tensor) -> list[int]:
        """Return the next token, and those behind it that the grammar leaves no choice about.

        Args:
            logits: Behind all that was chosen before, ``(V,)``.

        Returns:
            Nothing at the end.
        """
        room = self._sampling.max_new_tokens - self._chosen
        if room < 1:
            return []
        logits = logits.float()
        token = _pick(
            logits if self._state is None else self._state.constrain(logits), self._sampling, self._draw
        )
        if token == self._vitron.processor.end_id:
            return []
        tokens = [token]
        if self._state is not None:
            self._state.advance(token)
            tokens += self._state.advance_forced(room - 1)
        self._chosen += len(tokens)
        return tokens

    def take(self, token: int, hidden: Tensor) -> MessageChunk | None:
        """Tell what a token adds, or nothing if its character is not complete.

        Args:
            token: In the order in which they were chosen.
            hidden: The language model's last state of it, ``(C,)``.
        """
        processor, signals = self._vitron.processor, self._vitron.vocabulary.signals
        self._taken.append(token)
        signal = None
        if token in signals:
            self._signal.append(hidden)
            if token == signals[-1] and len(self._signal) >= len(signals):
                signal = self._vitron.signal(torch.stack(self._signal[-len(signals) :]))
                self._signal.clear()
        text = processor.decode(self._taken)
        if text.endswith("\ufffd") and signal is None:
            return None  # half a character
        piece = MessageChunk(text[len(self._told) :], signal)
        self._told = text
        return piece


def _pick(logits: Tensor, sampling: SamplingParams, draw: torch.Generator) -> int:
    """Return the next token: the likeliest, or one drawn from the likeliest that make up ``top_p``."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    chances = (logits.cpu() / sampling.temperature).softmax(-1)
    ranked, order = chances.sort(descending=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before >= sampling.top_p, 0.0)
    return int(order[torch.multinomial(ranked, 1, generator=draw)])
