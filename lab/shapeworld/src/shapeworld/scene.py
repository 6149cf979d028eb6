# SPDX-License-Identifier: Apache-2.0
"""What an image shows: a background and things in depth order, drawn from a seed and a number."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import pi
from typing import Literal, Self, get_args

import numpy as np

from shapeworld.vocabulary import BACKGROUNDS, COLOURS, HELD_OUT, MATERIALS, SHAPES

Split = Literal["train", "val", "test", "novel"]

# range of the radius by the number of things; scene units
RADII = ((0.22, 0.36), (0.17, 0.25), (0.145, 0.205), (0.12, 0.17), (0.105, 0.145), (0.10, 0.13))
# things may cover each other, but their centres keep this share of the sum of their radii
TOUCHING, OVERLAPPING = 0.98, 0.66
PLACEMENT_TRIES = 24

_SEEN_PAIRS = tuple(pair for pair in product(COLOURS, SHAPES) if pair not in HELD_OUT)
_HELD_OUT_PAIRS = tuple(sorted(HELD_OUT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing of a scene.

    Attributes:
        shape: A name of ``SHAPES``.
        colour: A name of ``COLOURS``.
        material: A name of ``MATERIALS``.
        x: Centre, in scene units: the image is the unit square, x to the right.
        y: Centre, down.
        radius: Radius of the circumscribed circle in scene units.
        angle: Clockwise on the screen, radians.
        seed: Seed of its shade and of the phase of its pattern.
    """

    shape: str
    colour: str
    material: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """Background of a scene.

    Attributes:
        kind: A name of ``BACKGROUNDS``.
        seed: Seed of colours and forms.
        saturation: Saturation of its colours, in [0, 1]; 0 is grey.
    """

    kind: str
    seed: int
    saturation: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A background and the things on it.

    Attributes:
        background: The ground.
        things: Back to front: later ones cover earlier ones. No two share both colour and shape.
    """

    background: Background
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneConfig:
    """What scenes are drawn from.

    Attributes:
        num_things: Weights of 1, 2, ... things.
        distractors: Share of the scenes of two things and more in which one takes the shape or the colour of
            another, so that neither word alone names it.
        occlusion: Share of the scenes in which things may cover each other.
        rotation: Largest angle to either side, radians.
        materials: Materials of the things.
        backgrounds: Kinds of background.
        saturation: Range of the background's.
    """

    num_things: tuple[float, ...] = (0.3, 0.25, 0.2, 0.12, 0.08, 0.05)
    distractors: float = 0.6
    occlusion: float = 0.5
    rotation: float = pi / 6
    materials: tuple[str, ...] = MATERIALS
    backgrounds: tuple[str, ...] = BACKGROUNDS
    saturation: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        if (
            not 1 <= len(self.num_things) <= len(RADII)
            or min(self.num_things) < 0
            or not any(self.num_things)
        ):
            raise ValueError(f"num_things must be 1 to {len(RADII)} weights, got {self.num_things}")
        for field, known in (("materials", MATERIALS), ("backgrounds", BACKGROUNDS)):
            names: tuple[str, ...] = getattr(self, field)
            if not names or set(names) - set(known):
                raise ValueError(f"{field} must be some of {known}, got {names}")

    @classmethod
    def preset(cls, name: Literal["full", "simple"]) -> Self:
        """Return named settings: everything, or few things on calm ground for small generators."""
        if name == "full":
            return cls()
        if name == "simple":
            return cls(
                num_things=(0.55, 0.3, 0.15),
                occlusion=0.2,
                backgrounds=("gradient", "waves", "clouds"),
                saturation=(0.0, 0.4),
            )
        raise ValueError(f"preset must be 'full' or 'simple', got {name!r}")


_DEFAULT = SceneConfig()


def scene_rng(seed: int, index: int, *purpose: int) -> np.random.Generator:
    """Return the stream of random numbers of one scene and purpose, independent of all others."""
    return np.random.default_rng((seed, index, *purpose))


def draw_scene(seed: int, index: int, *, split: Split = "train", config: SceneConfig | None = None) -> Scene:
    """Draw a scene; the same arguments always give the same one.

    Args:
        seed: Seed of the world, at least 0.
        index: Number of the scene, at least 0.
        split: ``train``, ``val`` and ``test`` differ in their random streams and hold no pair of
            ``HELD_OUT``; every scene of ``novel`` holds at least one.
        config: Distribution of scenes; the full world if ``None``.

    Raises:
        ValueError: If ``split`` is unknown.
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {get_args(Split)}, got {split!r}")
    config = config or _DEFAULT
    rng = scene_rng(seed, index, 1 + get_args(Split).index(split))
    weights = np.cumsum(config.num_things)
    count = int(np.searchsorted(weights, rng.random() * weights[-1], side="right")) + 1
    pairs = _draw_pairs(rng, count, split == "novel", rng.random() < config.distractors)
    places = _place(rng, count, TOUCHING if rng.random() >= config.occlusion else OVERLAPPING)
    background = Background(
        kind=config.backgrounds[int(rng.integers(len(config.backgrounds)))],
        seed=int(rng.integers(2**32)),
        saturation=float(rng.uniform(*config.saturation)),
    )
    materials = rng.integers(len(config.materials), size=count)
    angles = rng.uniform(-config.rotation, config.rotation, count)
    seeds = rng.integers(2**32, size=count)
    things = tuple(
        Thing(
            shape=shape,
            colour=colour,
            material=config.materials[materials[i]],
            x=x,
            y=y,
            radius=radius,
            angle=float(angles[i]),
            seed=int(seeds[i]),
        )
        for i, ((colour, shape), (x, y, radius)) in enumerate(zip(pairs, places, strict=True))
    )
    return Scene(background=background, things=things)


def _draw_pairs(rng: np.random.Generator, count: int, novel: bool, distract: bool) -> list[tuple[str, str]]:
    """Draw distinct (colour, shape) pairs; the first is a held-out one if ``novel``."""
    pairs: list[tuple[str, str]] = []
    if novel:
        pairs.append(_HELD_OUT_PAIRS[int(rng.integers(len(_HELD_OUT_PAIRS)))])
    while len(pairs) < count:
        colour, shape = _SEEN_PAIRS[int(rng.integers(len(_SEEN_PAIRS)))]
        if distract and len(pairs) == 1:  # the second thing is the first one's double but for one word
            colour, shape = (pairs[0][0], shape) if rng.random() < 0.5 else (colour, pairs[0][1])
        if (colour, shape) not in pairs and (colour, shape) not in HELD_OUT:
            pairs.append((colour, shape))
    order = rng.permutation(count)
    return [pairs[i] for i in order]


def _place(rng: np.random.Generator, count: int, apart: float) -> list[tuple[float, float, float]]:
    """Draw centre and radius of each thing, ``apart`` times the sum of radii from each other."""
    low, high = RADII[count - 1]
    placed: list[tuple[float, float, float]] = []
    while len(placed) < count:
        radius = float(rng.uniform(low, high))
        for x, y in (0.96 * radius + (1 - 1.92 * radius) * rng.random((PLACEMENT_TRIES, 2))).tolist():
            if all(
                (x - px) ** 2 + (y - py) ** 2 >= (apart * (radius + other)) ** 2 for px, py, other in placed
            ):
                placed.append((x, y, radius))
                break
        else:
            placed.clear()  # a corner is blocked: start over
    return placed
