# SPDX-License-Identifier: Apache-2.0
"""Generation of many messages in one batch, whose rows join and leave at any token."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from vitron.data.example import Example
from vitron.model.generation import Decoder, ModelGenerator, hidden_of, logits_of
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, PlacedRegion
from vitron.protocol.sampling import SamplingParams

__all__ = ["ContinuousBatcher", "generate_messages"]

_log = logging.getLogger(__name__)

StreamItem = MessageChunk | BaseException | None
"""Next part of a message, an error, or the end."""


@torch.inference_mode()
def generate_messages(
    generator: ModelGenerator, examples: Sequence[Example], sampling: SamplingParams
) -> list[str]:
    """Generate the next message of many conversations in one batch.

    Args:
        generator: Model.
        examples: Conversations, each without the message to be generated.
        sampling: Sampling parameters.

    Returns:
        Raw text with tags and signals.
    """
    if generator.why_single is not None:
        return [_alone(generator, each, sampling) for each in examples]
    rows = [_Row(generator.decoder(sampling)) for _ in examples]
    batch = _Batch(generator)
    batch.prefill(rows, examples)
    while batch.rows:
        batch.step()
    for row in rows:
        row.check()
    return [generator.encoder.decode(row.decoder.tokens) for row in rows]


def _alone(generator: ModelGenerator, example: Example, sampling: SamplingParams) -> str:
    chunks = generator.stream(example.messages, example.media, example.regions, sampling)
    return "".join(chunk.text for chunk in chunks)


class ContinuousBatcher:
    """Generates the messages of a server, several at a time.

    Each forward pass reads the next token of every message, and the tokens behind it that the grammar forces.
    A conversation is prefilled alone, then its row joins the batch; shorter rows are padded. Sums over padded
    rows round differently: a message may then differ from that of :meth:`ModelGenerator.stream` where two
    tokens are almost equally likely. Models with layers that cannot be padded generate one message at a time.

    Args:
        generator: Model.
        rows: Largest number of messages at a time; further ones wait.

    Raises:
        ValueError: If ``rows`` is below 1.
    """

    def __init__(self, generator: ModelGenerator, *, rows: int = 8) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        self.generator = generator
        self.rows = rows
        self._lock = threading.Lock()
        self._waiting = deque[tuple[_Row, Example]]()
        self._is_working = False
        self._single = threading.Lock()
        if generator.why_single is not None:
            _log.warning(generator.why_single)

    @property
    def context_length(self) -> int | None:
        """Positions of the language model; see :attr:`ModelGenerator.context_length`."""
        return self.generator.context_length

    def count_tokens(self, messages: Sequence[Message], media: Sequence[Artefact]) -> int:
        """Return the number of tokens of a conversation; see :meth:`ModelGenerator.count_tokens`."""
        return self.generator.count_tokens(messages, media)

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Generate a message, from any thread; see :class:`vitron.protocol.messages.MessageGenerator`."""
        if self.generator.why_single is not None:
            with self._single:
                yield from self.generator.stream(messages, media, regions, sampling)
            return
        row = _Row(self.generator.decoder(sampling))
        example = Example(task="", messages=tuple(messages), media=tuple(media), regions=tuple(regions))
        with self._lock:
            self._waiting.append((row, example))
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name="vitron-batch", daemon=True).start()
        try:
            while (item := row.items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            row.is_abandoned.set()

    @torch.inference_mode()
    def _work(self) -> None:
        """Generate until no message waits."""
        batch = _Batch(self.generator)
        while self._admit(batch):
            try:
                batch.step()
            except Exception as error:  # such as out of memory: every caller gets it
                batch.fail(error)

    def _admit(self, batch: _Batch) -> bool:
        """Let waiting rows join; return whether there is work."""
        while len(batch.rows) < self.rows:
            with self._lock:
                if not self._waiting:
                    self._is_working = bool(batch.rows)
                    return self._is_working
                row, example = self._waiting.popleft()
            try:
                batch.prefill([row], [example])
            except Exception as error:  # affects this conversation alone
                row.items.put(error)
        return True


@dataclass(eq=False, slots=True)
class _Row:
    """A message in a batch.

    Attributes:
        decoder: Decoder of the message.
        items: Queue that the caller reads.
        is_abandoned: Whether the caller has stopped reading.
        ahead: Sampled tokens that the model has not read yet; none at the end.
    """

    decoder: Decoder
    items: SimpleQueue[StreamItem] = field(default_factory=SimpleQueue[StreamItem])
    is_abandoned: threading.Event = field(default_factory=threading.Event)
    ahead: list[int] = field(default_factory=list[int])

    def advance(self, logits: Tensor, hidden: Tensor) -> None:
        """Append the tokens that were read, and sample the next.

        Args:
            logits: Logits behind the last token, ``(V,)``.
            hidden: Last hidden states of the tokens ahead, ``(T, C)``.
        """
        for token, state in zip(self.ahead, hidden, strict=True):
            chunk = self.decoder.append(token, state)
            if chunk is not None:
                self.items.put(chunk)
        self.sample(logits)

    def sample(self, logits: Tensor) -> None:
        """Sample the next tokens; at the end, emit what is left."""
        self.ahead = self.decoder.sample(logits)
        if not self.ahead and (chunk := self.decoder.close()) is not None:
            self.items.put(chunk)

    def check(self) -> None:
        """Raise the error of a message that failed."""
        while not self.items.empty():
            item = self.items.get()
            if isinstance(item, BaseException):
                raise item


class _Batch:
    """Rows with one cache. A mask, ``(B, L)``, marks the positions that hold tokens of a row."""

    def __init__(self, generator: ModelGenerator) -> None:
        self.rows = list[_Row]()
        self._generator = generator
        self._cache, self._mask = _join([])
        self._next = torch.zeros(0, dtype=torch.long, device=generator.device)

    def prefill(self, rows: Sequence[_Row], examples: Sequence[Example]) -> None:
        """Run the model on conversations and let their rows join."""
        start = self._generator.prefill(examples)
        for index, row in enumerate(rows):
            if start.room is not None:
                row.decoder.limit(start.room[index])
            row.sample(start.logits[index])
            if not row.ahead:
                row.items.put(None)
        staying = [index for index, row in enumerate(rows) if row.ahead]
        parts = [(start.cache, index, start.mask[index]) for index in staying]
        self._cache, self._mask = _join([*self._parts(range(len(self.rows))), *parts])
        self._next = torch.cat([self._next, start.next_positions[staying]])
        self.rows += [rows[index] for index in staying]

    def step(self) -> None:
        """Run the sampled tokens of every row; finished and abandoned rows leave."""
        counts = [len(row.ahead) for row in self.rows]
        width = max(counts)
        ids = torch.full((len(self.rows), width), self._generator.encoder.pad_id)
        new = torch.zeros(ids.shape, dtype=torch.bool)
        for index, row in enumerate(self.rows):
            ids[index, width - len(row.ahead) :] = torch.tensor(row.ahead)
            new[index, width - len(row.ahead) :] = True
        self._mask = torch.cat([self._mask, new.to(self._mask.device)], 1)
        output = self._generator.forward(
            self._cache,
            input_ids=ids.to(self._generator.device),
            attention_mask=self._mask.long(),
            position_ids=self._generator.positions(self._next, counts),
        )
        self._next = self._next + torch.tensor(counts, device=self._next.device)
        logits, hidden = logits_of(output)[:, -1], hidden_of(output)
        staying = list[int]()
        for index, row in enumerate(self.rows):
            try:
                row.advance(logits[index], hidden[index, width - len(row.ahead) :])
            except Exception as error:  # affects this message alone
                row.items.put(error)
                continue
            if row.ahead and not row.is_abandoned.is_set():
                staying.append(index)
            else:
                row.items.put(None)
        if len(staying) < len(self.rows):
            self._keep(staying)

    def fail(self, error: Exception) -> None:
        """Pass an error to all rows, and remove them."""
        for row in self.rows:
            row.items.put(error)
        self._keep([])

    def _keep(self, staying: Sequence[int]) -> None:
        self._cache, self._mask = _join(self._parts(staying))
        self._next = self._next[list(staying)]
        self.rows = [self.rows[index] for index in staying]

    def _parts(self, indices: Iterable[int]) -> list[tuple[DynamicCache, int, Tensor]]:
        return [(self._cache, index, self._mask[index]) for index in indices]


def _join(parts: Sequence[tuple[DynamicCache, int, Tensor]]) -> tuple[DynamicCache, Tensor]:
    """Join rows of several caches to one cache, and return it with its mask.

    Args:
        parts: Cache, position in it and mask ``(L,)`` of each row.
    """
    joined = DynamicCache()
    if not parts:
        return joined, torch.zeros(0, 0, dtype=torch.bool)
    lengths = [int(mask.sum()) for _, _, mask in parts]
    longest = max(lengths)
    masks = [
        F.pad(mask[mask], (longest - length, 0)) for (*_, mask), length in zip(parts, lengths, strict=True)
    ]

    def row(states: Tensor | None, index: int, mask: Tensor) -> Tensor:
        assert states is not None
        own = states[index, :, mask]
        return F.pad(own, (0, 0, longest - own.shape[1], 0))

    for number in range(len(parts[0][0].layers)):
        layers = [(cast("DynamicLayer", cache.layers[number]), index, mask) for cache, index, mask in parts]
        keys = torch.stack([row(layer.keys, index, mask) for layer, index, mask in layers])
        values = torch.stack([row(layer.values, index, mask) for layer, index, mask in layers])
        joined.update(keys, values, number)
    return joined, torch.stack(masks)
