# SPDX-License-Identifier: Apache-2.0
"""The processor: renders conversations, expands placeholders, fits images and regions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import BatchFeature
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from vitron.model.hf.configuration import VitronConfig, pooled_frames
from vitron.model.hf.image_processing import VitronImageProcessor, as_frames

__all__ = ["IMAGE_TOKEN", "REGION_TOKEN", "VIDEO_TOKEN", "VitronProcessor"]

IMAGE_TOKEN, VIDEO_TOKEN, REGION_TOKEN = "<|image|>", "<|video|>", "<|region|>"
_MEDIA = re.compile(f"{re.escape(IMAGE_TOKEN)}|{re.escape(VIDEO_TOKEN)}")
# the tracker of generated text in transformers' compiled templates serves one thread at a time
_RENDERING = Lock()


class VitronProcessor(ProcessorMixin):
    """Image processor, tokenizer and chat template in one object.

    Args:
        image_processor: Fits images into the square of the tower.
        tokenizer: Fast tokenizer that has the special tokens.
        chat_template: Jinja source; content parts are ``{"type": "image" | "video" | "region" | "text"}``.
        num_image_tokens: Tokens of one image.
        temporal_pool: Pooling of a video's frames; see :class:`VitronConfig`.
        num_frames: Largest number of frames that are shown of a video.
    """

    # set by the mixin, from the arguments
    image_processor: VitronImageProcessor
    tokenizer: Any

    def __init__(
        self,
        image_processor: VitronImageProcessor | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        num_image_tokens: int = 576,
        temporal_pool: str = "mean",
        num_frames: int = 8,
    ) -> None:
        self.num_image_tokens, self.temporal_pool, self.num_frames = (
            num_image_tokens,
            temporal_pool,
            num_frames,
        )
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        """Inputs of the model."""
        names = ("pixel_values", "frame_counts", "region_masks", "region_frames")
        return ["input_ids", "attention_mask", *names]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # regions are ours
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        *,
        regions: Sequence[tuple[int, NDArray[np.bool_]] | tuple[int, NDArray[np.bool_], int]] = (),
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return the inputs of the model for rendered conversations.

        Args:
            images: Images of all texts in order of their placeholders; lists may be nested.
            text: One text, or several.
            videos: Videos, uint8 ``(T, H, W, 3)`` or lists of images, in the same order.
            audio: Not supported.
            regions: Regions in order of their placeholders: position of the medium among all media, mask
                ``(H, W)``, and the frame of a video.
            return_tensors: ``pt``, ``np`` or ``None``.
            **kwargs: Arguments of the tokenizer.

        Raises:
            ValueError: If the numbers of media or regions and of placeholders differ.
        """
        if audio is not None:
            raise ValueError("audio is not supported")
        texts = [text] if isinstance(text, str) else list(text or ())
        waiting = {IMAGE_TOKEN: _flat(images, depth=3), VIDEO_TOKEN: _flat(videos, depth=4)}
        media = list[NDArray[np.uint8]]()
        for match in _MEDIA.finditer("".join(texts)):
            found = next(waiting[match[0]], None)
            if found is None:
                raise ValueError(f"the text has more placeholders {match[0]} than there are media")
            media.append(as_frames(found))
        if any(next(each, None) is not None for each in waiting.values()):
            raise ValueError("there are more media than placeholders in the text")
        count = sum(each.count(REGION_TOKEN) for each in texts)
        if count != len(regions):
            raise ValueError(f"the text has {count} placeholders of regions, and there are {len(regions)}")
        shown = [self.sample_frames(len(each)) for each in media]
        data: dict[str, Any] = {}
        if texts:
            counts = iter([len(each) for each in shown])
            expanded = [self.expand_placeholders(each, counts) for each in texts]
            wants_offsets = kwargs.pop("return_text_replacement_offsets", False)
            kwargs = {"add_special_tokens": False} | kwargs
            data |= dict(self.tokenizer([each for each, _ in expanded], **kwargs))
            if wants_offsets:
                data["text_replacement_offsets"] = [offsets for _, offsets in expanded]
        if media:
            fitted = [self.image_processor.fit(each[at]) for each, at in zip(media, shown, strict=True)]
            data["pixel_values"] = self.image_processor.to_pixel_values(np.concatenate(fitted))
            data["frame_counts"] = [len(each) for each in fitted]
        if len(regions):
            placed = [self.place_region(each[1], each[0], _frame(each), shown) for each in regions]
            data["region_masks"] = np.stack([mask for mask, _ in placed]).astype(np.float32) / 255
            data["region_frames"] = [row for _, row in placed]
        return BatchFeature(
            data, tensor_type=return_tensors, skip_tensor_conversion=["text_replacement_offsets"]
        )

    # -- parts that training data use as well

    def sample_frames(self, count: int) -> list[int]:
        """Return which frames of a video are shown: all, or ``num_frames`` from the first to the last.

        Distances are truncated to integers, as in the tower of the authors' release.
        """
        if count <= self.num_frames:
            return list(range(count))
        return np.linspace(0, count - 1, self.num_frames).astype(int).tolist()

    def expand_placeholders(
        self, text: str, frame_counts: Iterator[int]
    ) -> tuple[str, list[dict[str, tuple[int, int]]]]:
        """Repeat each image or video placeholder once per token.

        Args:
            text: Rendered text.
            frame_counts: Number of shown frames of each image or video.

        Returns:
            The text, and the old (``span``) and new (``new_span``) position of each placeholder.
        """
        parts, offsets, end, grown = list[str](), list[dict[str, tuple[int, int]]](), 0, 0
        for match in _MEDIA.finditer(text):
            tokens = pooled_frames(self.temporal_pool, next(frame_counts)) * self.num_image_tokens
            start = match.start() + grown
            grown += len(IMAGE_TOKEN) * tokens - len(match[0])
            parts += [text[end : match.start()], IMAGE_TOKEN * tokens]
            offsets.append({"span": match.span(), "new_span": (start, match.end() + grown)})
            end = match.end()
        return "".join([*parts, text[end:]]), offsets

    def place_region(
        self, mask: NDArray[np.bool_], medium: int, frame: int, shown: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.uint8], int]:
        """Fit a region into the square.

        Args:
            mask: ``(H, W)``.
            medium: Position of its image or video among the shown media.
            frame: Frame of a video.
            shown: Shown frames of each medium.

        Returns:
            Mask ``(S, S)``, 0 to 255, and the row of ``pixel_values`` of the shown frame nearest to its own.
        """
        frames = shown[medium]
        nearest = min(range(len(frames)), key=lambda at: abs(frames[at] - frame))
        fitted = (self.image_processor.fit_masks(mask[None])[0] * 255).round().astype(np.uint8)
        return fitted, sum(len(each) for each in shown[:medium]) + nearest

    def render_segments(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool
    ) -> list[tuple[str, bool]]:
        """Render a conversation and split it where the model's own text begins and ends.

        Each segment is tokenized alone, so that no token spans the border: training and generation then see
        the same tokens.

        Returns:
            Text of each segment, and whether the model generates it.
        """
        with _RENDERING:
            render: Any = render_jinja_template  # whose annotations do not fit what it returns
            (text,), (spans,) = render(
                [list(messages)],
                chat_template=self.chat_template,
                return_assistant_tokens_mask=True,
                add_generation_prompt=add_generation_prompt,
                **self.tokenizer.special_tokens_map,
            )
        segments, end = list[tuple[str, bool]](), 0
        for first, last in spans:
            segments += [(text[end:first], False), (text[first:last], True)]
            end = last
        return [each for each in [*segments, (text[end:], False)] if each[0]]


def _frame(region: Sequence[Any]) -> int:
    return int(region[2]) if len(region) > 2 else 0


def _flat(media: Any, *, depth: int) -> Iterator[Any]:
    """Yield the media of nested lists: arrays with ``depth`` axes, or for videos lists of images."""
    if media is None:
        return
    is_video = depth == 4
    if not isinstance(media, (list, tuple)) or (is_video and media and _is_image(media[0])):
        yield media
        return
    for each in media:
        yield from _flat(each, depth=depth)


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") or getattr(value, "ndim", 0) == 3


AutoProcessor.register(VitronConfig, VitronProcessor)
