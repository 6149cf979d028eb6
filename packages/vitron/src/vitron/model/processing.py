# SPDX-License-Identifier: Apache-2.0
"""Dialogues to tensors: pictures fitted into squares, text with placeholders, what is learnt and what not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from vitron.data.example import Example
from vitron.model.configuration import VitronConfig
from vitron.model.templates import TEMPLATES
from vitron.protocol import MODULES, ModuleRegistry, escape, render
from vitron.protocol.contract import Signal, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart

__all__ = ["Batch", "Encoded", "Fit", "VitronProcessor"]

IMAGE, REGION = "<|image|>", "<|region|>"
TAGS = ("<module>", "</module>", "<instruction>", "</instruction>", "<region>", "</region>")
IGNORED = -100


class Fit(NamedTuple):
    """How a picture lies in the square: scaled, its short side padded by equal parts.

    Attributes:
        height: Rows of the square that it fills.
        width: Columns that it fills.
        top: First of those rows.
        left: First of those columns.
    """

    height: int
    width: int
    top: int
    left: int

    @classmethod
    def of(cls, size: tuple[int, int], side: int) -> Fit:
        """Return how a picture of a height and width lies in a square."""
        longer = max(size)
        height, width = (max(1, round(each * side / longer)) for each in size)
        return cls(height, width, (side - height) // 2, (side - width) // 2)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Dialogues as tensors; what the model takes, and what the losses need.

    Attributes:
        input_ids: ``(B, L)``.
        attention_mask: ``(B, L)``.
        labels: ``(B, L)``: the replies and their end marks, -100 elsewhere.
        pixel_values: ``(F, 3, S, S)``; ``None`` without pictures.
        frame_counts: ``(M,)``.
        region_masks: ``(R, S, S)``.
        region_frames: ``(R,)``.
        call_modules: Name of the module of each complete call, in the order of the batch.
        call_rows: Row of each.
        call_words: Tokens of its instructions.
        mask_calls: Call of each mask that is learnt, ``(N,)``.
        mask_frames: Row of ``pixel_values`` that it lies on, ``(N,)``.
        mask_targets: ``(N, S / stride, S / stride)``, 0 to 1.
        tasks: Name of each row's task.
        conditions: For calls whose signals are aligned with a text encoder: their vectors, ``(n, C)``.
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
    call_words: list[list[int]]
    mask_calls: Tensor
    mask_frames: Tensor
    mask_targets: Tensor
    tasks: list[str]
    conditions: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def to(self, device: torch.device | str) -> Batch:
        """Return the same on a device."""
        moved = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: each.to(device) for name, each in moved.items() if isinstance(each, Tensor)}
        )

    def inputs(self) -> dict[str, Tensor]:
        """Return what the model takes, labels left out."""
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
    """One dialogue as numbers.

    Attributes:
        ids: Tokens.
        labels: The same where they are learnt.
        frames: ``(F, S, S, 3)`` uint8 of all media shown, in order.
        counts: Frames of each.
        regions: ``(R, S, S)`` uint8.
        region_frames: Row of ``frames`` of each.
        modules: Of each call.
        masks: ``(call, frame, (s, s) float16)``.
        task: Its name.
        conditions: Of calls, ``(n, C)``, of any float type.
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


