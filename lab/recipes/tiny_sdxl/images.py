# SPDX-License-Identifier: Apache-2.0
"""Pools of rendered images on disk: whole scenes, and windows of scenes two and four times as large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Literal

import numpy as np
from common_kernels.runtime.files import atomic_path
from numpy.typing import NDArray
from shapeworld import Scene, SceneConfig, draw_scene, render, scene_rng

Kind = Literal["base", "zoom2", "zoom4", "large"]
SHARD = 1000  # images of one file
SIDE = 64  # pixels of an image the U-Net mostly sees
WORLD_SEED = 0
CORNERS = 11  # purpose number of the stream of random numbers that places windows


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of images.

    Attributes:
        side: Pixels of an image.
        scene_side: Pixels that the whole scene would have.
        first: Number of its first scene; no two kinds share scenes.
    """

    side: int
    scene_side: int
    first: int


SOURCES: dict[Kind, Source] = {
    "base": Source(SIDE, SIDE, 0),
    "zoom2": Source(SIDE, 2 * SIDE, 10_000_000),
    "zoom4": Source(SIDE, 4 * SIDE, 20_000_000),
    "large": Source(2 * SIDE, 2 * SIDE, 30_000_000),
}


def scene_of(kind: Kind, number: int) -> Scene:
    """Return the training scene that image ``number`` of a kind shows."""
    index = SOURCES[kind].first + number
    return draw_scene(WORLD_SEED, index, config=SceneConfig.preset("simple"))


def corner_of(kind: Kind, number: int) -> tuple[int, int]:
    """Return top and left of the image in the scene, in pixels of the scene; whole latent cells."""
    source = SOURCES[kind]
    margin = (source.scene_side - source.side) // 4
    rng = scene_rng(WORLD_SEED, source.first + number, CORNERS)
    top, left = rng.integers(0, margin + 1, 2)
    return 4 * int(top), 4 * int(left)


def time_ids_of(kind: Kind, number: int) -> list[int]:
    """Return original height and width, top and left of the crop, target height and width, in pixels."""
    side = SOURCES[kind].scene_side
    return [side, side, *corner_of(kind, number), side, side]


def render_image(kind: Kind, number: int) -> NDArray[np.uint8]:
    """Render an image, ``(side, side, 3)`` uint8."""
    source = SOURCES[kind]
    top, left = corner_of(kind, number)
    edges = np.array([left, top, left + source.side, top + source.side]) / source.scene_side
    x0, y0, x1, y1 = edges.tolist()
    return render(scene_of(kind, number), source.side, window=(x0, y0, x1, y1)).image


def held_out_images(count: int, *, seed: int = WORLD_SEED) -> NDArray[np.uint8]:
    """Render the first scenes of the test split, ``(count, SIDE, SIDE, 3)`` uint8."""
    config = SceneConfig.preset("simple")
    scenes = (draw_scene(seed, i, split="test", config=config) for i in range(count))
    return np.stack([render(scene, SIDE).image for scene in scenes])


def shard_files(folder: Path, kind: Kind) -> list[Path]:
    """Return the files of a kind in the order of their images."""
    return sorted(folder.glob(f"{kind}-*.npy"))


def load_pool(folder: Path, kind: Kind, limit: int | None = None) -> NDArray[np.generic]:
    """Read all images (or latents) of a kind into memory, the first ``limit`` if given.

    Raises:
        FileNotFoundError: If there are none.
    """
    files = shard_files(folder, kind)
    if not files:
        raise FileNotFoundError(f"folder must hold {kind}-*.npy, got {folder}; run the command 'pool' first")
    if limit is not None:
        files = files[: -(-limit // SHARD)]
    return np.concatenate([np.load(file) for file in files])[:limit]


def check_pool(folder: Path, kind: Kind, samples: int = 3) -> None:
    """Render some images of a pool again: captions come from scenes drawn again, so both must agree.

    Raises:
        ValueError: If the world has changed since the pool was rendered.
    """
    files = shard_files(folder, kind)
    for shard, file in enumerate(files[:: max(1, len(files) // samples)]):
        number = int(file.stem.rsplit("-", 1)[1]) * SHARD + shard
        if not np.array_equal(np.load(file, mmap_mode="r")[shard], render_image(kind, number)):
            raise ValueError(f"pool must show the world as it is now, {file} does not; render it again")


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write a ``.npy`` file so that a reader never meets half of it."""
    with atomic_path(path) as part:
        np.save(part, array)


def _write_shard(task: tuple[Path, Kind, int]) -> None:
    folder, kind, shard = task
    numbers = range(shard * SHARD, (shard + 1) * SHARD)
    write_array(folder / f"{kind}-{shard:04d}.npy", np.stack([render_image(kind, i) for i in numbers]))


def fill_pool(folder: Path, counts: Sequence[tuple[Kind, int]], workers: int) -> None:
    """Render whatever is missing of the pool, a file of ``SHARD`` images at a time.

    Args:
        folder: Folder of the files.
        counts: Images wanted of each kind, rounded up to whole files.
        workers: Processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, kind, shard) for kind, count in counts for shard in range(-(-count // SHARD))]
    tasks = [task for task in tasks if not (folder / f"{task[1]}-{task[2]:04d}.npy").exists()]
    with Pool(workers) as pool:
        for _ in pool.imap_unordered(_write_shard, tasks):
            pass
