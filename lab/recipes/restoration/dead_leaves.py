# SPDX-License-Identifier: Apache-2.0
"""Dead-leaves images: occluding shapes of many sizes, drawn without a single photograph.

Radii follow a power law, which makes the statistics of edges scale invariant as in photographs. Shapes
are drawn back to front into a label map on a canvas two or three times as large; all colour work is
then done through that map, and the canvas is averaged down, which gives the soft edges of a camera.

Source: Lee, Mumford, Huang 2001 (model); Achddou, Gousseau, Ladjal 2021 (training on it); palettes without
photographs, strokes, gratings and lens blur are ours.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from common_kernels.runtime.cli import OutputPath, progress_bars, warn
from common_kernels.runtime.files import write_text
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number
from numpy.typing import NDArray
from skimage.color import lab2rgb

from recipes.options import Debug

FloatImage = NDArray[np.float32]
UInt8Image = NDArray[np.uint8]

SMALLEST = 16  # pixels; below, a leaf is no larger than a pixel

_MAX_LEAVES = 12000
_KINDS = ("disk", "ellipse", "rect", "poly", "stroke")
_CHUNK = 10  # images a worker renders at a time; also what a killed run loses per worker
_TURN = 6.283


@dataclass(frozen=True, slots=True)
class Leaves:
    """A drawn canvas.

    Attributes:
        labels: Number of the leaf at each pixel, ``(n, n)`` int32; 0 is the ground.
        centres: Centres of the leaves, ``(leaves, 2)``, pixels, x then y.
    """

    labels: NDArray[np.int32]
    centres: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Leaves and the ground."""
        return len(self.centres) + 1

    def fill(self, values: NDArray[np.floating]) -> FloatImage:
        """Spread one value per leaf over the canvas."""
        return np.asarray(values, dtype=np.float32)[self.labels]


def render(size: int, seed: int) -> UInt8Image:
    """Draw one image.

    Args:
        size: Side, in pixels, at least 16.
        seed: Decides everything.

    Returns:
        ``(size, size, 3)`` uint8, RGB.

    Raises:
        ValueError: If the size is too small to show leaves.
    """
    if size < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST} pixels, got {size}")
    rng = np.random.default_rng(seed)
    canvas = size * int(rng.choice([2, 3]))
    leaves = _draw(rng, canvas, canvas // size)
    image = leaves.fill(_palette(rng, leaves.count))
    yy, xx = np.mgrid[:canvas, :canvas].astype(np.float32) / canvas
    image += _gradients(rng, leaves, xx, yy)[..., None]
    shade = _textures(rng, leaves, xx, yy)
    tint = 1 + rng.normal(0, 0.15, 3).astype(np.float32)
    image += shade[..., None] * tint
    if rng.random() < 0.4:  # uneven light
        image *= (1 + rng.uniform(0.05, 0.3) * _noise(rng, canvas, 3.5))[..., None].clip(0.3, 1.7)
    image = cv2.resize(image.clip(0, 1), (size, size), interpolation=cv2.INTER_AREA)
    return np.round(_lens(rng, image).clip(0, 1) * 255).astype(np.uint8)


def _draw(rng: np.random.Generator, canvas: int, oversampling: int) -> Leaves:
    """Draw leaves until they cover the canvas three to five times."""
    exponent = rng.uniform(2.4, 3.2)
    smallest = oversampling * np.exp(rng.uniform(np.log(0.7), np.log(24)))
    largest, coverage = 0.6 * canvas, rng.uniform(3, 5)
    power = 1 - exponent
    drawn: list[NDArray[np.float64]] = []
    area = 0.0
    while area < coverage * canvas**2 and sum(map(len, drawn)) < _MAX_LEAVES:
        u = rng.random(200)
        radii = (smallest**power + u * (largest**power - smallest**power)) ** (1 / power)
        drawn.append(radii)
        area += (1.6 * radii * radii).sum()
    radii = np.concatenate(drawn)
    if rng.random() < 0.6:  # roughly large to small, so that fine detail stays on top
        radii = radii[np.argsort(-radii * np.exp(rng.normal(0, 0.7, len(radii))))]
    kinds = list(rng.choice(_KINDS, size=3))
    rng.random()  # a retired option; dropping the draw would change every image of the pool
    labels = np.zeros((canvas, canvas), np.int32)
    centres = rng.uniform(-0.05 * canvas, 1.05 * canvas, (len(radii), 2))
    choice = rng.integers(0, 3, len(radii))
    for label, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        kind = kinds[choice[label - 1]]
        if kind == "disk":
            cv2.circle(labels, (int(centre[0]), int(centre[1])), max(1, int(radius)), label, -1)
        else:
            outline = _outline(rng, kind) * radius * (2.5 if kind == "stroke" else 1) + centre
            cv2.fillPoly(labels, [np.round(outline * 8).astype(np.int32)], label, shift=3)
    return Leaves(labels, centres)


def _outline(rng: np.random.Generator, kind: str) -> NDArray[np.float64]:
    """Return a closed outline of about unit radius, randomly turned, ``(points, 2)``."""
    turn = rng.uniform(0, _TURN)
    if kind == "ellipse":
        t = np.linspace(0, _TURN, 24, endpoint=False)
        points = np.stack([np.cos(t), rng.uniform(0.25, 1) * np.sin(t)], 1)
    elif kind == "rect":
        w = rng.uniform(0.2, 1)
        points = np.array([[-1, -w], [1, -w], [1, w], [-1, w]])
    elif kind == "stroke":  # hair, grass, whiskers
        w = rng.uniform(0.01, 0.06)
        t = np.linspace(-1, 1, 8)
        y = rng.uniform(-0.5, 0.5) * t * t
        points = np.concatenate([np.stack([t, y - w], 1), np.stack([t, y + w], 1)[::-1]])
    else:
        corners = rng.integers(3, 10)
        t = np.sort(rng.uniform(0, _TURN, corners))
        points = np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.5, 1, (corners, 1))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T


