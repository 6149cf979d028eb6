# SPDX-License-Identifier: Apache-2.0
"""Generation of one message: the decoder that samples its tokens, and the loop of a single conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

from vitron.data.example import Example
from vitron.errors import ContextLengthError
from vitron.model.constraints import CallGrammar, CallState
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.protocol import ModuleRegistry
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, PlacedRegion
from vitron.protocol.sampling import SamplingParams

__all__ = ["Decoder", "ModelGenerator", "Prefilled", "hidden_of", "logits_of"]

Signal = NDArray[np.float32]

# tokens whose text is decoded again with a new one: all of them would take quadratic time
_MOST_AGAIN = 48
_LEAST_AGAIN = 8  # enough for a character in bytes and the spaces that decoders put between words


class Decoder:
    """Generation state of one message, without the cache of the language model.

    Args:
        encoder: Encoder with the tokenizer.
        grammar: Compiled grammar of calls.
        sampling: Sampling parameters.
        read_signal: Function that returns the signal embeddings ``(N, C)`` of the last hidden states
            ``(N, C)`` of a set of signal tokens.
    """

    def __init__(
        self,
        encoder: ConversationEncoder,
        grammar: CallGrammar,
        sampling: SamplingParams,
        read_signal: Callable[[Tensor], Signal],
    ) -> None:
        self.tokens = list[int]()
        self._encoder, self._grammar, self._sampling = encoder, grammar, sampling
        self._read_signal = read_signal
        self._state = CallState(grammar) if sampling.constrained else None
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._warpers = _warpers(sampling)
        self._left = sampling.max_new_tokens
        self._emitted, self._num_emitted = "", 0
        self._start = 0  # of the tokens that are decoded again with each new one; their text is emitted
        self._signal_states = list[Tensor]()

    def limit(self, room: int) -> None:
        """End the message after a number of further tokens at most, such as those that fit the context."""
        self._left = min(self._left, room)

    def sample(self, logits: Tensor) -> list[int]:
        """Return the next token, and those behind it that the grammar forces.

        Args:
            logits: Logits behind all tokens sampled so far, ``(V,)``.

        Returns:
            Token ids; none at the end of the message.
        """
        if self._left < 1:
            return []
        token = self._choose(logits.float())
        if token in self._grammar.end_ids:
            return []
        tokens = [token]
        if self._state is not None:
            tokens += self._state.advance_forced(self._left - 1)
        self._left -= len(tokens)
        return tokens

    def _choose(self, logits: Tensor) -> int:
        """Sample a token that is allowed, and advance the state of the grammar."""
        state = self._state
        if state is None:
            return _sample(logits, self._warpers, self._generator)
        if not self._warpers:  # the likeliest of all tokens is that of the allowed ones, if it is allowed
            token = _sample(logits, self._warpers, self._generator)
            if state.try_advance(token):
                return token
        token = _sample(state.constrain(logits), self._warpers, self._generator)
        if token not in self._grammar.end_ids:
            state.advance(token)
        return token

    def append(self, token: int, hidden: Tensor) -> MessageChunk | None:
        """Append a sampled token and return the new text; ``None`` while its character is incomplete.

        Args:
            token: Token id, in the order of sampling.
            hidden: Last hidden state of the token, ``(C,)``.
        """
        self.tokens.append(token)
        signal, signals = None, self._grammar.signals
        if token in signals:
            self._signal_states.append(hidden)
            if token == signals[-1] and len(self._signal_states) >= len(signals):
                signal = self._read_signal(torch.stack(self._signal_states[-len(signals) :]))
                self._signal_states.clear()
        return self._chunk(signal)

    def close(self) -> MessageChunk | None:
        """Return what an incomplete character at the end has held back; ``None`` for nothing."""
        return self._chunk(None, is_last=True) if self._num_emitted < len(self.tokens) else None

    def _chunk(self, signal: Signal | None, *, is_last: bool = False) -> MessageChunk | None:
        # no DecodeStream of tokenizers: it fails behind bytes that are no character (SentencePiece)
        text = self._encoder.decode(self.tokens[self._start :])
        if text.endswith("\ufffd") and signal is None and not is_last:
            return None
        chunk = MessageChunk(text[len(self._emitted) :], signal, len(self.tokens) - self._num_emitted)
        self._emitted, self._num_emitted = text, len(self.tokens)
        if len(self.tokens) - self._start >= _MOST_AGAIN:
            self._forget()
        return chunk

    def _forget(self) -> None:
        """Decode only the last tokens again from now on, unless they begin within a character or a word."""
        start = len(self.tokens) - _LEAST_AGAIN
        text = self._encoder.decode(self.tokens[start:])
        if text.strip() and "\ufffd" not in text and self._emitted.endswith(text):
            self._start, self._emitted = start, text


def _sample(logits: Tensor, warpers: LogitsProcessorList, generator: torch.Generator) -> int:
    """Return the likeliest token, or with warpers a random one of those that they leave."""
    if not warpers:
        return int(logits.argmax())
    scores: Any = logits[None].cpu()
    for warper in warpers:
        scores = warper(None, scores)
    return int(torch.multinomial(scores[0].softmax(-1), 1, generator=generator))


def _warpers(sampling: SamplingParams) -> LogitsProcessorList:
    """Return the warpers of transformers in the order of ``generate``; none for greedy sampling."""
    if sampling.temperature <= 0:
        return LogitsProcessorList()
    return LogitsProcessorList(
        [TemperatureLogitsWarper(sampling.temperature), TopPLogitsWarper(sampling.top_p)]
    )


@dataclass(slots=True)
class Prefilled:
    """Conversations that the model has read, as rows of one cache.

    Attributes:
        cache: Key-value cache.
        mask: Whether a position holds a token, ``(B, L)`` boolean.
        next_positions: Position of the next token of each row, ``(B,)``.
        logits: Logits behind each row, ``(B, V)``.
        room: Number of tokens that each row may still have; ``None`` if the model names no limit.
    """

    cache: DynamicCache
    mask: Tensor
    next_positions: Tensor
    logits: Tensor
    room: list[int] | None


class ModelGenerator:
    """Generates assistant messages by a model; see :class:`vitron.protocol.messages.MessageGenerator`.

    Args:
        model: Model.
        encoder: Encoder of conversations.
    """

    def __init__(self, model: VitronForConditionalGeneration, encoder: ConversationEncoder) -> None:
        self.model = model.eval()
        self.encoder = encoder
        head: Any = model.get_output_embeddings()
        self.grammar = CallGrammar(encoder, int(head.weight.shape[0]), _end_ids(model))

    @property
    def modules(self) -> ModuleRegistry:
        """Modules that may be called."""
        return self.encoder.modules

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def _text_config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def context_length(self) -> int | None:
        """Positions of the language model; ``None`` if its configuration names none."""
        found = getattr(self._text_config, "max_position_embeddings", None)
        return None if found is None else int(found)

    def count_tokens(self, messages: Sequence[Message], media: Sequence[Artefact]) -> int:
        """Return the number of tokens of a conversation, those of images and videos included."""
        return self.encoder.count_tokens(messages, media)

    @cached_property
    def why_single(self) -> str | None:
        """Why the model generates one message at a time; ``None`` if rows of a batch can be padded."""
        for number, layer in enumerate(DynamicCache(config=self._text_config).layers):
            if type(layer) is not DynamicLayer:
                kind = type(layer).__name__
                return f"layer {number} has a {kind}, whose rows cannot be padded: one message at a time"
        return None

    @torch.inference_mode()
    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Generate a message token by token with a cache.

        Tokens that the grammar forces, as within a set of signals, share one forward pass with the token
        before them.

        Raises:
            ContextLengthError: If the conversation is longer than the context of the model.
        """
        example = Example(task="", messages=tuple(messages), media=tuple(media), regions=tuple(regions))
        start = self.prefill([example])
        decoder = self.decoder(sampling)
        if start.room is not None:
            decoder.limit(start.room[0])
        logits, position = start.logits[0], start.next_positions
        while tokens := decoder.sample(logits):
            ids = torch.tensor([tokens], device=self.device)
            positions = self.positions(position, [len(tokens)])
            output = self.forward(start.cache, input_ids=ids, position_ids=positions)
            position, logits = position + len(tokens), logits_of(output)[0, -1]
            for token, hidden in zip(tokens, hidden_of(output)[0], strict=True):
                chunk = decoder.append(token, hidden)
                if chunk is not None:
                    yield chunk
        if (chunk := decoder.close()) is not None:
            yield chunk

    def decoder(self, sampling: SamplingParams) -> Decoder:
        """Return a decoder for one message."""
        return Decoder(self.encoder, self.grammar, sampling, self._read_signal)

    def prefill(self, examples: Sequence[Example]) -> Prefilled:
        """Run the model on conversations, padded on the left.

        Raises:
            ContextLengthError: If one is longer than the context of the model.
        """
        batch = self.encoder(examples, left=True).to(self.device)
        inputs, mask, room = batch.inputs(), batch.attention_mask.bool(), None
        lengths = mask.sum(1)
        if (most := self.context_length) is not None:
            if (longest := int(lengths.max())) >= most:
                raise ContextLengthError(
                    f"the conversation has {longest} tokens, and the context of the model {most}: shorten it"
                )
            room = (most - lengths).tolist()
        positions, offsets = self.model.positions(inputs)
        cache = (
            DynamicCache(config=self.model.config.get_text_config()) if self.why_single else DynamicCache()
        )
        output = self.forward(cache, position_ids=positions, **inputs)
        return Prefilled(cache, mask, lengths + offsets, logits_of(output)[:, -1], room)

    def positions(self, following: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the positions of further tokens, ``(B, T)`` or ``(3, B, T)``, padded on the left.

        Args:
            following: Position of the next token of each row, ``(B,)``.
            counts: Number of tokens of each row; ``T`` is the largest.
        """
        width = max(counts)
        shift = torch.tensor([[count - width] for count in counts], device=following.device)
        found = following[:, None] + shift + torch.arange(width, device=following.device)
        found = found.clamp(min=0)
        return found.expand(3, -1, -1) if self.model.uses_3d_positions else found

    def forward(self, cache: DynamicCache, **inputs: Any) -> VitronOutput:
        """Run the model on further tokens; a mask is needed for padded rows only."""
        return self.model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)

    def _read_signal(self, hidden: Tensor) -> Signal:
        ids = torch.tensor([self.grammar.signals], device=self.device)
        found, _ = self.model.signals(hidden[None], ids)
        return found[0].float().cpu().numpy()


def _end_ids(model: VitronForConditionalGeneration) -> list[int]:
    """Return the end tokens of the generation configuration, which names none, one or several."""
    found: Any = getattr(model.generation_config, "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def logits_of(output: VitronOutput) -> Tensor:
    """Return the logits, ``(B, L, V)``."""
    if output.logits is None:
        raise RuntimeError("the model returned no logits")
    return output.logits


def hidden_of(output: VitronOutput) -> Tensor:
    """Return the last hidden states, ``(B, L, C)``."""
    if output.hidden is None:
        raise RuntimeError("the model returned no hidden states")
    return output.hidden
