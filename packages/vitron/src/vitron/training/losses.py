# SPDX-License-Identifier: Apache-2.0
"""The losses of a batch: next token, masks, conditions of generators, and an auxiliary reader of signals."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitron.model.batch import IGNORED, Batch
from vitron.model.hf.modeling import VitronForConditionalGeneration, VitronOutput
from vitron.model.regions import mask_boxes
from vitron.model.signals import MaskGroup, alignment_loss, mask_loss, match_loss
from vitron.training.stages import Losses

__all__ = ["BatchLosses", "SignalReader", "batch_losses", "loss_counts"]


class BatchLosses(NamedTuple):
    """Losses of a batch.

    Attributes:
        losses: Mean of each loss over its items, by name.
        signals: Signals of the calls, ``(K, num_signals, D)``.
    """

    losses: dict[str, Tensor]
    signals: Tensor


class SignalReader(nn.Module):
    """Auxiliary head, used in training alone, that reads instruction tokens and boxes from signals.

    Args:
        width: Channels of all signals of a call together.
        vocabulary: Size of the vocabulary.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(width, vocabulary)
        self.box = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 4))

    def loss(self, signals: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of instruction tokens plus the distance of mask boxes.

        Args:
            signals: ``(K, num_signals, D)``.
            batch: Batch with the instruction tokens of the calls, and the masks.
        """
        flat = signals.flatten(1)
        wanted = torch.zeros(len(flat), self.tokens.out_features, device=flat.device)
        for row, tokens in enumerate(batch.call_tokens):
            wanted[row, tokens] = 1
        loss = F.binary_cross_entropy_with_logits(self.tokens(flat), wanted, reduction="sum")
        loss = loss / wanted.sum().clamp(min=1)
        if len(batch.mask_calls):
            found = self.box(flat[batch.mask_calls])
            boxes = torch.cat([mask_boxes(each[None] > 0.5) for each in batch.mask_targets])
            loss = loss + (found - boxes).abs().mean()
        return loss


def loss_counts(batch: Batch, weights: Losses, model: VitronForConditionalGeneration) -> dict[str, int]:
    """Return the number of items of each loss of a batch; losses without items are left out.

    Args:
        batch: Conversations.
        weights: Weights of the losses; a loss of weight 0 has no items.
        model: Model, whose condition heads decide which prompts count.
    """
    masks, calls = len(batch.mask_calls), len(batch.call_modules)
    counts = {
        "text": int((batch.labels[:, 1:] != IGNORED).sum()) if weights.text else 0,
        "mask": masks if weights.mask else 0,
        "match": masks if weights.mask and weights.match else 0,
        "alignment": len(_aligned(batch, model)) if weights.alignment else 0,
        "words": calls if weights.words else 0,
    }
    return {name: count for name, count in counts.items() if count}


def batch_losses(
    model: VitronForConditionalGeneration, batch: Batch, counts: dict[str, int], reader: SignalReader | None
) -> BatchLosses:
    """Return the losses of a batch that have items.

    Args:
        model: Model.
        batch: Conversations.
        counts: What :func:`loss_counts` returns.
        reader: Reader of the signals, for the loss ``words``.

    Raises:
        ValueError: If calls lack their signals, or a target mask has no image.
    """
    found: VitronOutput = model(**batch.inputs(), labels=batch.labels, use_cache=False)
    if found.hidden is None or found.loss is None:
        raise RuntimeError("the model gave no hidden states or no loss")
    losses = dict[str, Tensor]()
    if "text" in counts:
        losses["text"] = found.loss
    signals, rows = model.signals(found.hidden, batch.input_ids)
    if len(rows) != len(batch.call_modules):
        raise ValueError(f"{len(batch.call_modules)} calls have {len(rows)} sets of signals between them")
    if "mask" in counts:
        groups = _mask_groups(model, batch, found, signals)
        losses["mask"] = mask_loss(groups, batch.mask_targets)
        if "match" in counts:
            losses["match"] = match_loss(groups, batch.mask_targets, batch.mask_calls)
    if "alignment" in counts:
        losses["alignment"] = _alignment(model, batch, signals)
    if "words" in counts and reader is not None:
        losses["words"] = reader.loss(signals, batch)
    return BatchLosses(losses, signals)


def _mask_groups(
    model: VitronForConditionalGeneration, batch: Batch, found: VitronOutput, signals: Tensor
) -> list[MaskGroup]:
    if found.features is None:
        raise ValueError("a target mask needs an image")
    return model.mask_groups(
        signals[batch.mask_calls],
        [batch.call_modules[call] for call in batch.mask_calls.tolist()],
        batch.mask_frames.tolist(),
        found.features,
    )


def _aligned(batch: Batch, model: Any) -> list[int]:
    """Return the calls with conditions for whose module there is a head."""
    return [call for call in batch.conditions if batch.call_modules[call] in model.condition_heads]


def _alignment(model: VitronForConditionalGeneration, batch: Batch, signals: Tensor) -> Tensor:
    heads = cast("dict[str, nn.Module]", model.condition_heads)
    terms = [
        alignment_loss(
            heads[batch.call_modules[call]](signals[call : call + 1])[0], batch.conditions[call].to(signals)
        )
        for call in _aligned(batch, model)
    ]
    return torch.stack(terms).mean()
