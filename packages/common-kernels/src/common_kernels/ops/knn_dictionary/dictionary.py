# SPDX-License-Identifier: Apache-2.0
"""The dictionary object: one set of (query, key) pairs in the forms that the backends read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node

Form = TypeVar("Form")


@dataclass(frozen=True, slots=True)
class TransposedList:
    """The queries that list each key, in compressed form.

    Attributes:
        offsets: ``(B, M + 1)``, int64. Key ``j`` of window ``b`` is listed by
            ``queries[b, offsets[b, j] : offsets[b, j + 1]]``.
        queries: ``(B, N * K)``, int64, ascending within each key.
        slots: ``(B, N * K)``, int64: where in :meth:`KNNDictionary.columns`, flattened, each pair stands.
    """

    offsets: Tensor
    queries: Tensor
    slots: Tensor


class KNNDictionary:
    """Which keys each query may attend to, built once and shared by heads and layers.

    The set is held as an index list. Every other form is built on first use and kept, so the layers
    of a stage pay for it once. A dictionary never changes; gradients do not flow through it.

    Args:
        index: Listed keys, ``(B, N, K)``, int32, in ``[0, num_keys)``; ``-1`` marks an unused slot.
            The order within a row is free. No key stands twice in one row.
        num_keys: Number of keys ``M``.
        is_full: Whether every slot is used for certain.
        has_empty_rows: Whether a query may have no key at all. Such a query attends to nothing and
            gets zero.

    Source: SemanIR, arXiv 2405.20008, Sec. 3 (key-semantic dictionary).
    """

    __slots__ = ("_forms", "has_empty_rows", "index", "is_full", "num_keys")

    def __init__(
        self, index: Tensor, num_keys: int, *, is_full: bool = False, has_empty_rows: bool = True
    ) -> None:
        self.index = index
        self.num_keys = num_keys
        self.is_full = is_full
        self.has_empty_rows = has_empty_rows and not is_full
        self._forms: dict[str, object] = {}

    @classmethod
    def from_index(cls, index: Tensor, num_keys: int) -> KNNDictionary:
        """Check a caller's own lists and wrap them.

        Args:
            index: ``(B, N, K)``, any integer dtype, in ``[-1, num_keys)``. ``-1`` is an unused slot;
                a key listed twice in a row counts once.
            num_keys: Number of keys ``M``, at least 1.

        Returns:
            The dictionary; the index is copied.

        Raises:
            TypeError: If ``index`` is not of an integer dtype.
            ValueError: If the shape or an entry is out of range. Checking entries synchronises.
        """
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"index must hold integers, got {index.dtype=}")
        if index.ndim != 3 or index.shape[-1] == 0:
            raise ValueError(f"index must be (B, N, K) with K >= 1, got shape {tuple(index.shape)}")
        if num_keys < 1:
            raise ValueError(f"num_keys must be at least 1, got {num_keys}")
        if index.numel() and (int(index.min()) < -1 or int(index.max()) >= num_keys):
            low, high = int(index.min()), int(index.max())
            raise ValueError(f"index must lie in [-1, {num_keys}), got values from {low} to {high}")
        ordered = index.to(torch.int32).sort(dim=-1, descending=True).values
        duplicate = torch.zeros_like(ordered, dtype=torch.bool)
        duplicate[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
        ordered = ordered.masked_fill(duplicate, -1)
        if ordered.shape[-1] > num_keys:  # no row has more than num_keys distinct keys
            ordered = ordered.sort(dim=-1, descending=True).values[..., :num_keys].contiguous()
        is_full = bool((ordered >= 0).all())
        has_empty_rows = bool((ordered[..., 0] < 0).any())
        return cls(ordered, num_keys, is_full=is_full, has_empty_rows=has_empty_rows)

    @property
    def batch_size(self) -> int:
        """Number of windows ``B``."""
        return self.index.shape[0]

    @property
    def num_queries(self) -> int:
        """Number of queries ``N`` in a window."""
        return self.index.shape[1]

    @property
    def k(self) -> int:
        """Slots per query ``K``; a row may use fewer."""
        return self.index.shape[2]

    @property
    def device(self) -> torch.device:
        """Device of every form."""
        return self.index.device

    def to(self, device: torch.device | str) -> KNNDictionary:
        """Return the same lists on another device; itself if it is there already. Forms are built again."""
        index = self.index.to(device)
        return self if index is self.index else _rebuild((index,), self._facts())

    def _facts(self) -> tuple[int, bool, bool]:
        return self.num_keys, self.is_full, self.has_empty_rows

    def __reduce__(self) -> tuple[Any, ...]:
        # copies and pickles hold the lists alone: every form can be built from them
        return _rebuild, ((self.index,), self._facts())

    def __repr__(self) -> str:
        B, N, K = self.index.shape
        return f"KNNDictionary(windows={B}, queries={N}, keys={self.num_keys}, k={K}, device={self.device})"

    def allowed(self) -> Tensor:
        """Return ``(B, N, M)`` bool, true where the query lists the key. Built again at each call."""
        return self._scatter(False, True, torch.bool)

    def empty_rows(self) -> Tensor:
        """Return ``(B, N)`` bool, true where the query lists no key."""
        return self.index.amax(dim=-1) < 0

    def float_mask(self, dtype: torch.dtype) -> Tensor:
        """Return ``(B, 1, N, M)`` of ``dtype``: 0 where the query lists the key, else minus infinity.

        An empty row is 0 throughout, so that its softmax stays finite; the backends zero its output.
        """

        def build() -> Tensor:
            mask = self._scatter(float("-inf"), 0.0, dtype)
            if self.has_empty_rows:
                mask = mask.masked_fill(self.empty_rows().unsqueeze(-1), 0.0)
            return mask.unsqueeze(1)  # (B, 1, N, M)

        return self._cached(f"float_mask {dtype}", build)

    def bits(self) -> Tensor:
        """Return ``(B, N, ceil(M / 32))`` int32: key ``j`` is bit ``j % 32`` of word ``j // 32``."""
        return self._cached("bits", self._pack)

    def bits_transposed(self) -> Tensor:
        """Return ``(B, M, ceil(N / 32))`` int32: query ``i`` is bit ``i % 32`` of word ``i // 32``."""
        return self._cached("bits_transposed", self._pack_transposed)

    def columns(self) -> Tensor:
        """Return the listed keys ascending within each row, ``(B, N, K)``, int64.

        An unused slot repeats a key of its row (key 0 in an empty row) and stands in :meth:`unused`.
        """
        return self._cached("columns", lambda: self._ordered()[0])

    def unused(self) -> Tensor | None:
        """Return ``(B, N, K)`` bool, true where :meth:`columns` is filled up, or ``None`` if nowhere."""
        return self._cached("unused", lambda: self._ordered()[1])

    def transposed(self) -> TransposedList:
        """Return the pairs of :meth:`columns` sorted by key, then by query; unused slots included."""

        def build() -> TransposedList:
            flat = self.columns().flatten(1)  # (B, N * K)
            keys, slots = flat.sort(dim=-1, stable=True)
            bounds = (
                torch.arange(self.num_keys + 1, device=self.device).expand(self.batch_size, -1).contiguous()
            )
            return TransposedList(torch.searchsorted(keys, bounds), slots // self.k, slots)

        return self._cached("transposed", build)

    def _cached(self, name: str, build: Callable[[], Form]) -> Form:
        if name not in self._forms:
            with _outside_inference_mode():
                self._forms[name] = build()
        return self._forms[name]  # pyright: ignore[reportReturnType] - stored by the line above

    def _ordered(self) -> tuple[Tensor, Tensor | None]:
        """Sort the rows once for both of :meth:`columns` and :meth:`unused`."""
        spare = self.index.amax(dim=-1, keepdim=True)
        place = torch.where(self.index < 0, spare, self.index).clamp(min=0).long()
        columns, order = place.sort(dim=-1)
        unused = None if self.is_full else (self.index < 0).gather(-1, order)
        self._forms["columns"], self._forms["unused"] = columns, unused
        return columns, unused

    def _pack(self) -> Tensor:
        place = self.index.clamp(min=0)
        bit = torch.where(self.index < 0, 0, torch.ones_like(place) << (place % 32))
        words = torch.zeros(
            (*self.index.shape[:2], -(-self.num_keys // 32)), dtype=torch.int32, device=self.device
        )
        # every listed pair has a bit of its own, so the sum is the union
        return words.scatter_add_(-1, (place // 32).long(), bit)

    def _pack_transposed(self) -> Tensor:
        B, N, K = self.index.shape
        num_words = -(-N // 32)
        query = torch.arange(N, dtype=torch.int32, device=self.device).view(1, N, 1).expand(B, N, K)
        bit = torch.where(self.index < 0, 0, torch.ones_like(query) << (query % 32))
        word = self.index.clamp(min=0).long() * num_words + query // 32
        words = torch.zeros((B, self.num_keys * num_words), dtype=torch.int32, device=self.device)
        return words.scatter_add_(-1, word.flatten(1), bit.flatten(1)).view(B, self.num_keys, num_words)

    def _scatter(self, background: float | bool, listed: float | bool, dtype: torch.dtype) -> Tensor:
        """Paint ``listed`` over ``background`` at the listed places."""
        B, N, _ = self.index.shape
        # an unused slot repeats a used one of its row, so that it paints nothing new
        spare = self.index.amax(dim=-1, keepdim=True)  # (B, N, 1)
        place = torch.where(self.index < 0, spare, self.index)
        canvas = torch.full((B, N, self.num_keys), background, dtype=dtype, device=self.device)
        canvas.scatter_(-1, place.clamp(min=0).long(), listed)
        if self.has_empty_rows:
            canvas.masked_fill_(spare < 0, background)
        return canvas


def _rebuild(tensors: Iterable[Any], facts: tuple[int, bool, bool]) -> KNNDictionary:
    (index,) = tensors
    num_keys, is_full, has_empty_rows = facts
    return KNNDictionary(index, num_keys, is_full=is_full, has_empty_rows=has_empty_rows)


# transforms of torch.func and exported programs look into arguments for tensors
register_pytree_node(
    KNNDictionary,
    lambda dictionary: ([dictionary.index], dictionary._facts()),  # pyright: ignore[reportPrivateUsage]
    _rebuild,
    serialized_type_name="common_kernels.KNNDictionary",
)


@contextlib.contextmanager
def _outside_inference_mode() -> Generator[None, None, None]:
    """Let a form that is first needed in inference serve a later training step too."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        yield
    else:
        with torch.inference_mode(False), torch.no_grad():
            yield
