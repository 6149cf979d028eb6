# SPDX-License-Identifier: Apache-2.0
"""What an image shows: a background and things in depth order, drawn from a seed and a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import cos, pi, sin
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from shapeworld import backgrounds, materials, shapes
from shapeworld.grid import Grid, cover
from shapeworld.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    MATERIALS,
    PALETTE,
    SHAPES,
    VALUES,
    Attribute,
    Values,
)

Float = NDArray[np.float64]

Split = Literal["train", "val", "test", "novel"]

# range of the radius by the number of things; scene units
RADII = ((0.22, 0.36), (0.17, 0.25), (0.145, 0.205), (0.12, 0.17), (0.105, 0.145), (0.10, 0.13))
# things may cover each other, but their centres keep this share of the sum of their radii
TOUCHING, OVERLAPPING = 0.98, 0.66
PLACEMENT_TRIES = 24
SHADE = 0.05  # largest change of each channel from a colour of the palette

_SEEN_PAIRS = tuple(pair for pair in product(COLOURS, SHAPES) if pair not in HELD_OUT)
_HELD_OUT_PAIRS = tuple(sorted(HELD_OUT))


class Painted(NamedTuple):
    """What a thing shows at the points of a grid."""

    colour: Float
    """``(H, W, 3)`` or ``(3,)`` RGB in [0, 1]."""
    cover: Float
    """How much of each pixel it covers, ``(H, W)`` in [0, 1]."""
    inside: NDArray[np.bool_]
    """Pixels that belong to it, ``(H, W)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing of a scene. Worlds of other things override its methods.

    Attributes:
        shape: A name of ``SHAPES``.
        colour: A name of ``COLOURS``; empty in worlds where a thing may have no one colour.
        material: A name of ``MATERIALS``; empty likewise.
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

    def reach(self) -> float:
        """Return the largest distance of anything it shows from its centre, scene units."""
        return self.radius * shapes.reach(self.shape)

    def distance(self, x: Float, y: Float) -> Float:
        """Return the signed distance of points to the outline, scene units, negative inside."""
        u, v = self.local(x, y)
        return shapes.distance(self.shape, u / self.radius, v / self.radius) * self.radius

    def local(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Return scene coordinates as seen from the centre, along the thing's own axes; scene units."""
        dx, dy = x - self.x, y - self.y
        c, s = cos(self.angle), sin(self.angle)
        return c * dx + s * dy, c * dy - s * dx

    def paint(self, grid: Grid) -> Painted:
        """Return colour and extent at the points of a grid."""
        rng = np.random.default_rng(self.seed)
        u, v = self.local(grid.x, grid.y)
        edge = shapes.distance(self.shape, u / self.radius, v / self.radius) * self.radius
        base = np.clip(np.array(PALETTE[self.colour]) + rng.uniform(-SHADE, SHADE, 3), 0, 1)
        second = materials.second_tone(base)
        share = materials.tone(self.material, u, v, grid.pixel, materials.period_of(self.radius), rng)
        return Painted(base + share[..., None] * (second - base), cover(edge, grid.pixel), edge < 0)

    def corners(self) -> tuple[tuple[float, float], ...]:
        """Return the named points besides the centre, along its own axes in units of the radius."""
        return shapes.corners(self.shape)

    def changed(self, attribute: Attribute, to: str) -> Self:
        """Return the thing with another value of an attribute."""
        return replace(self, **{attribute: to})


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """Background of a scene. Worlds of other backgrounds override its method.

    Attributes:
        kind: A name of ``BACKGROUNDS``.
        seed: Seed of colours and forms.
        saturation: Saturation of its colours, in [0, 1]; 0 is grey.
    """

    kind: str
    seed: int
    saturation: float = 1.0

    def paint(self, grid: Grid) -> Float:
        """Return its colours at the points of a grid, ``(H, W, 3)`` RGB in [0, 1]."""
        return backgrounds.render(self.kind, self.seed, self.saturation, grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A background and the things on it. Worlds of other things override its methods.

    Attributes:
        background: The ground.
        things: Back to front: later ones cover earlier ones. No two share both colour and shape.
    """

    background: Background
    things: tuple[Thing, ...]

    @property
    def values(self) -> Values:
        """Words of each attribute in this world; none where nothing is said of it."""
        return VALUES

    def draw_looks(self, rng: np.random.Generator) -> dict[str, str]:
        """Draw the attributes of a thing that might be added."""
        return {
            "material": MATERIALS[int(rng.integers(len(MATERIALS)))],
            "colour": COLOURS[int(rng.integers(len(COLOURS)))],
            "shape": SHAPES[int(rng.integers(len(SHAPES)))],
        }

    def new_thing(self, looks: Mapping[str, str], *, x: float, y: float, radius: float, seed: int) -> Thing:
        """Return a thing of this world.

        Args:
            looks: Its attributes.
            x: Centre, in scene units.
            y: Centre, down.
            radius: Radius in scene units.
            seed: Seed of what the attributes leave open.

        Raises:
            KeyError: If an attribute lacks or is not a known word.
        """
        for name, words in self.values.items():
            if looks[name] not in words:
                raise KeyError(looks[name])
        named = {name: looks[name] for name in ("shape", "colour", "material")}
        return Thing(**named, x=x, y=y, radius=radius, seed=seed)


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
    places = place(rng, count, TOUCHING if rng.random() >= config.occlusion else OVERLAPPING)
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


def place(rng: np.random.Generator, count: int, apart: float) -> list[tuple[float, float, float]]:
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
