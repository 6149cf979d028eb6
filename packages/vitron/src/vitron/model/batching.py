# SPDX-License-Identifier: Apache-2.0
"""Generation of many messages in one batch, whose rows join and leave at any token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

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
    rows = [_Row(generator.decoder(sampling)) for _ in examples]
    batch = _Batch(generator)
    batch.prefill(rows, examples)
    while batch.rows:
        batch.step()
    for row in rows:
        row.check()
    return [generator.encoder.decode(row.decoder.tokens) for row in rows]


class ContinuousBatcher:
    """Generates the messages of a server, several at a time.

    Each forward pass reads the next token of every message, and the tokens behind it that the grammar forces.
    A conversation is prefilled alone, then its row joins the batch; shorter rows are padded. Sums over padded
    rows round differently: a message may then differ from that of :meth:`ModelGenerator.stream` where two
    tokens are almost equally likely.

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
        self.ahead = self.decoder.sample(logits)

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

    def prefill(self, rows: Sequence[_Row], examples: Sequence[Example]) -> None:
        """Run the model on conversations and let their rows join."""
        batch = self._generator.encoder(examples, left=True).to(self._generator.device)
        cache, mask = DynamicCache(), batch.attention_mask.bool()
        logits = logits_of(self._generator.forward(cache, **batch.inputs()))[:, -1]
        for index, row in enumerate(rows):
            row.ahead = row.decoder.sample(logits[index])
            if not row.ahead:
                row.items.put(None)
        staying = [index for index, row in enumerate(rows) if row.ahead]
        parts = [(cache, index, mask[index]) for index in staying]
        self._cache, self._mask = _join([*self._parts(range(len(self.rows))), *parts])
        self.rows += [rows[index] for index in staying]

    def step(self) -> None:
        """Run the sampled tokens of every row; finished and abandoned rows leave."""
        width = max(len(row.ahead) for row in self.rows)
        ids = torch.full((len(self.rows), width), self._generator.encoder.pad_id)
        new = torch.zeros(ids.shape, dtype=torch.bool)
        for index, row in enumerate(self.rows):
            ids[index, width - len(row.ahead) :] = torch.tensor(row.ahead)
            new[index, width - len(row.ahead) :] = True
        self._mask = torch.cat([self._mask, new.to(self._mask.device)], 1)
        output = self._generator.forward(
            self._cache, input_ids=ids.to(self._generator.device), attention_mask=self._mask.long()
        )
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
            self._cache, self._mask = _join(self._parts(staying))
            self.rows = [self.rows[index] for index in staying]

    def fail(self, error: Exception) -> None:
        """Pass an error to all rows, and remove them."""
        for row in self.rows:
            row.items.put(error)
        self.rows = []
        self._cache, self._mask = _join([])

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

    def row(states: Tensor, index: int, mask: Tensor) -> Tensor:
        own = states[index, :, mask]
        return F.pad(own, (0, 0, longest - own.shape[1], 0))

    for number in range(len(parts[0][0].layers)):
        layers = [(_layer(cache, number), index, mask) for cache, index, mask in parts]
        keys = torch.stack([row(keys, index, mask) for (keys, _), index, mask in layers])
        values = torch.stack([row(values, index, mask) for (_, values), index, mask in layers])
        joined.update(keys, values, number)
    return joined, torch.stack(masks)


def _layer(cache: DynamicCache, number: int) -> tuple[Tensor, Tensor]:
    """Return keys and values of a layer.

    Raises:
        TypeError: If it keeps another state, as recurrent models do.
    """
    layer = cache.layers[number]
    if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
        raise TypeError(f"layer {number} keeps no keys that can be padded: generate one message at a time")
    return layer.keys, layer.values