class VitronProcessor:
    """Turns dialogues into what the model takes, and tokens into replies.

    Args:
        tokenizer: Any fast tokenizer of transformers that holds the special tokens.
        config: The model's.
        modules: What may be called.
    """

    def __init__(self, tokenizer: Any, config: VitronConfig, *, modules: ModuleRegistry = MODULES) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.modules = modules
        self.template = TEMPLATES[config.template]
        self.signals = tuple(
            Signal(kind="specific", index=number)
            if number < config.num_specific
            else Signal(kind="shared", index=number - config.num_specific)
            for number in range(config.num_signals)
        )
        (self.end_id,) = self._ids(self.template.end)
        self.pad_id = self.end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)

    @staticmethod
    def special_tokens(num_specific: int = 4, num_shared: int = 4, template: str = "compact") -> list[str]:
        """Return every token that must be one id: placeholders, tags, signals, marks of the template."""
        chosen = TEMPLATES[template]
        marks = [chosen.end, chosen.start, *chosen.system, *chosen.user, chosen.assistant]
        found = [
            each for each in marks if each.startswith("<") and each.endswith(">") and each.count("<") == 1
        ]
        signals = [f"<sig_p{n}>" for n in range(num_specific)] + [f"<sig_s{n}>" for n in range(num_shared)]
        return list(dict.fromkeys([IMAGE, REGION, *TAGS, *signals, *found]))

    @classmethod
    def from_pretrained(cls, folder: Path | str, config: VitronConfig | None = None) -> VitronProcessor:
        """Read the tokenizer of a folder.

        Args:
            folder: As :meth:`save_pretrained` left it.
            config: Of the model; by default the one in the folder.
        """
        config = config or VitronConfig.from_pretrained(folder)
        return cls(AutoTokenizer.from_pretrained(folder, config=config, use_fast=True), config)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the tokenizer; the configuration is the model's to write."""
        self.tokenizer.save_pretrained(folder)
        # the tokenizer's own folder is of no use to whoever loads it
        path = Path(folder) / "tokenizer_config.json"
        found = json.loads(path.read_text())
        found.pop("name_or_path", None)
        path.write_text(json.dumps(found, indent=2) + "\n")

    # -- text

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def token_id(self, text: str) -> int:
        """Return the id of a special token."""
        return int(self.tokenizer.convert_tokens_to_ids(text))

    def token_text(self, token: int) -> str:
        """Return the characters of one token; of a part of a character, U+FFFD; nothing if there is none."""
        if token >= len(self.tokenizer):
            return ""
        return self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def reply_text(self, message: Message) -> str:
        """Return what an assistant's message looks like in tokens: words, calls, each with its signals."""
        signals = tuple(
            each.model_copy(update={"invocation": number})
            for number in range(len(message.calls))
            for each in self.signals
        )
        return render(
            Turn(text=message.text, invocations=message.calls, signals=signals), modules=self.modules
        )

    def _prompt(self, message: Message, media: Sequence[int]) -> str:
        """Return the user's or the system's words with placeholders; their tags become text."""
        parts = list[str]()
        for part in message.content:
            match part:
                case TextPart():
                    parts.append(escape(part.text))
                case MediaPart():
                    parts.append(IMAGE * self.config.tokens_of(media[part.media]))
                case RegionPart():
                    parts.append(REGION)
        return "".join(parts)

    def tokens(self, messages: Sequence[Message], frames: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the ids of a dialogue, and labels: the replies and their end marks.

        A dialogue that ends with the user's words ends with the assistant's opening.

        Args:
            messages: In order.
            frames: Shown frames of each of the media.
        """
        template = self.template
        ids, labels = list[int](), list[int]()

        def add(text: str, *, learn: bool = False) -> None:
            found = self._ids(text)
            ids.extend(found)
            labels.extend(found if learn else [IGNORED] * len(found))

        add(template.start)
        if template.default_system and not (messages and messages[0].role == "system"):
            add(template.system[0] + template.default_system + template.system[1])
        for message in messages:
            if message.role == "assistant":
                add(template.assistant)
                add(self.reply_text(message) + template.end, learn=True)
                add(template.after)
            else:
                before, behind = template.user if message.role == "user" else template.system
                add(before + self._prompt(message, frames) + behind)
        if messages and messages[-1].role != "assistant":
            add(template.assistant)
        return ids, labels

    def decode(self, ids: Sequence[int]) -> str:
        """Return a reply's text, tags and signals included, without its end mark."""
        kept = [each for each in ids if each not in (self.end_id, self.pad_id)]
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # -- pictures

    def shown_frames(self, artefact: Artefact) -> list[int]:
        """Return which frames are shown: all, or some at equal distances with the first and the last.

        Distances are cut to whole numbers, as in the tower that the paper's release uses.
        """
        count = artefact.num_frames
        if count <= self.config.num_frames:
            return list(range(count))
        return np.linspace(0, count - 1, self.config.num_frames).astype(int).tolist()

    def square(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit frames ``(T, H, W, 3)`` into the square, ``(T, S, S, 3)``; the rest has the mean colour."""
        side = self.config.image_size
        fit = Fit.of(frames.shape[1:3], side)
        if (fit.height, fit.width) == frames.shape[1:3] == (side, side):
            return np.array(frames)  # torch wants arrays that can be written to
        grey = np.round(np.asarray(self.config.pixel_mean) * 255).astype(np.uint8)
        out = np.broadcast_to(grey, (len(frames), side, side, 3)).copy()
        for frame, to in zip(frames, out, strict=True):
            small = Image.fromarray(frame).resize((fit.width, fit.height), Image.Resampling.BICUBIC)
            to[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = np.asarray(small)
        return out

    def square_masks(self, masks: NDArray[np.bool_], side: int | None = None) -> NDArray[np.float32]:
        """Fit masks ``(N, H, W)`` as pictures are; the share of each pixel that is covered, ``(N, s, s)``."""
        whole = self.config.image_size
        fit = Fit.of(masks.shape[1:3], whole)
        out = torch.zeros(len(masks), whole, whole)
        small = torch.from_numpy(masks).float()[:, None]
        if masks.shape[1:3] != (fit.height, fit.width):
            small = torch.nn.functional.interpolate(
                small, (fit.height, fit.width), mode="bilinear", antialias=True
            ).clamp(0, 1)
        out[:, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = small[:, 0]
        if side is not None and side != whole:
            out = torch.nn.functional.adaptive_avg_pool2d(out[:, None], side)[:, 0]
        return out.numpy()

    def unsquare(self, logits: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bring logits of masks ``(N, s, s)`` back to a picture's size, ``(N, H, W)``."""
        side = self.config.image_size
        fit = Fit.of(size, side)
        grown = torch.nn.functional.interpolate(logits[:, None].float(), (side, side), mode="bilinear")
        cut = grown[:, :, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
        if (fit.height, fit.width) != size:
            cut = torch.nn.functional.interpolate(cut, size, mode="bilinear")
        return (cut[:, 0] > 0).cpu().numpy()

    def normalise(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Return ``(F, 3, S, S)`` from squares ``(F, S, S, 3)`` uint8."""
        images = torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor(tuple(self.config.pixel_mean)).view(1, 3, 1, 1)
        std = torch.tensor(tuple(self.config.pixel_std)).view(1, 3, 1, 1)
        return (images - mean) / std

    # -- dialogues

    def encode(self, example: Example) -> Encoded:
        """Turn one dialogue into numbers.

        Media are shown where messages first name them; a medium that no message names is left out.

        Raises:
            ValueError: If a message names a medium or region that is not there, or a region lies on a medium
                that is not shown.
        """
        order = list[int]()
        regions = list[int]()
        for message in example.messages:
            for part in message.content:
                if isinstance(part, MediaPart):
                    _known(part.media, len(example.media), "medium")
                    if part.media in order:
                        raise ValueError(f"medium {part.media} is shown twice: name it once")
                    order.append(part.media)
                elif isinstance(part, RegionPart):
                    _known(part.region, len(example.regions), "region")
                    regions.append(part.region)
        side = self.config.image_size
        chosen = {number: self.shown_frames(example.media[number]) for number in order}
        starts, at = dict[int, int](), 0
        for number in order:
            starts[number] = at
            at += len(chosen[number])
        squares = [self.square(example.media[number].frames[chosen[number]]) for number in order]
        placed = [self._placed(example.regions[number], chosen, starts) for number in regions]
        shown = [len(chosen.get(number, ())) for number in range(len(example.media))]
        ids, labels = self.tokens(example.messages, shown)
        return Encoded(
            ids=ids,
            labels=labels,
            frames=np.concatenate(squares) if squares else np.zeros((0, side, side, 3), np.uint8),
            counts=[len(chosen[number]) for number in order],
            regions=np.stack([mask for mask, _ in placed]) if placed else np.zeros((0, side, side), np.uint8),
            region_frames=[frame for _, frame in placed],
            modules=[call.module for message in example.messages for call in message.calls],
            masks=self._targets(example, chosen, starts),
            task=example.task,
            conditions=dict(example.conditions),
        )

    def _placed(
        self, region: PlacedRegion, chosen: Mapping[int, list[int]], starts: Mapping[int, int]
    ) -> tuple[NDArray[np.uint8], int]:
        """Return a region's mask in the square, and the row of the shown frame next to its own."""
        if region.media not in chosen:
            raise ValueError(f"a region lies on medium {region.media}, which no message shows")
        frames = chosen[region.media]
        nearest = min(range(len(frames)), key=lambda at: abs(frames[at] - region.frame))
        mask = (self.square_masks(region.mask[None])[0] * 255).round().astype(np.uint8)
        return mask, starts[region.media] + nearest

    def _targets(
        self, example: Example, chosen: Mapping[int, list[int]], starts: Mapping[int, int]
    ) -> list[tuple[int, int, NDArray[np.float16]]]:
        side = self.config.image_size // self.config.mask_stride
        found = list[tuple[int, int, NDArray[np.float16]]]()
        for call, masks in example.masks.items():
            medium = example.mask_media.get(call, 0)
            small = self.square_masks(masks[chosen[medium]], side).astype(np.float16)
            found += [(call, starts[medium] + at, each) for at, each in enumerate(small)]
        return found

    def collate(self, encoded: Sequence[Encoded], *, left: bool = False) -> Batch:
        """Join dialogues; the shorter ones are padded on the right, or for generation on the left."""
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
        side = self.config.image_size // self.config.mask_stride
        regions = np.concatenate([each.regions for each in encoded])
        return Batch(
            input_ids=ids,
            attention_mask=attention,
            labels=labels,
            pixel_values=self.normalise(np.concatenate([each.frames for each in encoded]))
            if frames
            else None,
            frame_counts=torch.tensor([n for each in encoded for n in each.counts]) if frames else None,
            region_masks=torch.from_numpy(regions).float() / 255 if len(regions) else None,
            region_frames=torch.tensor(region_frames) if region_frames else None,
            call_modules=[module for each in encoded for module in each.modules],
            call_rows=torch.tensor(rows, dtype=torch.long),
            call_words=[words for each in encoded for words in self._call_words(each.ids)],
            mask_calls=torch.tensor([call for call, _, _ in masks], dtype=torch.long),
            mask_frames=torch.tensor([frame for _, frame, _ in masks], dtype=torch.long),
            mask_targets=torch.from_numpy(np.stack([mask for _, _, mask in masks])).float()
            if masks
            else torch.zeros(0, side, side),
            tasks=[each.task for each in encoded],
            conditions=conditions,
        )

    def _call_words(self, ids: Sequence[int]) -> list[list[int]]:
        """Return the tokens of the instructions of each call of a dialogue, which ends with its signals."""
        opening, closing = self.token_id("<instruction>"), self.token_id("</instruction>")
        last = self.config.signal_token_ids[-1] if self.config.num_signals else None
        found, words, inside = list[list[int]](), list[int](), False
        for token in ids:
            if token == last:
                found.append(words)
                words = []
            elif token in (opening, closing):
                inside = token == opening
            elif inside:
                words.append(token)
        return found

    def __call__(self, examples: Sequence[Example], *, left: bool = False) -> Batch:
        """Turn dialogues into a batch."""
        return self.collate([self.encode(example) for example in examples], left=left)


def _known(number: int, count: int, what: str) -> None:
    if number >= count:
        raise ValueError(f"a message names {what} {number}, and there are {count}")