def _palette(rng: np.random.Generator, count: int) -> FloatImage:
    """Return one RGB colour per leaf, ``(count, 3)``, scattered about a few centres in CIE Lab."""
    centres = rng.integers(3, 13)
    lightness = rng.uniform(3, 97, centres)
    spread = rng.uniform(5, 30)
    chroma = rng.normal(0, spread, (centres, 2))
    pick = rng.integers(0, centres, count)
    lightness_jitter = rng.normal(0, rng.uniform(2, 12), (count, 1))
    chroma_jitter = rng.normal(0, rng.uniform(1, 8), (count, 2))
    colours = np.concatenate([lightness[pick, None] + lightness_jitter, chroma[pick] + chroma_jitter], 1)
    if rng.random() < 0.3:  # dark, pale images
        colours *= rng.uniform(0.25, 1)
    if rng.random() < 0.1:
        colours[:, 1:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # colours outside sRGB are clipped, as meant
        rgb = lab2rgb(np.clip(colours, [0, -100, -100], [100, 100, 100])[None])[0]
    return rgb.astype(np.float32)


def _gradients(rng: np.random.Generator, leaves: Leaves, xx: FloatImage, yy: FloatImage) -> FloatImage:
    """Return a linear ramp across half of the leaves, zero at their centres."""
    angle = rng.uniform(0, _TURN, leaves.count)
    slope = (rng.random(leaves.count) < 0.5) * rng.uniform(0, 0.5, leaves.count)
    centre = np.concatenate([[[0.5, 0.5]], leaves.centres / len(xx)])
    across = leaves.fill(slope * np.cos(angle)) * (xx - leaves.fill(centre[:, 0]))
    return across + leaves.fill(slope * np.sin(angle)) * (yy - leaves.fill(centre[:, 1]))


def _textures(rng: np.random.Generator, leaves: Leaves, xx: FloatImage, yy: FloatImage) -> FloatImage:
    """Return two noise fields of a strength per leaf and, in half of the images, gratings."""
    count, canvas = leaves.count, len(xx)
    shade = np.zeros((canvas, canvas), np.float32)
    for _ in range(2):
        strength = (rng.random(count) < 0.6) * np.abs(rng.normal(0, rng.uniform(0.01, 0.09), count))
        shade += leaves.fill(strength) * _noise(rng, canvas, rng.uniform(0.4, 2.4))
    if rng.random() < 0.5:
        frequency = np.exp(rng.uniform(np.log(4), np.log(60), count)).astype(np.float32)
        phase = rng.uniform(0, _TURN, count).astype(np.float32)
        angle = rng.uniform(0, 3.1416, count).astype(np.float32)
        along = leaves.fill(np.cos(angle)) * xx + leaves.fill(np.sin(angle)) * yy
        wave = np.sin(2 * np.pi * leaves.fill(frequency) * along + leaves.fill(phase))
        if rng.random() < 0.4:
            wave = np.sign(wave)
        shade += leaves.fill((rng.random(count) < 0.4) * rng.uniform(0, 0.15, count)) * wave
    return shade


def _noise(rng: np.random.Generator, side: int, beta: float) -> FloatImage:
    """Return noise of power spectrum ``1 / f ** beta`` and unit deviation, ``(side, side)``."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / frequency ** (beta / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(side, side))
    return (field / field.std()).astype(np.float32)


def _lens(rng: np.random.Generator, image: FloatImage) -> FloatImage:
    """Blur a third of the images slightly and a quarter of them strongly in places."""
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.8))
    if rng.random() < 0.25:
        sharp = 1 / (1 + np.exp(-4 * _noise(rng, len(image), 3.5)))[..., None]
        image = sharp * image + (1 - sharp) * cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 4))
    return image


def _render_chunk(task: tuple[int, int, int]) -> UInt8Image:
    size, first, last = task
    cv2.setNumThreads(1)
    return np.stack([render(size, seed) for seed in range(first, last)])


def _rendered(tasks: list[tuple[int, int, int]], workers: int) -> Iterator[UInt8Image]:
    """Yield the chunks in order; fresh processes, since forking one that runs threads may hang."""
    if workers == 1:
        yield from map(_render_chunk, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield from executor.map(_render_chunk, tasks)


def _shape_of(file: Path) -> tuple[int, ...]:
    return np.load(file, mmap_mode="r").shape


def pool(
    *,
    output: OutputPath,
    count: PositiveInt = 2500,
    size: Annotated[int, Parameter(validator=Number(gte=SMALLEST))] = 256,
    seed: NonNegativeInt = 0,
    workers: PositiveInt = os.cpu_count() or 1,
    debug: Debug = Debug(),
) -> None:
    """Render a pool of dead-leaves images, ``(count, size, size, 3)`` uint8; image i has seed ``seed + i``.

    Args:
        output: File to write, .npy; a finished one is left alone.
        count: Number of images.
        size: Side of an image in pixels.
        seed: Random seed of the first image.
        workers: Number of processes.
    """
    shape = (count, size, size, 3)
    part, done_file = output.with_suffix(".part.npy"), output.with_suffix(".done")
    done = int(done_file.read_text()) if part.exists() and done_file.exists() else 0
    for file in [output] * output.exists() + [part] * (done > 0):
        if _shape_of(file) != shape:
            raise ValueError(f"{file} holds {_shape_of(file)}, not {shape}; delete it or name another file")
    if output.exists():
        warn(f"{output} is there already")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(done_file, str(done))  # before the file is made again: an old count must not outlive it
    images = np.lib.format.open_memmap(part, mode="r+" if done else "w+", dtype=np.uint8, shape=shape)
    tasks = [(size, first, min(first + _CHUNK, count)) for first in range(done, count, _CHUNK)]
    seeds = [(size, seed + first, seed + last) for size, first, last in tasks]
    chunks = zip(tasks, _rendered(seeds, workers), strict=True)
    with progress_bars() as bars:
        for (_, first, last), chunk in bars.track(chunks, total=len(tasks), description="leaves"):
            images[first:last] = chunk
            images.flush()
            write_text(done_file, str(last))
    part.replace(output)
    done_file.unlink()
