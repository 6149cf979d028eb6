# SPDX-License-Identifier: Apache-2.0
"""An auxiliary loss: each image token lies near the embeddings of the words for what it shows.

The language model finds the word of a colour or a shape in its text by attention. Where image tokens are near
the same words, it finds the object in the image in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from vitron.demo.painters.words import SHAPES
from vitron.model import ConversationEncoder, VitronForConditionalGeneration
from vitron.model.batch import Batch, Encoded
from vitron.specialists.words import COLOURS
from vitron.training import Stage, VitronData, VitronModule

from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.scenes import MATERIALS, View

__all__ = ["WORDS", "LabelledBatch", "LabelledData", "LabelledExample", "SeeingModule", "token_words"]

PLACES = ("left", "right", "top", "bottom")
_PATTERNS = tuple(name for name in dict.fromkeys(MATERIALS) if name != "solid")
WORDS = (*COLOURS, *SHAPES, *_PATTERNS, *PLACES)
"""Words that image tokens are trained for."""
UNKNOWN = 2  # label of a word for a token that shows hardly any of the object
_SURE, _HARDLY = 0.15, 0.04  # covered shares of a token from which a word is there, up to which it is not
_SCALE, _OFFSET = 20.0, 4.0  # of cosine similarities as logits: a token may show two objects of three words


@dataclass(slots=True)
class LabelledExample(Encoded):
    """An encoded conversation with the words of its image tokens.

    Attributes:
        words: Of each shown frame, ``(tokens, words)`` uint8: 1 if the word fits, 0 if not, ``UNKNOWN``.
    """

    words: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, len(WORDS)), np.uint8))

    @classmethod
    def of(cls, encoded: Encoded, drawn: Drawn, side: int) -> LabelledExample:
        """Add the words of the scenes of a turn.

        Args:
            encoded: The turn, encoded.
            drawn: The turn.
            side: Image tokens along each side of an image.
        """
        own = {each.name: getattr(encoded, each.name) for each in fields(Encoded)}
        parts = (part for message in drawn.example.messages for part in message.content)
        shown = (drawn.views[part.media] for part in parts if part.type == "media")
        found = [token_words(view, side) for view in shown if view is not None]
        none = np.zeros((0, side * side, len(WORDS)), np.uint8)
        return cls(**own, words=np.concatenate([none, *found]))


def token_words(view: View, side: int) -> NDArray[np.uint8]:
    """Return which words fit each image token, ``(T, side * side, words)``; see :class:`LabelledExample`."""
    count, frames, height, width = view.masks.shape
    cells = view.masks.reshape(count, frames, side, height // side, side, width // side).mean((3, 5))
    covered = np.zeros((frames, side, side, len(WORDS)))
    for frame in range(frames):
        for place, words in _named(view, frame):
            for word in words & set(WORDS):
                covered[frame, ..., WORDS.index(word)] += cells[place, frame]
    found = np.full(covered.shape, UNKNOWN, np.uint8)
    found[covered >= _SURE], found[covered <= _HARDLY] = 1, 0
    if not view.natural:  # its colours have no names
        found[:] = UNKNOWN
    half = np.arange(side) >= side // 2
    for word, there in zip(PLACES, (~half[None], half[None], ~half[:, None], half[:, None]), strict=True):
        found[..., WORDS.index(word)] = there
    return found.reshape(frames, side * side, len(WORDS))


def _named(view: View, frame: int) -> Iterable[tuple[int, set[str]]]:
    """Yield the position and the words of each object of a frame."""
    if view.video is None:
        things = enumerate(view.scene.things)
    else:
        things = zip(view.video.tracks[frame], view.video.scenes[frame].things, strict=True)
    for place, thing in things:
        yield place, {thing.colour, thing.shape, *([] if view.style == "flat" else [thing.material])}


@dataclass(slots=True, kw_only=True)
class LabelledBatch(Batch):
    """A batch with the words of its image tokens.

    Attributes:
        words: ``(F, tokens, words)`` uint8.
    """

    words: Tensor


class LabelledData(VitronData):
    """Conversations for training, :class:`LabelledExample` or without words."""

    def collate(self, items: Sequence[Encoded]) -> Batch:
        """Join conversations with their words, if all have them."""
        own = super().collate(items)
        labelled = [each.words for each in items if isinstance(each, LabelledExample)]
        if len(labelled) < len(items):
            return own
        words = np.concatenate(labelled)
        return LabelledBatch(
            **{each.name: getattr(own, each.name) for each in fields(Batch)}, words=torch.from_numpy(words)
        )


class SeeingModule(VitronModule):
    """A stage with the loss of image tokens.

    Args:
        model: Model.
        stage: Stage.
        seed: Random seed.
        encoder: Encoder, whose tokenizer knows the words.
        weight: Weight of the loss.
    """

    def __init__(
        self,
        model: VitronForConditionalGeneration,
        stage: Stage,
        seed: int,
        *,
        encoder: ConversationEncoder,
        weight: float = 1.0,
    ) -> None:
        super().__init__(model, stage, seed)
        self.weight = weight
        ids = [encoder.tokenize(f" {word}") for word in WORDS]
        self.word_ids = [torch.tensor(each) for each in ids]
        self._tokens: Tensor | None = None
        model.backbone.base_model.multi_modal_projector.register_forward_hook(self._keep)

    def _keep(self, projector: Any, args: Any, output: Tensor) -> None:
        self._tokens = output

    def further_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the loss of the image tokens of the forward pass before."""
        tokens, self._tokens = self._tokens, None
        if tokens is None or not isinstance(batch, LabelledBatch) or batch.frame_rows is None:
            return {}
        embeddings = self.model.get_input_embeddings().weight.detach()
        words = torch.stack([embeddings[each.to(embeddings.device)].mean(0) for each in self.word_ids])
        flat = tokens.flatten(1, -2)[batch.frame_rows].float()  # (F, tokens, D)
        logits = _SCALE * F.normalize(flat, dim=-1) @ F.normalize(words, dim=-1).T - _OFFSET
        known = batch.words != UNKNOWN
        loss = F.binary_cross_entropy_with_logits(logits, batch.words.clamp(max=1).float(), reduction="none")
        return {"seen": self.weight * (loss * known).sum() / known.sum().clamp(min=1)}
