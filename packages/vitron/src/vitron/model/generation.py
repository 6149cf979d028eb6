# SPDX-License-Identifier: Apache-2.0
"""Generation of one message: the decoder that samples its tokens, and the loop of a single conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from vitron.data.example import Example
from vitron.model.constraints import CallState, Vocabulary
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.protocol import ModuleRegistry
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, PlacedRegion
from vitron.protocol.sampling import SamplingParams

__all__ = ["Decoder", "ModelGenerator", "hidden_of", "logits_of"]

Signal = NDArray[np.float32]


class Decoder:
    """Generation state of one message, without the cache of the language model.

    Args:
        encoder: Encoder with the tokenizer.
        vocabulary: Texts of the tokens.
        sampling: Sampling parameters.
        read_signal: Function that returns the signal embeddings ``(N, C)`` of the last hidden states
            ``(N, C)`` of a set of signal tokens.
    """

    def __init__(
        self,
        encoder: ConversationEncoder,
        vocabulary: Vocabulary,
        sampling: SamplingParams,
        read_signal: Callable[[Tensor], Signal],
    ) -> None:
        self.tokens = list[int]()
        self._encoder, self._signal_ids, self._sampling = encoder, vocabulary.signals, sampling
        self._read_signal = read_signal
        self._state = CallState(vocabulary, encoder.modules) if sampling.constrained else None
        self._generator = torch.Generator().manual_seed(sampling.seed)
        self._num_sampled = 0
        self._emitted = ""
        self._signal_states = list[Tensor]()

    def sample(self, logits: Tensor) -> list[int]:
        """Return the next token, and those behind it that the grammar forces.

        Args:
            logits: Logits behind all tokens sampled so far, ``(V,)``.

        Returns:
            Token ids; none at the end of the message.
        """
        left = self._sampling.max_new_tokens - self._num_sampled
        if left < 1:
            return []
        logits = logits.float()
        if self._state is not None:
            logits = self._state.constrain(logits)
        token = _sample(logits, self._sampling, self._generator)
        if token == self._encoder.end_id:
            return []
        tokens = [token]
        if self._state is not None:
            self._state.advance(token)
            tokens += self._state.advance_forced(left - 1)
        self._num_sampled += len(tokens)
        return tokens

    def append(self, token: int, hidden: Tensor) -> MessageChunk | None:
        """Append a sampled token and return the new text; ``None`` while its character is incomplete.

        Args:
            token: Token id, in the order of sampling.
            hidden: Last hidden state of the token, ``(C,)``.
        """
        self.tokens.append(token)
        signal = None
        if token in self._signal_ids:
            self._signal_states.append(hidden)
            if token == self._signal_ids[-1] and len(self._signal_states) >= len(self._signal_ids):
                signal = self._read_signal(torch.stack(self._signal_states[-len(self._signal_ids) :]))
                self._signal_states.clear()
        text = self._encoder.decode(self.tokens)
        if text.endswith("\ufffd") and signal is None:
            return None
        chunk = MessageChunk(text[len(self._emitted) :], signal)
        self._emitted = text
        return chunk


def _sample(logits: Tensor, sampling: SamplingParams, generator: torch.Generator) -> int:
    """Return the likeliest token, or one of the likeliest that make up ``top_p``."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = (logits.cpu() / sampling.temperature).softmax(-1)
    ranked, order = probabilities.sort(descending=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before >= sampling.top_p, 0.0)
    return int(order[torch.multinomial(ranked, 1, generator=generator)])


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
        self.vocabulary = Vocabulary(encoder, int(head.weight.shape[0]))

    @property
    def modules(self) -> ModuleRegistry:
        """Modules that may be called."""
        return self.encoder.modules

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def context_length(self) -> int | None:
        """Positions of the language model; ``None`` if its configuration names none."""
        found = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if found is None else int(found)

    def count_tokens(self, messages: Sequence[Message], media: Sequence[Artefact]) -> int:
        """Return the number of tokens of a conversation, those of images and videos included."""
        processor, kinds = self.encoder.processor, [each.kind for each in media]
        frames = [len(processor.sample_frames(each.num_frames)) for each in media]
        return len(self.encoder.tokens(messages, kinds, frames)[0])

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
        """
        cache, output = self.prefill(messages, media, regions)
        decoder = self.decoder(sampling)
        while tokens := decoder.sample(logits_of(output)[0, -1]):
            ids = torch.tensor([tokens], device=self.device)
            output = self.forward(cache, input_ids=ids)
            for token, hidden in zip(tokens, hidden_of(output)[0], strict=True):
                chunk = decoder.append(token, hidden)
                if chunk is not None:
                    yield chunk

    def decoder(self, sampling: SamplingParams) -> Decoder:
        """Return a decoder for one message."""
        return Decoder(self.encoder, self.vocabulary, sampling, self._read_signal)

    def prefill(
        self, messages: Sequence[Message], media: Sequence[Artefact], regions: Sequence[PlacedRegion]
    ) -> tuple[DynamicCache, VitronOutput]:
        """Run the model on a conversation; return the cache and the output."""
        example = Example(task="", messages=tuple(messages), media=tuple(media), regions=tuple(regions))
        cache = DynamicCache()
        return cache, self.forward(cache, **self.encoder([example]).to(self.device).inputs())

    def forward(self, cache: DynamicCache, **inputs: Tensor) -> VitronOutput:
        """Run the model on further tokens; a mask is needed for padded rows only."""
        return self.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def _read_signal(self, hidden: Tensor) -> Signal:
        ids = torch.tensor([self.vocabulary.signals], device=self.device)
        found, _ = self.model.signals(hidden[None], ids)
        return found[0].float().cpu().numpy()


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
