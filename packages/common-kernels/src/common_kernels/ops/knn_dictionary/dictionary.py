# SPDX-License-Identifier: Apache-2.0
"""The dictionary object: one set of (query, key) pairs in the forms that the backends read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TransposedList:
    """The queries that list each key, in compressed form.

    Attributes:
        offsets: ``(B, M + 1)``, int64. Key ``j`` of window ``b`` is listed by
            ``queries[b, offsets[b, j] : offsets[b, j + 1]]``.
        queries: ``(B, N * K)``, int32, ascending within each key; what lies behind
            ``offsets[b, M]`` is unspecified.
    """

    offsets: Tensor
    queries: Tensor


class KNNDictionary:
    """Which keys each query may attend to, built once and shared by heads and layers.

    The set is held as an index list. Every other form is built on first use and kept, so the layers
    of a stage pay for it once. A dictionary never changes; gradients do not flow through it.

    Args:
        index: Listed keys, ``(B, N, K)``, int32, in ``[0, num_keys)``; ``-1`` marks an unused slot.
            No promise is made about the order within a row. No key stands twice in one row.
        num_keys: Number of keys ``M``.
        has_empty_rows: Whether a query may have no key at all. Such a query attends to nothing and
            gets zero.

    Source: SemanIR, arXiv 2405.20008, Sec. 3 (key-semantic dictionary).
    """

    __slots__ = ("_bits", "_bits_transposed", "_float_masks", "_transposed", "has_empty_rows", "index", "num_keys")

    def __init__(self, index: Tensor, num_keys: int, *, has_empty_rows: bool = False) -> None:
        self.index = index
        self.num_keys = num_keys
        self.has_empty_rows = has_empty_rows
        self._float_masks: dict[torch.dtype, Tensor] = {}
        self._bits: Tensor | None = None
        self._bits_transposed: Tensor | None = None
        self._transposed: TransposedList | None = None

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
        has_empty_rows = bool((ordered[..., 0] < 0).any()) if index.numel() else False
        return cls(ordered, num_keys, has_empty_rows=has_empty_rows)

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
        """Where every form lives."""
        return self.index.device

    def __repr__(self) -> str:
        B, N, K = self.index.shape
        return f"KNNDictionary(windows={B}, queries={N}, keys={self.num_keys}, k={K}, device={self.device})"

    def allowed(self) -> Tensor:
        """Return ``(B, N, M)`` bool, true where the query lists the key. Built anew at each call."""
        return self._scatter(False, True, torch.bool)

    def empty_rows(self) -> Tensor:
        """Return ``(B, N)`` bool, true where the query lists no key."""
        return self.index.amax(dim=-1) < 0

    def float_mask(self, dtype: torch.dtype) -> Tensor:
        """Return ``(B, 1, N, M)`` of ``dtype``: 0 where the query lists the key, else minus infinity.

        An empty row is 0 throughout, so that its softmax stays finite; the backends zero its output.
        """
        if dtype not in self._float_masks:
            mask = self._scatter(float("-inf"), 0.0, dtype)
            if self.has_empty_rows:
                mask = mask.masked_fill(self.empty_rows().unsqueeze(-1), 0.0)
            self._float_masks[dtype] = mask.unsqueeze(1)  # (B, 1, N, M)
        return self._float_masks[dtype]

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
