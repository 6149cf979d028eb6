# SPDX-License-Identifier: Apache-2.0
"""What a composite shows: cut-outs over a photograph, drawn from a seed and a number.

Scenes are those of shapeworld with other things on another ground, so that its captions, questions, edits,
videos and warps hold here too. Of a cut-out the ``shape`` is its name; its ``colour`` may be empty, its
``material`` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from math import pi
from typing import Self, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from shapeworld import Background, Scene, SceneConfig, Split, Thing, scene_rng
from shapeworld.grid import Grid
from shapeworld.scene import OVERLAPPING, TOUCHING, Painted, place
from shapeworld.vocabulary import COLOURS as DRAWN_COLOURS
from shapeworld.vocabulary import PALETTE as DRAWN_PALETTE
from shapeworld.vocabulary import Attribute, Values
from shapeworld.words import are_named_apart, check_choice, choose

from photoworld.library import library
from photoworld.manifest import Picture

Float = NDArray[np.float64]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
PALETTE = DRAWN_PALETTE | {"brown": (0.45, 0.28, 0.15), "grey": (0.50, 0.50, 0.50)}
COLOURS = (*DRAWN_COLOURS, "brown", "grey")

SMALLEST_CROP = 0.5  # of a photograph's shorter side
SHADOW = 0.35  # share of a new colour that does not follow the brightness of the photograph
_PURPOSE = 80
_TRIES = 200
_DEFAULT = SceneConfig(rotation=pi / 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout(Thing):
    """A photographic cut-out; its radius is that of the opaque pixel that lies farthest out.

    Attributes:
        picture: Key of the picture in the manifest.
        tint: Name of the colour it was given; empty as it was photographed.
    """

    picture: str
    tint: str = ""

    def reach(self) -> float:
        """Return the largest distance of anything it shows from its centre, scene units."""
        # soft edges of the picture lie beyond what counts as opaque
        return 1.1 * self.radius

    def distance(self, x: Float, y: Float) -> Float:
        """Return the signed distance of points to the outline, scene units, negative inside."""
        stamp = library().stamp(self.picture)
        px, py = self._places(x, y)
        rows, columns = (each * stamp.edge_scale + stamp.edge_margin - 0.5 for each in (py, px))
        places = np.broadcast_arrays(rows, columns)
        found = ndimage.map_coordinates(
            stamp.edge[..., 0], places, order=1, mode="nearest", output=np.float64
        )
        return found * self.radius / stamp.radius

    def paint(self, grid: Grid) -> Painted:
        """Return colour and extent at the points of a grid."""
        stamp = library().stamp(self.picture)
        px, py = self._places(grid.x, grid.y)
        step = float(np.mean(grid.pixel)) * stamp.radius / self.radius
        found = stamp.pyramid.sample(px, py, step, "constant")
        alpha = found[..., 3]
        colour = found[..., :3] / np.maximum(alpha, 1e-6)[..., None]
        if self.tint:
            light = colour.mean(axis=-1, keepdims=True) / max(stamp.brightness, 0.05)
            colour = np.array(PALETTE[self.tint]) * (SHADOW + (1 - SHADOW) * light)
        return Painted(np.clip(colour, 0, 1), alpha, alpha > 0.5)

    def corners(self) -> tuple[tuple[float, float], ...]:
        """Return no named points besides the centre."""
        return ()

    def changed(self, attribute: Attribute, to: str) -> Self:
        """Return it in another colour, or another cut-out in its place.

        Raises:
            KeyError: If no picture of its split has the name.
        """
        if attribute == "colour":
            return replace(self, colour=to, tint=to)
        manifest = library().manifest
        split = manifest.by_key[self.picture].split
        found = manifest.named(split or "test")[to]
        new = found[self.seed % len(found)]
        return replace(self, shape=new.name, colour=new.colour, picture=new.key, tint="")

    def _places(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Take scene coordinates to pixels of the picture."""
        stamp = library().stamp(self.picture)
        scale = stamp.radius / self.radius
        u, v = self.local(x, y)
        return stamp.centre[0] + u * scale, stamp.centre[1] + v * scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo(Background):
    """A square part of a photograph, mirrored beyond its edges; ``kind`` is the noun for it.

    Attributes:
        picture: Key of the picture in the manifest.
    """

    picture: str

    def paint(self, grid: Grid) -> Float:
        """Return its colours at the points of a grid, ``(H, W, 3)`` RGB in [0, 1]."""
        pyramid = library().ground(self.picture)
        height, width = pyramid.levels[0].shape[:2]
        rng = np.random.default_rng(self.seed)
        side = min(height, width) * rng.uniform(SMALLEST_CROP, 1)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        is_mirrored = rng.random() < 0.5
        x, y = np.broadcast_arrays(grid.x, grid.y)
        x = 1 - x if is_mirrored else x
        step = float(np.mean(grid.pixel)) * side
        return pyramid.sample(left + x * side, top + y * side, step, "mirror")


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite(Scene):
    """Cut-outs over a photograph, all of one split.

    Attributes:
        split: The split.
    """

    split: Split

    @property
    def values(self) -> Values:
        """Words of each attribute in this split; nothing is said of materials."""
        return {"shape": tuple(library().manifest.named(self.split)), "colour": COLOURS, "material": ()}

    def draw_looks(self, rng: np.random.Generator) -> dict[str, str]:
        """Draw the attributes of a cut-out that might be added."""
        new = choose(rng, library().manifest.of("cutout", self.split))
        return {"material": "", "colour": new.colour, "shape": new.name}

    def new_thing(self, looks: Mapping[str, str], *, x: float, y: float, radius: float, seed: int) -> Cutout:
        """Return a cut-out of a name and colour.

        Raises:
            KeyError: If the split has none.
        """
        own = library().manifest.named(self.split).get(looks["shape"], ())
        found = [each for each in own if each.colour == looks["colour"]]
        if not found:
            raise KeyError(f"{looks['colour']} {looks['shape']}")
        return _cutout(found[seed % len(found)], x, y, radius, 0.0, seed)


