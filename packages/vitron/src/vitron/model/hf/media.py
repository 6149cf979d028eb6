# SPDX-License-Identifier: Apache-2.0
"""Images, videos and masks through the processor of a backbone, and masks back to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers.image_utils import PILImageResampling
from transformers.video_utils import VideoMetadata

from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.features import family_of, unflatten_patches

__all__ = ["MediaProcessor", "Visual", "VisualSize"]

FRAMES_PER_SECOND = 8.0  # of a video that does not say
TEXT_INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "text_replacement_offsets",
)


class Visual(NamedTuple):
    """What one placeholder stands for.

    Attributes:
        kind: ``image`` or ``video``.
        frames: ``(T, H, W, 3)``, uint8.
        numbers: Number of each frame in its video, from 0.
        fps: Frames a second of the video.
    """

    kind: Literal["image", "video"]
    frames: NDArray[np.uint8]
    numbers: tuple[int, ...] = (0,)
    fps: float = FRAMES_PER_SECOND

    @property
    def size(self) -> VisualSize:
        """Kind, number of frames, height and width."""
        count, height, width = self.frames.shape[:3]
        return VisualSize(self.kind, count, height, width)

    @property
    def metadata(self) -> VideoMetadata:
        """Times of the frames, for video processors, some of which write them in the text."""
        return VideoMetadata(
            total_num_frames=self.numbers[-1] + 1,
            fps=self.fps,
            frames_indices=list(self.numbers),
            duration=(self.numbers[-1] + 1) / self.fps,
        )


class VisualSize(NamedTuple):
    """Kind, number of frames, height and width of a :class:`Visual`."""

    kind: Literal["image", "video"]
    frames: int
    height: int
    width: int


class Axis(NamedTuple):
    """Where pixels of what the tower sees lie along one side of the image.

    Attributes:
        pixels: Number of pixels.
        first: Centre of the first pixel, as a fraction of the image's side.
        step: Distance of two pixels, as a fraction of the image's side.
    """

    pixels: int
    first: float
    step: float

    @classmethod
    def read(cls, ramp: Tensor, shown: Tensor, known: int) -> Axis:
        """Return the axis from the view of an image whose pixels hold their place.

        Args:
            ramp: Places along the view, 0 to 1, ``(S,)``.
            shown: Pixels of the view that show the image rather than padding, ``(S,)`` boolean.
            known: Pixels of the image.
        """
        pixels = len(ramp)
        whole = cls(pixels, 0.5 / pixels, 1 / pixels)
        inside = shown.nonzero()[:, 0]
        # away from the edges, beyond which filters reach
        if known == 1 or len(inside) < 2:
            return whole
        low, high = (int(inside[int(len(inside) * part)]) for part in (0.125, 0.875))
        step = float(ramp[high] - ramp[low]) / (high - low)
        first = float(ramp[low]) - low * step
        edges = (first - step / 2, first + step * (pixels - 0.5))
        # filters are not exact: half a pixel may be lost
        if abs(edges[0]) < step / 2 and abs(edges[1] - 1) < step / 2:
            return whole
        return cls(pixels, first, step)

    def place(self, edge: float) -> float:
        """Return the fraction of the view at a fraction of the image."""
        return ((edge - self.first) / self.step + 0.5) / self.pixels


class MediaProcessor:
    """Runs images, videos and masks through the processor of a backbone.

    Masks go the way of the images on which they lie, so that any way of resizing, cropping and padding is
    right.

    Args:
        processor: Processor of the backbone.
        config: Configuration of the model.
    """

    def __init__(self, processor: Any, config: VitronConfig) -> None:
        self.processor, self.config = processor, config
        self.family = family_of(config.backbone.model_type)
        self.reads_videos = self.family.videos and getattr(processor, "video_processor", None) is not None
        self.image_token = getattr(processor, "image_token", None)
        self.video_token = getattr(processor, "video_token", None) if self.reads_videos else None
        self._expanded = lru_cache(maxsize=4096)(self._expand)
        self.axes = lru_cache(maxsize=4096)(self._axes)

    # -- frames and placeholders

    def sample_frames(self, count: int, fps: float | None = None) -> list[int]:
        """Return which frames of a video are shown.

        With ``num_frames`` of the configuration, all, or so many from the first to the last; distances are
        truncated to integers, as in the authors' release. Else the video processor of the backbone chooses.
        """
        limit = self.config.num_frames
        if limit is None and self.reads_videos:
            processor = self.processor.video_processor
            metadata = VideoMetadata(total_num_frames=count, fps=fps or FRAMES_PER_SECOND)
            chosen = processor.sample_frames(metadata, num_frames=processor.num_frames, fps=processor.fps)
            return sorted({min(max(int(each), 0), count - 1) for each in chosen})
        limit = limit or 8
        if count <= limit:
            return list(range(count))
        return np.linspace(0, count - 1, limit).astype(int).tolist()

    def visuals(
        self,
        kind: Literal["image", "video"],
        frames: NDArray[np.uint8],
        numbers: Sequence[int] | None = None,
        fps: float | None = None,
    ) -> list[Visual]:
        """Return what the placeholders of an image or a video stand for: itself, or each of its frames.

        Args:
            kind: ``image`` or ``video``.
            frames: Shown frames, ``(T, H, W, 3)``.
            numbers: Numbers of the shown frames in the video; by default from 0.
            fps: Frames a second of the video.
        """
        if kind == "image" or not self.reads_videos:
            return [Visual("image", frame[None]) for frame in frames]
        chosen = range(len(frames)) if numbers is None else numbers
        return [Visual("video", frames, tuple(chosen), fps or FRAMES_PER_SECOND)]

    def placeholder(self, kind: str) -> str:
        """Return the token that stands for an image or a video in rendered text."""
        token = self.video_token if kind == "video" else self.image_token
        if token is None:
            raise ValueError(f"the processor {type(self.processor).__name__} names no token for a {kind}")
        return token

    def expansions(self, visuals: Sequence[Visual]) -> tuple[str, ...]:
        """Return the text that replaces each placeholder of a conversation."""
        shapes = tuple((each.size, each.numbers, each.fps) for each in visuals)
        return self._expanded(shapes) if shapes else ()

    def _expand(self, shapes: tuple[tuple[VisualSize, tuple[int, ...], float], ...]) -> tuple[str, ...]:
        blank = [
            Visual(kind, np.zeros((count, height, width, 3), np.uint8), numbers, fps)
            for (kind, count, height, width), numbers, fps in shapes
        ]
        found = self._run([blank], return_text_replacement_offsets=True)
        return tuple(each["replacement"] for each in found["text_replacement_offsets"][0])

    # -- pixels

    def process(self, samples: Sequence[Sequence[Visual]]) -> tuple[dict[str, Any], list[list[int]]]:
        """Return the inputs of the backbone for the visuals of several conversations.

        Returns:
            The inputs, without those of the text, and for each visual in turn the rows of its frames in the
            batch of the vision tower.
        """
        shown = [each for each in samples if each]
        if not shown:
            return {}, []
        found = self._run(shown)
        inputs = {name: each for name, each in found.items() if name not in TEXT_INPUTS}
        return inputs, self._rows(shown, inputs)

    def _run(self, samples: Sequence[Sequence[Visual]], **kwargs: Any) -> Any:
        """Run the processor on visuals, with nothing but their placeholders as text."""
        texts = ["".join(self.placeholder(each.kind) for each in sample) for sample in samples]
        images = [
            [_channels_first(each.frames)[0] for each in sample if each.kind == "image"] for sample in samples
        ]
        shown = [each for sample in samples for each in sample if each.kind == "video"]
        videos = [_channels_first(each.frames) for each in shown]
        if videos:
            metadata = [each.metadata for each in shown]
            kwargs["videos_kwargs"] = {"do_sample_frames": False, "video_metadata": metadata}
        return self.processor(
            text=texts,
            images=images if any(images) else None,
            videos=videos or None,
            return_tensors="pt",
            padding=True,
            **kwargs,
        )

    def _rows(self, samples: Sequence[Sequence[Visual]], inputs: Mapping[str, Any]) -> list[list[int]]:
        counts = list[tuple[str, int, list[int]]]()
        for sample in samples:
            for each, text in zip(sample, self.expansions(sample), strict=True):
                counts.append((each.kind, *self._frames_of(each, text, sample, inputs)))
        order = list(range(len(counts)))
        if not self.family.joined:
            order.sort(key=lambda place: counts[place][0])  # images before videos
        rows, start = [list[int]() for _ in counts], 0
        for place in order:
            _, total, own = counts[place]
            rows[place] = [start + each for each in own]
            start += total
        return rows

    def _frames_of(
        self, visual: Visual, expanded: str, sample: Sequence[Visual], inputs: Mapping[str, Any]
    ) -> tuple[int, list[int]]:
        """Return the number of rows of a visual, and those of its frames among them."""
        if self.family.layout == "patches":
            times = int(self.config.vision.temporal_patch_size)
            count = len(visual.frames)
            return -(-count // times) * times, list(range(count))
        if visual.kind == "video":
            return len(visual.frames), list(range(len(visual.frames)))
        tiles = self._tiles(visual, expanded, sample, inputs)
        return tiles, [tiles - 1 if self.family.whole == "last" else 0]

    def _tiles(
        self, visual: Visual, expanded: str, sample: Sequence[Visual], inputs: Mapping[str, Any]
    ) -> int:
        if self.family.whole == "last":
            names = ("image_seq_length", "image_seq_len")
            each = next(int(getattr(self.processor, name)) for name in names if hasattr(self.processor, name))
            return expanded.count(self.placeholder("image")) // each
        if inputs["pixel_values"].ndim < 5:
            return 1
        alone = sum(each.kind == "image" for each in sample) == 1
        if "batch_num_images" in inputs and not alone:
            return 1
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        config = self.config
        return image_size_to_num_patches(
            list(visual.frames.shape[1:3]), config.backbone.image_grid_pinpoints, config.vision.image_size
        )

    # -- masks

    def _views(self, frames: Tensor, kind: str) -> Tensor:
        """Return frames ``(T, 3, H, W)`` as the tower sees them, neither rescaled nor normalised."""
        raw = {"do_rescale": False, "do_normalize": False, "resample": PILImageResampling.BILINEAR}
        if kind == "video":
            found = self.processor(
                text=[self.placeholder("video")],
                videos=[frames],
                return_tensors="pt",
                videos_kwargs=raw | {"do_sample_frames": False, "video_metadata": [_metadata(len(frames))]},
            )
            pixels = found.get("pixel_values_videos", found.get("pixel_values"))
        else:
            found = self.processor(
                text=[self.placeholder("image")] * len(frames),
                images=[[each] for each in frames],
                return_tensors="pt",
                padding=True,
                images_kwargs=raw,
            )
            pixels = found["pixel_values"]
        if self.family.layout == "patches":
            return self._from_patches(pixels, found[f"{kind}_grid_thw"], len(frames), kind)
        tiles = pixels.reshape(len(frames), -1, *pixels.shape[-3:])
        return tiles[:, -1 if self.family.whole == "last" else 0]

    def _from_patches(self, pixels: Tensor, grid: Tensor, count: int, kind: str) -> Tensor:
        views, start = list[Tensor](), 0
        for slices, height, width in grid.tolist():
            for _ in range(slices):
                part = pixels[start : start + height * width]
                found = unflatten_patches(part, height, width, self.config.vision)
                views.append(found if kind == "video" else found[:1])
                start += height * width
        return torch.cat(views)[:count]

    def _axes(self, size: VisualSize) -> tuple[Axis, Axis]:
        """Return the vertical and the horizontal axis of what the tower sees of a visual."""
        _, frames, height, width = size
        ramp = torch.ones(3, height, width)
        ramp[0] = ((torch.arange(height) + 0.5) / height)[:, None]
        ramp[1] = (torch.arange(width) + 0.5) / width
        view = self._views(ramp.expand(frames, -1, -1, -1), size.kind)[0].float()
        rows, columns = view.shape[1] // 2, view.shape[2] // 2
        down, right, shown = view[0, :, columns], view[1, rows], view[2] > 0.99
        return Axis.read(down, shown[:, columns], height), Axis.read(right, shown[rows], width)

    def to_view(self, masks: NDArray[np.bool_], size: VisualSize) -> NDArray[np.uint8]:
        """Return masks as the tower sees the frames on which they lie.

        Args:
            masks: ``(T, H, W)``, of all frames.
            size: Size of the visual.

        Returns:
            Covered share of each pixel, 0 to 255, ``(T, h, w)``.
        """
        shares = masks.astype(np.uint8) * 255
        if self.axes(size) == tuple(Axis(n, 0.5 / n, 1 / n) for n in (size.height, size.width)):
            return shares
        frames = torch.from_numpy(shares)[:, None].expand(-1, 3, -1, -1)
        return self._views(frames, size.kind)[:, 0].round().clamp(0, 255).to(torch.uint8).numpy()

    def box_to_view(
        self, box: tuple[float, float, float, float], size: VisualSize
    ) -> tuple[float, float, float, float]:
        """Return a box as fractions of what the tower sees.

        Args:
            box: Left, top, right and bottom in pixels of the image, not rounded.
            size: Size of the visual.
        """
        vertical, horizontal = self.axes(size)
        left, top, right, bottom = box
        return (
            horizontal.place(left / size.width),
            vertical.place(top / size.height),
            horizontal.place(right / size.width),
            vertical.place(bottom / size.height),
        )

    def to_image(self, logits: Tensor, size: VisualSize) -> NDArray[np.bool_]:
        """Return masks ``(N, H, W)`` in pixels of the image, from logits ``(N, h, w)`` of what is seen."""
        axes = self.axes(size)
        places = [
            2 * axis.place(0) - 1 + 2 * (axis.place(1) - axis.place(0)) * (torch.arange(side) + 0.5) / side
            for axis, side in zip(axes, (size.height, size.width), strict=True)
        ]
        down, right = (each.to(logits.device) for each in places)
        grid = torch.stack(torch.meshgrid(right, down, indexing="xy"), -1)
        found = F.grid_sample(
            logits[:, None].float(),
            grid.float().expand(len(logits), -1, -1, -1),
            padding_mode="border",
            align_corners=False,
        )
        return (found[:, 0] > 0).cpu().numpy()


def _channels_first(frames: NDArray[np.uint8]) -> Tensor:
    # a copy: frames of a conversation may be read-only, which torch does not support
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)


def _metadata(count: int) -> VideoMetadata:
    return VideoMetadata(total_num_frames=count, fps=FRAMES_PER_SECOND, frames_indices=list(range(count)))
