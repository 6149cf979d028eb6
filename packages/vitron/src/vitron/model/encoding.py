# SPDX-License-Identifier: Apache-2.0
"""Conversations as tensors: token ids and labels, images, regions, and the targets of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitron.data.example import Example
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.processing import VitronProcessor
from vitron.protocol import MODULES, ModuleRegistry, escape, render
from vitron.protocol.contract import MediaKind, Signal, Turn
from vitron.protocol.messages import (
    MediaPart,
    Message,
    PlacedRegion,
    RegionPart,
    TextPart,
    media_handles,
    region_handle,
)

__all__ = ["Batch", "ConversationEncoder", "Encoded"]

IGNORED = -100


@dataclass(slots=True, kw_only=True)
class Batch:
    """Conversations as tensors: inputs of the model, and targets of the losses.

    Attributes:
        input_ids: ``(B, L)``.
        attention_mask: ``(B, L)``.
        labels: ``(B, L)``: assistant messages and their end tokens, -100 elsewhere.
        pixel_values: ``(F, 3, S, S)``; ``None`` without images.
        frame_counts: ``(M,)``.
        region_masks: ``(R, S, S)``.
        region_frames: ``(R,)``.
        call_modules: Module of each complete call, in the order of the batch.
        call_rows: Row of each call.
        call_tokens: Instruction tokens of each call.
        mask_calls: Call of each target mask, ``(N,)``.
        mask_frames: Row of ``pixel_values`` of each target mask, ``(N,)``.
        mask_targets: ``(N, S / stride, S / stride)``, 0 to 1.
        tasks: Task of each row.
        conditions: Text encoder's vectors ``(n, C)``, by call.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    pixel_values: Tensor | None = None
    frame_counts: Tensor | None = None
    region_masks: Tensor | None = None
    region_frames: Tensor | None = None
    call_modules: list[str]
    call_rows: Tensor
    call_tokens: list[list[int]]
    mask_calls: Tensor
    mask_frames: Tensor
    mask_targets: Tensor
    tasks: list[str]
    conditions: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        moved = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: each.to(device) for name, each in moved.items() if isinstance(each, Tensor)}
        )

    def inputs(self) -> dict[str, Tensor]:
        """Return the inputs of the model, without labels."""
        names = (
            "input_ids",
            "attention_mask",
            "pixel_values",
            "frame_counts",
            "region_masks",
            "region_frames",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(slots=True)
class Encoded:
    """One conversation as arrays.

    Attributes:
        ids: Token ids.
        labels: Token ids of assistant messages, -100 elsewhere.
        frames: ``(F, S, S, 3)`` uint8, shown frames of all media, in order.
        counts: Shown frames of each medium.
        regions: ``(R, S, S)`` uint8.
        region_frames: Row of ``frames`` of each region.
        modules: Module of each call.
        masks: ``(call, frame, (s, s) float16)``.
        task: Task name.
        conditions: Text encoder's vectors ``(n, C)``, by call.
    """

    ids: list[int]
    labels: list[int]
    frames: NDArray[np.uint8]
    counts: list[int]
    regions: NDArray[np.uint8]
    region_frames: list[int]
    modules: list[str]
    masks: list[tuple[int, int, NDArray[np.float16]]]
    task: str
    conditions: dict[int, NDArray[np.floating]] = field(default_factory=dict[int, NDArray[np.floating]])


class ConversationEncoder:
    """Turns conversations into tensors, and tokens into text.

    Args:
        processor: Tokenizer, chat template and image processor.
        config: Configuration of the model.
        modules: Modules that may be called.
    """

    def __init__(
        self, processor: VitronProcessor, config: VitronConfig, *, modules: ModuleRegistry = MODULES
    ) -> None:
        self.processor, self.config, self.modules = processor, config, modules
        self.tokenizer: Any = processor.tokenizer
        self.signals = tuple(
            Signal(kind="specific", index=number)
            if number < config.num_specific
            else Signal(kind="shared", index=number - config.num_specific)
            for number in range(config.num_signals)
        )
        self.end_id = int(self.tokenizer.eos_token_id)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.end_id if pad is None else int(pad)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> ConversationEncoder:
        """Load processor and configuration from a folder."""
        return cls(VitronProcessor.from_pretrained(folder), VitronConfig.from_pretrained(folder))

    # -- text

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens recognised and none added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def token_id(self, text: str) -> int:
        """Return the id of a special token."""
        return int(self.tokenizer.convert_tokens_to_ids(text))

    def token_text(self, token: int) -> str:
        """Return the characters of one token; U+FFFD for part of a character, ``""`` for no token."""
        return self.decode([token], keep_end=True) if token < len(self.tokenizer) else ""

    def decode(self, ids: Sequence[int], *, keep_end: bool = False) -> str:
        """Return the text of an assistant message, tags and signals included, without its end token."""
        kept = ids if keep_end else [each for each in ids if each not in (self.end_id, self.pad_id)]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def assistant_text(self, message: Message) -> str:
        """Return an assistant message in the format of the model: text, then calls, each with its signals."""
        signals = tuple(
            each.model_copy(update={"invocation": number})
            for number in range(len(message.calls))
            for each in self.signals
        )
        return render(
            Turn(text=message.text, invocations=message.calls, signals=signals), modules=self.modules
        )

    def _template_message(self, message: Message, kinds: Sequence[MediaKind]) -> dict[str, Any]:
        """Return a message in the format of chat templates; tags in user and system text are escaped.

        Media and regions stand behind their handles, by which a call can name them; of masks, the handle
        alone is shown.
        """
        if message.role == "assistant":
            text = self.assistant_text(message)
            return {"role": "assistant", "content": [{"type": "text", "text": text}]}
        content, handles = list[dict[str, str]](), media_handles(kinds)
        for part in message.content:
            match part:
                case TextPart():
                    content.append({"type": "text", "text": escape(part.text)})
                case MediaPart():
                    kind, handle = kinds[part.media], handles[part.media]
                    shown = [] if kind == "masks" else [{"type": kind}]
                    content += _behind(handle, shown)
                case RegionPart():
                    content += _behind(region_handle(part.region), [{"type": "region"}])
        return {"role": message.role, "content": content}

    def tokens(
        self, messages: Sequence[Message], kinds: Sequence[MediaKind], frames: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of a conversation, and labels: assistant messages and their end tokens.

        A conversation that does not end with an assistant message ends with the opening of one.

        Args:
            messages: Messages in order.
            kinds: Kind of each medium.
            frames: Number of shown frames of each medium.
        """
        shown = [
            frames[part.media]
            for each in messages
            for part in each.content
            if isinstance(part, MediaPart) and kinds[part.media] != "masks"
        ]
        segments = self.processor.render_segments(
            [self._template_message(each, kinds) for each in messages],
            add_generation_prompt=bool(messages) and messages[-1].role != "assistant",
        )
        ids, labels, counts = list[int](), list[int](), iter(shown)
        for text, is_generated in segments:
            expanded = text if is_generated else self.processor.expand_placeholders(text, counts)[0]
            found = self.tokenize(expanded)
            ids += found
            labels += found if is_generated else [IGNORED] * len(found)
        return ids, labels

    # -- examples

    def encode(self, example: Example) -> Encoded:
        """Turn one example into arrays.

        Media are shown where messages first refer to them; media without a reference are omitted.

        Raises:
            ValueError: If a message refers to a missing medium or region, or a region lies on a medium
                that is not shown.
        """
        order = list[int]()
        regions = list[int]()
        for message in example.messages:
            for part in message.content:
                if isinstance(part, MediaPart):
                    _known(part.media, len(example.media), "medium")
                    if part.media in order:
                        raise ValueError(f"medium {part.media} is shown twice: refer to it once")
                    if example.media[part.media].kind != "masks":
                        order.append(part.media)
                elif isinstance(part, RegionPart):
                    _known(part.region, len(example.regions), "region")
                    regions.append(part.region)
        processor, side = self.processor, self.processor.image_processor.side
        chosen = {number: processor.sample_frames(example.media[number].num_frames) for number in order}
        squares = [
            processor.image_processor.fit(example.media[number].frames[chosen[number]]) for number in order
        ]
        placed = [self._place(example.regions[number], chosen) for number in regions]
        shown = [len(chosen.get(number, ())) for number in range(len(example.media))]
        ids, labels = self.tokens(example.messages, [each.kind for each in example.media], shown)
        return Encoded(
            ids=ids,
            labels=labels,
            frames=np.concatenate(squares) if squares else np.zeros((0, side, side, 3), np.uint8),
            counts=[len(chosen[number]) for number in order],
            regions=np.stack([mask for mask, _ in placed]) if placed else np.zeros((0, side, side), np.uint8),
            region_frames=[frame for _, frame in placed],
            modules=[call.module for message in example.messages for call in message.calls],
            masks=self._targets(example, chosen),
            task=example.task,
            conditions=dict(example.conditions),
        )

    def _place(self, region: PlacedRegion, chosen: Mapping[int, list[int]]) -> tuple[NDArray[np.uint8], int]:
        if region.media not in chosen:
            raise ValueError(f"a region lies on medium {region.media}, which no message shows")
        medium = list(chosen).index(region.media)
        return self.processor.place_region(region.mask, medium, region.frame, list(chosen.values()))

    def _targets(
        self, example: Example, chosen: Mapping[int, list[int]]
    ) -> list[tuple[int, int, NDArray[np.float16]]]:
        images = self.processor.image_processor
        side = images.side // self.config.mask_stride
        order, found = list(chosen), list[tuple[int, int, NDArray[np.float16]]]()
        for call, masks in example.masks.items():
            medium = example.mask_media.get(call, 0)
            small = images.fit_masks(masks[chosen[medium]], side).astype(np.float16)
            start = sum(len(chosen[each]) for each in order[: order.index(medium)])
            found += [(call, start + at, each) for at, each in enumerate(small)]
        return found

    def collate(self, encoded: Sequence[Encoded], *, left: bool = False) -> Batch:
        """Join conversations, padded on the right, or for generation on the left."""
        length = max(len(each.ids) for each in encoded)
        shape = (len(encoded), length)
        ids = torch.full(shape, self.pad_id)
        labels = torch.full(shape, IGNORED)
        attention = torch.zeros(shape, dtype=torch.long)
        masks = list[tuple[int, int, NDArray[np.float16]]]()
        frames, calls = 0, 0
        region_frames, rows = list[int](), list[int]()
        conditions = dict[int, Tensor]()
        for row, each in enumerate(encoded):
            count = len(each.ids)
            part = slice(length - count, None) if left else slice(0, count)
            ids[row, part] = torch.tensor(each.ids)
            labels[row, part] = torch.tensor(each.labels)
            attention[row, part] = 1
            region_frames += [frame + frames for frame in each.region_frames]
            masks += [(call + calls, frame + frames, mask) for call, frame, mask in each.masks]
            rows += [row] * len(each.modules)
            conditions |= {call + calls: torch.from_numpy(found) for call, found in each.conditions.items()}
            frames += len(each.frames)
            calls += len(each.modules)
        side = self.processor.image_processor.side // self.config.mask_stride
        regions = np.concatenate([each.regions for each in encoded])
        return Batch(
            input_ids=ids,
            attention_mask=attention,
            labels=labels,
            pixel_values=self._pixel_values(encoded) if frames else None,
            frame_counts=torch.tensor([n for each in encoded for n in each.counts]) if frames else None,
            region_masks=torch.from_numpy(regions).float() / 255 if len(regions) else None,
            region_frames=torch.tensor(region_frames) if region_frames else None,
            call_modules=[module for each in encoded for module in each.modules],
            call_rows=torch.tensor(rows, dtype=torch.long),
            call_tokens=[tokens for each in encoded for tokens in self._call_tokens(each.ids)],
            mask_calls=torch.tensor([call for call, _, _ in masks], dtype=torch.long),
            mask_frames=torch.tensor([frame for _, frame, _ in masks], dtype=torch.long),
            mask_targets=torch.from_numpy(np.stack([mask for _, _, mask in masks])).float()
            if masks
            else torch.zeros(0, side, side),
            tasks=[each.task for each in encoded],
            conditions=conditions,
        )

    def _pixel_values(self, encoded: Sequence[Encoded]) -> Tensor:
        return self.processor.image_processor.to_pixel_values(
            np.concatenate([each.frames for each in encoded])
        )

    def _call_tokens(self, ids: Sequence[int]) -> list[list[int]]:
        """Return the instruction tokens of each call; a call ends with its last signal."""
        opening, closing = self.token_id("<instruction>"), self.token_id("</instruction>")
        last = self.config.signal_token_ids[-1] if self.config.num_signals else None
        found, tokens, inside = list[list[int]](), list[int](), False
        for token in ids:
            if token == last:
                found.append(tokens)
                tokens = []
            elif token in (opening, closing):
                inside = token == opening
            elif inside:
                tokens.append(token)
        return found

    def __call__(self, examples: Sequence[Example], *, left: bool = False) -> Batch:
        """Turn examples into a batch."""
        return self.collate([self.encode(example) for example in examples], left=left)


def _behind(handle: str, shown: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a medium or a region behind its handle, on a line of its own."""
    text = f"{handle}: " if shown else handle
    return [{"type": "text", "text": text}, *shown, {"type": "text", "text": "\n"}]


def _known(number: int, count: int, what: str) -> None:
    if number >= count:
        raise ValueError(f"a message names {what} {number}, and there are {count}")
