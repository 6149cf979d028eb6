# SPDX-License-Identifier: Apache-2.0
"""Attention maps, computed again from queries and keys while the model keeps its fast kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from diffeat.options import MapOptions

# elements of the score matrix that exist at a time: 16 MiB in fp32
_CHUNK_ELEMENTS = 1 << 22
_SOFTMAXES = frozenset({torch.softmax, torch.Tensor.softmax, F.softmax})


@dataclass(frozen=True, slots=True)
class Scores:
    """Arguments of one attention call.

    Attributes:
        q: Queries after normalisation and rotation, ``(B, heads, N, head_dim)``.
        k: Keys after normalisation and rotation, ``(B, heads or a divisor, M, head_dim)``.
        mask: Additive or boolean, broadcastable to ``(B, heads, N, M)``, or ``None``.
        scale: Factor on the scores.
        is_causal: Whether later keys are hidden.
        probs: The map, ``(B * heads, N, M)``, if the model computes it; then nothing else is set.
    """

    q: Tensor | None = None
    k: Tensor | None = None
    mask: Tensor | None = None
    scale: float = 1.0
    is_causal: bool = False
    probs: tuple[Tensor, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Queries and keys."""
        if self.q is None or self.k is None:
            return self.probs[0].shape[1], self.probs[0].shape[2]
        return self.q.shape[2], self.k.shape[2]


class AttentionWatch(TorchFunctionMode):
    """Records the arguments of every attention while the mode is active, without changing them.

    It records ``scaled_dot_product_attention`` and, in processors without it, the softmax of the scores.
    All preceding operations on queries and keys (fused projections, normalisation, rotary positions, text
    joined to the image, masks) are thereby included for every architecture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Scores] = []
        self._probs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.calls.append(_scores(*args, **kwargs))
        result = func(*args, **kwargs)
        if func in _SOFTMAXES and isinstance(result, Tensor) and result.ndim >= 3 and not self.calls:
            self._probs.append(result.flatten(0, -3))
        return result

    def found(self) -> list[Scores]:
        """The recorded attentions, in order."""
        if self.calls or not self._probs:
            return self.calls
        # processors that slice the heads call softmax once per slice
        return [Scores(probs=tuple(self._probs))]


def _scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Scores:
    del value, dropout_p, enable_gqa
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    return Scores(query, key, attn_mask, factor, is_causal)


def attention_map(scores: Scores, rows: slice, columns: slice, options: MapOptions, batch: int) -> Tensor:
    """Softmax of the scores, in chunks of queries, reduced before the next chunk.

    Args:
        scores: The attention.
        rows: Queries kept; the others are not computed.
        columns: Keys kept; rows are normalised over all keys first.
        options: Reduction over heads and keys.
        batch: Images of the call.

    Returns:
        ``(B, kept heads or 1, rows, kept keys)``, fp32 (fp64 for fp64 queries).
    """
    if scores.q is None or scores.k is None:
        return _from_probs(scores.probs, rows, columns, options, batch)
    q, k = scores.q[:, :, rows], scores.k
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    dtype = torch.promote_types(q.dtype, torch.float32)
    N, M = q.shape[2], k.shape[2]
    step = options.chunk or max(1, _CHUNK_ELEMENTS // max(1, q.shape[0] * q.shape[1] * M))
    keys = k.to(dtype).transpose(2, 3)  # (B, heads, head_dim, M)
    first = range(scores.q.shape[2])[rows].start
    out: Tensor | None = None
    for start in range(0, N, step):
        chunk = slice(start, min(start + step, N))
        logits = (q[:, :, chunk].to(dtype) * scores.scale) @ keys  # (B, heads, chunk, M)
        logits = _masked(logits, scores, first + chunk.start)
        part = _reduced(logits.softmax(dim=-1), columns, options)
        if out is None:
            out = part.new_empty(*part.shape[:2], N, part.shape[3])
        out[:, :, chunk] = part
    if out is None:
        raise ValueError("an attention map needs at least one query, got none")
    return out


def _masked(logits: Tensor, scores: Scores, first: int) -> Tensor:
    rows = slice(first, first + logits.shape[2])
    if scores.is_causal:
        queries = torch.arange(rows.start, rows.stop, device=logits.device)
        keys = torch.arange(logits.shape[3], device=logits.device)
        logits = logits.masked_fill(keys > queries[:, None], float("-inf"))
    if scores.mask is None:
        return logits
    mask = scores.mask if scores.mask.ndim < 2 or scores.mask.shape[-2] == 1 else scores.mask[..., rows, :]
    return logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask


def _reduced(probs: Tensor, columns: slice, options: MapOptions) -> Tensor:
    """Keep heads and keys of a map, ``(B, heads, N, M)``."""
    if isinstance(options.heads, tuple):
        _check_inside("heads", options.heads, probs.shape[1])
        probs = probs[:, list(options.heads)]
    probs = probs[..., columns]
    if options.tokens is not None:
        _check_inside("tokens", options.tokens, probs.shape[-1])
        probs = probs[..., list(options.tokens)]
    return probs.mean(dim=1, keepdim=True) if options.heads == "mean" else probs


def _check_inside(what: str, chosen: tuple[int, ...], count: int) -> None:
    if any(not -count <= index < count for index in chosen):
        raise ValueError(f"{what} of a map must lie below the {count} of this attention, got {chosen}")


def _from_probs(
    slices: Sequence[Tensor], rows: slice, columns: slice, options: MapOptions, batch: int
) -> Tensor:
    probs = torch.cat(list(slices)).unflatten(0, (batch, -1))[:, :, rows]  # (B, heads, rows, M)
    return _reduced(probs.to(torch.promote_types(probs.dtype, torch.float32)), columns, options).clone()
