# SPDX-License-Identifier: Apache-2.0
"""The world as torch data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from shapeworld.captions import caption
from shapeworld.grid import WHOLE, Window
from shapeworld.render import Rendering, render
from shapeworld.scene import SceneConfig, Split, draw_scene, scene_rng

T_co = TypeVar("T_co", covariant=True)
Make = Callable[[Rendering, np.random.Generator], T_co]

_SAMPLE = 100  # purpose of the random stream that a sample's words and prompts are drawn from


class Sample(TypedDict):
    """An image with its ground truth; labels as in :mod:`shapeworld.vocabulary`.

    Attributes:
        image: ``(3, H, W)`` fp32 in [0, 1].
        instances: ``(H, W)`` int64; 0 ground, ``i + 1`` thing ``i``.
        shape: ``(H, W)`` int64 semantic mask.
        colour: ``(H, W)`` int64 semantic mask.
        material: ``(H, W)`` int64 semantic mask.
        caption: All things with their materials, and the ground.
    """

    image: Tensor
    instances: Tensor
    shape: Tensor
    colour: Tensor
    material: Tensor
    caption: str


def to_sample(rendering: Rendering, rng: np.random.Generator) -> Sample:
    """Turn a rendering into tensors and a caption of medium length."""
    return Sample(
        image=torch.from_numpy(rendering.image).permute(2, 0, 1).float() / 255,
        instances=torch.from_numpy(rendering.instances).long(),
        shape=torch.from_numpy(rendering.semantic("shape")).long(),
        colour=torch.from_numpy(rendering.semantic("colour")).long(),
        material=torch.from_numpy(rendering.semantic("material")).long(),
        caption=caption(rendering.scene, rng, length="medium"),
    )


class Scenes(Dataset[T_co], Generic[T_co]):
    """Scenes by number; drawn when asked for, nothing is stored.

    Args:
        size: Number of scenes.
        make: Turns a rendering and a random stream of its own into a sample, such as :func:`to_sample`.
        seed: Seed of the world.
        split: Which part of it.
        side: Pixels of an image.
        config: Distribution of scenes; the full world if ``None``.
        window: Part of the scene to render.
    """

    def __init__(
        self,
        size: int,
        make: Make[T_co],
        *,
        seed: int = 0,
        split: Split = "train",
        side: int = 64,
        config: SceneConfig | None = None,
        window: Window = WHOLE,
    ) -> None:
        self.size, self.make, self.seed, self.split = size, make, seed, split
        self.side, self.config, self.window = side, config, window

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> T_co:
        if not 0 <= index < self.size:
            raise IndexError(f"index must be in [0, {self.size}), got {index}")
        return self.sample(index)

    def sample(self, index: int) -> T_co:
        """Make sample ``index``, which may lie beyond the size."""
        scene = draw_scene(self.seed, index, split=self.split, config=self.config)
        rendering = render(scene, self.side, window=self.window)
        return self.make(rendering, scene_rng(self.seed, index, _SAMPLE))


class SceneStream(IterableDataset[T_co], Generic[T_co]):
    """Endless stream of scenes, split between the workers of a data loader; it can resume at any sample.

    Args:
        scenes: Data set of the scenes; the image size is ignored.
        start: Number of the first one.
        step: Distance between numbers: the number of processes that train together.
    """

    def __init__(self, scenes: Scenes[T_co], *, start: int = 0, step: int = 1) -> None:
        self.scenes, self.start, self.step = scenes, start, step

    def __iter__(self) -> Iterator[T_co]:
        worker = get_worker_info()
        rank, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.start + rank * self.step
        while True:
            yield self.scenes.sample(index)
            index += workers * self.step
