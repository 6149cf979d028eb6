# SPDX-License-Identifier: Apache-2.0
"""Conversations as tensors: token ids and labels, images, regions, and the targets of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitron.data.example import Example
from vitron.model.batch import IGNORED, Batch, Encoded
from vitron.model.hf.chat import ChatRenderer, Segment
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.media import MediaProcessor, Visual, VisualSize
from vitron.protocol import MODULES, ModuleRegistry, escape, render
from vitron.protocol.contract import MediaKind, Signal, Turn
from vitron.protocol.lexer import TAGS
from vitron.protocol.media import Artefact
from vitron.protocol.messages import (
    MediaPart,
    Message,
    PlacedRegion,
    RegionPart,
    TextPart,
    media_handles,
    region_handle,
)

__all__ = ["ConversationEncoder"]

# characters of a text behind which the next text is tokenized
CONTEXT = 16


@dataclass(slots=True)
class _Shown:
    """A medium as it is shown."""

    start: int  # position of its first frame among the shown ones
    frames: list[int]
    visuals: list[Visual]

    def frame_of(self, number: int) -> int:
        """Return which of the shown frames is nearest to a frame."""
        return min(range(len(self.frames)), key=lambda at: abs(self.frames[at] - number))

    @property
    def size(self) -> VisualSize:
        """Size of the visual, or of each, by which its frames are shown."""
        return self.visuals[0].size


_Part: TypeAlias = TextPart | MediaPart | RegionPart


class ConversationEncoder:
    """Turns conversations into tensors, and tokens into text.

    Args:
        processor: Processor of the backbone: tokenizer, chat template, image and video processor.
        config: Configuration of the model.
        modules: Modules that may be called.
    """

    def __init__(self, processor: Any, config: VitronConfig, *, modules: ModuleRegistry = MODULES) -> None:
        self.processor, self.config, self.modules = processor, config, modules
        self.tokenizer: Any = processor.tokenizer
        self.media = MediaProcessor(processor, config)
        self.chat = ChatRenderer(processor, self.media.image_token, self.media.video_token)
        self.signals = tuple(
            Signal(kind="specific", index=number)
            if number < config.num_specific
            else Signal(kind="shared", index=number - config.num_specific)
            for number in range(config.num_signals)
        )
        self.region_token = str(self.tokenizer.convert_ids_to_tokens(config.region_token_id))
        self.end_id = self.chat.end_token_id
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.end_id if pad is None else int(pad)
        added = self.tokenizer.added_tokens_decoder
        special = {number: each.content for number, each in added.items() if each.special}
        # others cannot come of user text: escaping changes their "<"
        self._lone_specials = [each for each in special.values() if "<" not in each]
        written = {number for number, each in special.items() if each in TAGS} | set(config.signal_token_ids)
        self._silent = (special.keys() | {self.end_id, self.pad_id}) - written
        self._types_name = None
        if getattr(processor, "return_mm_token_type_ids", False):
            names = processor.model_input_names
            self._types_name = "mm_token_type_ids" if "mm_token_type_ids" in names else "token_type_ids"

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> ConversationEncoder:
        """Load processor and configuration from a folder."""
        from transformers import AutoProcessor

        config = VitronConfig.from_pretrained(folder)
        return cls(AutoProcessor.from_pretrained(folder), config)

    # -- text

    def tokenize(self, text: str, before: str = "") -> list[int]:
        """Return the ids of a text, special tokens recognised and none added.

        Args:
            text: Text.
            before: Text in front of it, whose tokens are not returned: tokenizers with a space in front of
                the first word would put one in the middle of a conversation.
        """
        if not text:
            return []
        context = before[-CONTEXT:]
        ahead = self._ids(context) if context else []
        both = self._ids(context + text) if context else []
        return both[len(ahead) :] if ahead and both[: len(ahead)] == ahead else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def token_id(self, text: str) -> int:
        """Return the id of a special token."""
        return int(self.tokenizer.convert_tokens_to_ids(text))

    def decode(self, ids: Sequence[int], *, keep_end: bool = False) -> str:
        """Return the text of an assistant message: of special tokens, only tags and signals are text.

        Args:
            ids: Token ids.
            keep_end: Whether all tokens are text, such as the end token.
        """
        kept = ids if keep_end else [each for each in ids if each not in self._silent]
        text = self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text if keep_end or not self.chat.lead else text.removeprefix(self.chat.lead)

    def assistant_text(self, message: Message) -> str:
        """Return an assistant message in the format of the model: text, then calls, each with its signals."""
        signals = tuple(
            each.model_copy(update={"invocation": number})
            for number in range(len(message.calls))
            for each in self.signals
        )
        turn = Turn(text=message.text, invocations=message.calls, signals=signals)
        return self._without_specials(render(turn, modules=self.modules))

    def _without_specials(self, text: str) -> str:
        """Return a text in which no special token without a ``<`` is left."""
        for token in self._lone_specials:
            text = text.replace(token, f"{token[0]}\u200b{token[1:]}" if len(token) > 1 else "\u200b")
        return text

    def _template_message(
        self, message: Message, kinds: Sequence[MediaKind], shown: Mapping[int, _Shown]
    ) -> dict[str, Any]:
        """Return a message in the format of chat templates; tags in user and system text are escaped.

        Media and regions stand behind their handles, by which a call can name them; of masks, the handle
        alone is shown.
        """
        if message.role == "assistant":
            text = self.assistant_text(message)
            return {"role": "assistant", "content": [{"type": "text", "text": text}]}
        content, handles = list[dict[str, str]](), media_handles(kinds)
        for part in _joined(message.content):
            match part:
                case TextPart():
                    content.append({"type": "text", "text": self._without_specials(escape(part.text))})
                case MediaPart():
                    visuals = shown[part.media].visuals if part.media in shown else []
                    content += _behind(handles[part.media], [{"type": each.kind} for each in visuals])
                case RegionPart():
                    token = {"type": "text", "text": self.region_token}
                    content += _behind(region_handle(part.region), [token])
        return {"role": message.role, "content": content}

    def _tokens(self, segments: Sequence[Segment], visuals: Sequence[Visual]) -> tuple[list[int], list[int]]:
        """Return token ids and labels; no token spans the border of two segments."""
        expansions = iter(self.media.expansions(visuals))
        tokens = [each for each in (self.media.image_token, self.media.video_token) if each]
        ids, labels, before = list[int](), list[int](), ""
        for text, is_generated in segments:
            if is_generated:
                found = self.tokenize(text, before)
            else:
                text = _expand(text, tokens, expansions)
                found = self.tokenize(text, before) if before else [*self._opening(text), *self._ids(text)]
            ids += found
            labels += found if is_generated else [IGNORED] * len(found)
            before = text
        if next(expansions, None) is not None:
            raise ValueError("there are more images and videos than placeholders in the rendered text")
        return ids, labels

    def _opening(self, text: str) -> list[int]:
        """Return the token with which the tokenizer of the backbone begins a text, unless it is there."""
        bos = self.tokenizer.bos_token
        if bos is None or text.startswith(bos):
            return []
        return [each for each in self.tokenizer("")["input_ids"] if each == self.tokenizer.bos_token_id]

    def count_tokens(self, messages: Sequence[Message], media: Sequence[Artefact]) -> int:
        """Return the number of tokens of a conversation, those of images and videos included."""
        shown = self._show(messages, media)
        return len(self._encode_text(messages, [each.kind for each in media], shown)[0])

    def _encode_text(
        self, messages: Sequence[Message], kinds: Sequence[MediaKind], shown: Mapping[int, _Shown]
    ) -> tuple[list[int], list[int]]:
        segments = self.chat.segments([self._template_message(each, kinds, shown) for each in messages])
        is_answered = bool(messages) and messages[-1].role == "assistant"
        if is_answered and self.chat.rewrites_history and sum(each.is_generated for each in segments) > 1:
            raise ValueError(
                "the chat template of the model writes earlier assistant messages in another way than the "
                "last one: train on conversations of one turn"
            )
        return self._tokens(segments, [visual for each in shown.values() for visual in each.visuals])

    # -- examples

    def _show(self, messages: Sequence[Message], media: Sequence[Artefact]) -> dict[int, _Shown]:
        """Return the media that messages show, by position, in the order in which they do."""
        shown, start = dict[int, _Shown](), 0
        seen = set[int]()
        for message in messages:
            for part in message.content:
                if not isinstance(part, MediaPart):
                    continue
                _known(part.media, len(media), "medium")
                if part.media in seen:
                    raise ValueError(f"medium {part.media} is shown twice: refer to it once")
                seen.add(part.media)
                artefact = media[part.media]
                if artefact.kind == "masks":
                    continue
                frames = self.media.sample_frames(artefact.num_frames, artefact.fps)
                chosen = artefact.frames[frames] if len(frames) < artefact.num_frames else artefact.frames
                visuals = self.media.visuals(artefact.kind, chosen, frames, artefact.fps)
                shown[part.media] = _Shown(start, frames, visuals)
                start += len(frames)
        return shown

    def encode(self, example: Example) -> Encoded:
        """Turn one example into arrays.

        Media are shown where messages first refer to them; media without a reference are omitted.

        Raises:
            ValueError: If a message refers to a missing medium or region, or a region lies on a medium
                that is not shown.
        """
        shown = self._show(example.messages, example.media)
        regions = list[PlacedRegion]()
        for message in example.messages:
            for part in message.content:
                if isinstance(part, RegionPart):
                    _known(part.region, len(example.regions), "region")
                    regions.append(example.regions[part.region])
        placed = [self._place(region, shown) for region in regions]
        ids, labels = self._encode_text(example.messages, [each.kind for each in example.media], shown)
        return Encoded(
            ids=ids,
            labels=labels,
            visuals=[visual for each in shown.values() for visual in each.visuals],
            regions=[mask for mask, _, _ in placed],
            region_frames=[frame for _, frame, _ in placed],
            region_boxes=[box for _, _, box in placed],
            modules=[call.module for message in example.messages for call in message.calls],
            masks=self._targets(example, shown),
            task=example.task,
            conditions=dict(example.conditions),
        )

    def _place(
        self, region: PlacedRegion, shown: Mapping[int, _Shown]
    ) -> tuple[NDArray[np.uint8], int, tuple[float, float, float, float] | None]:
        if region.media not in shown:
            raise ValueError(f"a region lies on medium {region.media}, which no message shows")
        each = shown[region.media]
        size = each.size
        masks = np.broadcast_to(region.mask, (size.frames, *region.mask.shape))
        view = self.media.to_view(masks, size)[0]
        given = getattr(region, "box", None)
        box = None if given is None else self.media.box_to_view(given, size)
        return view, each.start + each.frame_of(region.frame), box

    def _targets(
        self, example: Example, shown: Mapping[int, _Shown]
    ) -> list[tuple[int, int, NDArray[np.uint8]]]:
        found = list[tuple[int, int, NDArray[np.uint8]]]()
        for call, masks in example.masks.items():
            each = shown[example.mask_media.get(call, 0)]
            views = torch.from_numpy(self.media.to_view(masks[each.frames], each.size)).float()
            size = self.config.mask_size((views.shape[1], views.shape[2]))
            small = F.adaptive_avg_pool2d(views, size).round().to(torch.uint8).numpy()
            found += [(call, each.start + at, mask) for at, mask in enumerate(small)]
        return found

    def collate(self, encoded: Sequence[Encoded], *, left: bool = False) -> Batch:
        """Join conversations, padded on the right, or for generation on the left."""
        length = max(len(each.ids) for each in encoded)
        shape = (len(encoded), length)
        ids = torch.full(shape, self.pad_id)
        labels = torch.full(shape, IGNORED)
        attention = torch.zeros(shape, dtype=torch.long)
        masks = list[tuple[int, int, NDArray[np.uint8]]]()
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
            frames += each.num_frames
            calls += len(each.modules)
        media, frame_rows = self._media([each.visuals for each in encoded])
        if self._types_name is not None:
            media[self._types_name] = torch.tensor(self.processor.create_mm_token_type_ids(ids.tolist()))
        unknown = (float("nan"),) * 4
        boxes = [box or unknown for each in encoded for box in each.region_boxes]
        return Batch(
            input_ids=ids,
            attention_mask=attention,
            labels=labels,
            media=media,
            frame_rows=frame_rows,
            region_masks=[torch.from_numpy(mask).float() / 255 for each in encoded for mask in each.regions],
            region_frames=torch.tensor(region_frames, dtype=torch.long),
            region_boxes=torch.tensor(boxes).reshape(-1, 4),
            call_modules=[module for each in encoded for module in each.modules],
            call_rows=torch.tensor(rows, dtype=torch.long),
            call_tokens=[tokens for each in encoded for tokens in self._call_tokens(each.ids)],
            mask_calls=torch.tensor([call for call, _, _ in masks], dtype=torch.long),
            mask_frames=torch.tensor([frame for _, frame, _ in masks], dtype=torch.long),
            mask_targets=[torch.from_numpy(mask).float() / 255 for _, _, mask in masks],
            tasks=[each.task for each in encoded],
            conditions=conditions,
        )

    def _media(self, samples: Sequence[Sequence[Visual]]) -> tuple[dict[str, Any], Tensor | None]:
        inputs, rows = self.media.process(samples)
        found = [row for each in rows for row in each]
        return inputs, torch.tensor(found, dtype=torch.long) if found else None

    def visual_inputs(self, visuals: Sequence[Visual]) -> dict[str, Any]:
        """Return the inputs of :meth:`VitronForConditionalGeneration.frame_features` for visuals."""
        inputs, rows = self.media.process([visuals])
        return inputs | {"frame_rows": torch.tensor([row for each in rows for row in each])}

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


def _joined(content: Sequence[_Part]) -> list[_Part]:
    """Join neighbouring texts, as templates do: halves of a special token could meet there."""
    found = list[_Part]()
    for part in content:
        if isinstance(part, TextPart) and found and isinstance(found[-1], TextPart):
            found[-1] = TextPart(text=found[-1].text + part.text)
        else:
            found.append(part)
    return found


def _behind(handle: str, shown: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a medium or a region behind its handle, on a line of its own."""
    text = f"{handle}: " if shown else handle
    return [{"type": "text", "text": text}, *shown, {"type": "text", "text": "\n"}]


def _expand(text: str, tokens: Sequence[str], expansions: Any) -> str:
    """Replace each placeholder of an image or a video by the text of its tokens."""
    parts, start = list[str](), 0
    while True:
        found = min(((at, token) for token in tokens if (at := text.find(token, start)) >= 0), default=None)
        if found is None:
            return "".join([*parts, text[start:]])
        expanded = next(expansions, None)
        if expanded is None:
            raise ValueError(f"the text has more placeholders {found[1]} than there are images and videos")
        parts += [text[start : found[0]], expanded]
        start = found[0] + len(found[1])


def _known(number: int, count: int, what: str) -> None:
    if number >= count:
        raise ValueError(f"a message names {what} {number}, and there are {count}")