def _cutout(picture: Picture, x: float, y: float, radius: float, angle: float, seed: int) -> Cutout:
    return Cutout(
        shape=picture.name,
        colour=picture.colour,
        material="",
        x=x,
        y=y,
        radius=radius,
        angle=angle,
        seed=seed,
        picture=picture.key,
    )


def draw_scene(
    seed: int, index: int, *, split: Split = "train", config: SceneConfig | None = None
) -> Composite:
    """Draw a scene; the same arguments always give the same one.

    Args:
        seed: Seed of the world, at least 0.
        index: Number of the scene, at least 0.
        split: ``train``, ``val`` or ``test``, which share no object and no photograph.
        config: Distribution of scenes, of which numbers, distractors, occlusion and rotation count.

    Raises:
        ValueError: If ``split`` is unknown.
    """
    check_choice("split", split, SPLITS)
    config = config or _DEFAULT
    manifest = library().manifest
    rng = scene_rng(seed, index, _PURPOSE, get_args(Split).index(split))
    weights = np.cumsum(config.num_things)
    count = int(np.searchsorted(weights, rng.random() * weights[-1], side="right")) + 1
    pictures = _pick(rng, manifest.named(split), count, rng.random() < config.distractors)
    count = len(pictures)
    places = place(rng, count, TOUCHING if rng.random() >= config.occlusion else OVERLAPPING)
    ground = choose(rng, manifest.of("photo", split))
    background = Photo(kind=ground.name, seed=int(rng.integers(2**32)), picture=ground.key)
    angles = rng.uniform(-config.rotation, config.rotation, count)
    things = tuple(
        _cutout(picture, x, y, radius, float(angle), int(rng.integers(2**31)))
        for picture, (x, y, radius), angle in zip(pictures, places, angles, strict=True)
    )
    return Composite(background=background, things=things, split=split)


def _pick(
    rng: np.random.Generator, named: Mapping[str, tuple[Picture, ...]], count: int, distract: bool
) -> list[Picture]:
    """Pick pictures by name, then among those of the name; the second may be the first's double.

    There are fewer where names run out, as in a world of four.
    """
    names = tuple(named)
    found: list[Picture] = []
    for attempt in range(_TRIES):
        options = list(named[choose(rng, names)])
        if distract and len(found) == 1 and attempt < _TRIES // 2:
            first = found[0]
            doubles = [
                picture
                for picture in chain.from_iterable(named.values())
                if picture.colour and first.colour
                if (picture.name == first.name) != (picture.colour == first.colour)
            ]
            options = doubles or options
        new = choose(rng, options)
        if are_named_apart([_cutout(each, 0, 0, 1, 0, 0) for each in (*found, new)]):
            found.append(new)
        if len(found) == count:
            break
    return [found[i] for i in rng.permutation(len(found))]
