# SPDX-License-Identifier: Apache-2.0
"""Replies to many talks at once, in one batch that they join and leave at any token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from vitron.model.engine import Vitron, hidden_of, logits_of
from vitron.model.generation import Writing
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, PlacedRegion, SamplingParams

__all__ = ["Batcher"]


class Batcher:
    """What writes the replies of a server to several talks at a time.

    Each pass of the model reads the next token of every reply, and those behind it that the grammar leaves no
    choice about. A talk is read alone, then its reply joins the batch; shorter rows are padded. Sums over
    padded rows round differently: a reply may then differ from that of :meth:`Vitron.stream` where two tokens
    are all but equally likely.

    Args:
        vitron: The model.
        rows: Replies at a time; more wait.

    Raises:
        ValueError: If ``rows`` is below 1.
    """

    def __init__(self, vitron: Vitron, *, rows: int = 8) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        self.vitron = vitron
        self.rows = rows
        self._lock = threading.Lock()
        self._waiting = deque[_Row]()
        self._is_working = False

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a talk takes; see :meth:`Vitron.count_tokens`."""
        return self.vitron.count_tokens(messages)

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Write a reply, from any thread; see :class:`vitron.protocol.messages.MessageGenerator`."""
        row = _Row(messages, media, regions, sampling)
        with self._lock:
            self._waiting.append(row)
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name="vitron-batch", daemon=True).start()
        try:
            while (piece := row.told.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            row.gone.set()

    @torch.inference_mode()
    def _work(self) -> None:
        """Write until nobody waits."""
        batch = _Batch(self.vitron)
        while self._admit(batch):
            try:
                batch.step()
            except Exception as error:  # as memory that is not enough: whoever waits is told
                batch.fail(error)

    def _admit(self, batch: _Batch) -> bool:
        """Let who waits join; return whether there is anything to do."""
        while len(batch.rows) < self.rows:
            with self._lock:
                if not self._waiting:
                    self._is_working = bool(batch.rows)
                    return self._is_working
                row = self._waiting.popleft()
            try:
                batch.join(row)
            except Exception as error:  # of this talk alone
                row.told.put(error)
        return True


class _Row:
    """A reply in a batch."""

    def __init__(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> None:
        self.talk = messages, media, regions
        self.sampling = sampling
        self.told = SimpleQueue[MessageChunk | BaseException | None]()
        self.gone = threading.Event()  # nobody reads any more
        self.ahead = list[int]()  # tokens that were chosen and not read yet; none at the end
        self._writing: Writing | None = None

    def begin(self, vitron: Vitron) -> DynamicCache:
        """Read the talk."""
        cache, found = vitron.begin(*self.talk)
        self._writing = Writing(vitron, self.sampling)
        self.ahead = self._writing.choose(logits_of(found)[0, -1])
        return cache

    def take(self, logits: Tensor, hidden: Tensor) -> None:
        """Tell what was read, and choose what comes behind it.

        Args:
            logits: Behind the last token, ``(V,)``.
            hidden: Of all that were ahead, ``(T, C)``.
        """
        assert self._writing is not None, "the talk was read"
        for token, state in zip(self.ahead, hidden, strict=True):
            piece = self._writing.take(token, state)
            if piece is not None:
                self.told.put(piece)
        self.ahead = self._writing.choose(logits)


class _Batch:
    """Rows with one cache. A mask, ``(B, L)``, says which of its places are a row's own."""

    def __init__(self, vitron: Vitron) -> None:
        self.rows = list[_Row]()
        self._vitron = vitron
        self._cache, self._mask = _joined([])

    def join(self, row: _Row) -> None:
        """Read a talk and take its row in."""
        own = row.begin(self._vitron)
        if not row.ahead:
            row.told.put(None)
            return
        whole = torch.ones(own.get_seq_length(), dtype=torch.bool, device=self._vitron.device)
        self._cache, self._mask = _joined([*self._parts(range(len(self.rows))), (own, 0, whole)])
        self.rows.append(row)

    def step(self) -> None:
        """Read what is ahead of every row; rows with nothing behind it, or without a reader, leave."""
        width = max(len(row.ahead) for row in self.rows)
        ids = torch.full((len(self.rows), width), self._vitron.processor.pad_id)
        new = torch.zeros(ids.shape, dtype=torch.bool)
        for place, row in enumerate(self.rows):
            ids[place, width - len(row.ahead) :] = torch.tensor(row.ahead)
            new[place, width - len(row.ahead) :] = True
        self._mask = torch.cat([self._mask, new.to(self._mask.device)], 1)
        found = self._vitron.model(
            input_ids=ids.to(self._vitron.device),
            attention_mask=self._mask.long(),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, hidden = logits_of(found)[:, -1], hidden_of(found)
        staying = list[int]()
        for place, row in enumerate(self.rows):
            try:
                row.take(logits[place], hidden[place, width - len(row.ahead) :])
            except Exception as error:  # of this reply alone
                row.told.put(error)
                continue
            if row.ahead and not row.gone.is_set():
                staying.append(place)
            else:
                row.told.put(None)
        if len(staying) < len(self.rows):
            self._cache, self._mask = _joined(self._parts(staying))
            self.rows = [self.rows[place] for place in staying]

    def fail(self, error: Exception) -> None:
        """Tell all rows of an error, and begin anew."""
        for row in self.rows:
            row.told.put(error)
        self.rows = []
        self._cache, self._mask = _joined([])

    def _parts(self, places: Iterable[int]) -> list[tuple[DynamicCache, int, Tensor]]:
        return [(self._cache, place, self._mask[place]) for place in places]


def _joined(parts: Sequence[tuple[DynamicCache, int, Tensor]]) -> tuple[DynamicCache, Tensor]:
    """Return one cache of some rows of others, and its mask.

    Args:
        parts: For each row its cache, its place there and its mask, ``(L,)``.
    """
    joined = DynamicCache()
    if not parts:
        return joined, torch.zeros(0, 0, dtype=torch.bool)
    lengths = [int(mask.sum()) for _, _, mask in parts]
    longest = max(lengths)
    masks = [
        F.pad(mask[mask], (longest - length, 0)) for (*_, mask), length in zip(parts, lengths, strict=True)
    ]

    def row(states: Tensor, place: int, mask: Tensor) -> Tensor:
        own = states[place, :, mask]
        return F.pad(own, (0, 0, longest - own.shape[1], 0))

    for number in range(len(parts[0][0].layers)):
        layers = [(_layer(cache, number), place, mask) for cache, place, mask in parts]
        keys = torch.stack([row(keys, place, mask) for (keys, _), place, mask in layers])
        values = torch.stack([row(values, place, mask) for (_, values), place, mask in layers])
        joined.update(keys, values, number)
    return joined, torch.stack(masks)


def _layer(cache: DynamicCache, number: int) -> tuple[Tensor, Tensor]:
    """Return keys and values of a layer.

    Raises:
        TypeError: If it keeps something else, as those of recurrent models do.
    """
    layer = cache.layers[number]
    if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
        raise TypeError(f"layer {number} keeps no keys that could be padded: write one reply at a time")
    return layer.keys, layer.values
