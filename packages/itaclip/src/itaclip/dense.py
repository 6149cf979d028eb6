# SPDX-License-Identifier: Apache-2.0
"""Windows, branches and images go through the image tower together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from common_kernels.tiling import TilePlan
from torch import Tensor

from itaclip.branches import join_branches, make_branches
from itaclip.config import ITACLIPConfig
from itaclip.encoder import Encoder, LastInput
from itaclip.inputs import ImageLike, Normalizer, to_tensor
from itaclip.prior import View, make_views, prior_scores
from itaclip.windows import Grid, plan_windows, resized_shape

Reduce = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for its windows.

    Attributes:
        image: Resized and normalised, ``(3, h, w)``.
        plan: Its windows.
        size: Height and width it came with.
        views: What the prior looks at; empty without one.
    """

    image: Tensor
    plan: TilePlan
    size: tuple[int, int]
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowMaps:
    """What the windows of an image gave.

    Attributes:
        maps: One ``(K, height, width)`` in patches per window, in the order of the plan.
        grid: Height and width of each.
    """

    maps: list[Tensor]
    grid: tuple[int, int]


class WindowEncoder:
    """Encodes images window by window, in batches.

    Args:
        encoder: The image tower.
        normalizer: How images are resized and normalised.
        config: Windows, branches, the last block and the batch size.
    """

    def __init__(self, encoder: Encoder, normalizer: Normalizer, config: ITACLIPConfig) -> None:
        self.encoder, self.normalizer, self.config = encoder, normalizer, config
        patch = max(encoder.patch_size)
        if 0 < config.crop < patch:
            raise ValueError(f"crop must be at least one patch of {patch} px, got {config.crop}")
        self.windows_at_once = max(1, config.batch_size // len(config.branches))

    def prepare(self, image: ImageLike) -> Prepared:
        """Resize, normalise and plan one image.

        Raises:
            TypeError: As :func:`itaclip.inputs.to_tensor`.
            ValueError: Likewise.
        """
        pixels = to_tensor(image)
        height, width = pixels.shape[-2:]
        config = self.config
        size = resized_shape(
            height,
            width,
            short=config.resize_short,
            long=config.resize_long,
            least=max(self.encoder.patch_size),
        )
        resized = self.normalizer(pixels, size, self.encoder.device)
        plan = plan_windows(*size, crop=config.crop, stride=config.stride)
        views = make_views(pixels, self.encoder, self.normalizer, config)
        return Prepared(resized, plan, (height, width), views)

    def encode(
        self, images: list[Prepared], reduce: Reduce, progress: Progress | None = None
    ) -> list[WindowMaps]:
        """Return the maps of all windows of all images.

        Args:
            images: Windows of one size go through the tower together, whatever image they are from.
            reduce: Turns features ``(B, D, height, width)`` into the maps that are kept,
                ``(B, K, height, width)``.
            progress: Called with windows done and windows in all.
        """
        total = sum(len(image.plan) for image in images)
        if self.config.stitched:
            return self._encode_stitched(images, reduce, progress, total)
        jobs = [(number, box) for number, image in enumerate(images) for box in image.plan]
        order = sorted(range(len(jobs)), key=lambda job: _window_size(images, jobs[job][0]))
        maps: list[Tensor | None] = [None] * len(jobs)
        done = 0
        for _, run in groupby(order, key=lambda job: _window_size(images, jobs[job][0])):
            alike = list(run)
            for start in range(0, len(alike), self.windows_at_once):
                chunk = alike[start : start + self.windows_at_once]
                windows = torch.stack([_cut(images, jobs[job]) for job in chunk])
                features = self._features(make_branches(windows, self.config))
                for job, kept in zip(chunk, reduce(join_branches(features, self.config)), strict=True):
                    maps[job] = kept
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        return _by_image(images, [kept for kept in maps if kept is not None])

    def prior(self, image: Prepared, grid: Grid, text: Tensor) -> Tensor | None:
        """Return what whole windows say at every patch, or ``None`` without a prior.

        Args:
            image: Prepared.
            grid: Patches of one of its windows.
            text: ``(names, D)``, fp32.

        Returns:
            ``(names, rows * height, columns * width)``, laid out as by :class:`itaclip.windows.WindowMerger`.
        """
        if not image.views:
            return None
        size = self.config.batch_size
        return prior_scores(image.views, image.plan, grid, text, self.encoder, batch_size=size)

    def _features(self, inputs: Tensor) -> Tensor:
        config = self.config
        return self.encoder(inputs, config.attention, positions=config.positions)

    def _encode_stitched(
        self, images: list[Prepared], reduce: Reduce, progress: Progress | None, total: int
    ) -> list[WindowMaps]:
        results: list[WindowMaps] = []
        for image in images:
            features = torch.cat([self._stitch(image, branch) for branch in self.config.branches])
            maps = list(reduce(join_branches(features, self.config)))
            results.append(WindowMaps(maps, (maps[0].shape[-2], maps[0].shape[-1])))
            if progress is not None:
                progress(sum(len(result.maps) for result in results), total)
        return results

    def _stitch(self, image: Prepared, branch: str) -> Tensor:
        """Return the features of all windows of one branch, the last block attending over all of them."""
        attention, single = self.config.attention, replace(self.config, branches=(branch,))
        boxes = list(image.plan)
        parts: list[LastInput] = []
        for start in range(0, len(boxes), self.config.batch_size):
            chunk = boxes[start : start + self.config.batch_size]
            windows = torch.stack([image.plan.cut(image.image, box) for box in chunk])
            inputs = make_branches(windows, single)
            parts.append(self.encoder.prepare(inputs, attention, positions=self.config.positions))
        last = LastInput.cat(parts)
        # in a flipped picture, windows lie at mirrored places
        height, width = image.plan.height, image.plan.width
        tops = [height - box.bottom if branch == "vflip" else box.top for box in boxes]
        lefts = [width - box.right if branch == "hflip" else box.left for box in boxes]
        patch = self.encoder.patch_size
        offsets = torch.tensor([[t / patch[0], e / patch[1]] for t, e in zip(tops, lefts, strict=True)])
        tokens = self.encoder.tokens(last, attention, offsets=offsets.to(image.image.device))
        return self.encoder.to_maps(tokens, last.grid)


def text_scores(text: Tensor) -> Reduce:
    """Return the function that turns features into similarities with texts.

    Args:
        text: ``(names, D)``, fp32.
    """

    def reduce(features: Tensor) -> Tensor:
        grid = features.shape[-2:]
        return (text @ features.flatten(2)).unflatten(-1, grid)  # (B, names, height, width)

    return reduce


def _window_size(images: list[Prepared], number: int) -> tuple[int, int]:
    plan = images[number].plan
    return plan.rows[0][1] - plan.rows[0][0], plan.columns[0][1] - plan.columns[0][0]


def _cut(images: list[Prepared], job: tuple[int, tuple[int, int, int, int]]) -> Tensor:
    number, (top, left, bottom, right) = job
    return images[number].image[:, top:bottom, left:right]


def _by_image(images: list[Prepared], maps: list[Tensor]) -> list[WindowMaps]:
    results: list[WindowMaps] = []
    start = 0
    for image in images:
        own = maps[start : start + len(image.plan)]
        results.append(WindowMaps(own, (own[0].shape[-2], own[0].shape[-1])))
        start += len(own)
    return results
