# SPDX-License-Identifier: Apache-2.0
"""Scenes and videos of the five shapes that the toy specialists know, painted in either of two styles.

``drawn`` is the renderer of shapeworld: soft edges, patterns, calm but uneven background. ``flat`` is that of
the toy specialists: one colour on a plain background, no soft edges, so that they find and change objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from shapeworld import Scene, SceneConfig, Split, Thing, draw_scene, render
from shapeworld.grid import WHOLE
from shapeworld.videos import Video, draw_video
from shapeworld.vocabulary import HELD_OUT
from shapeworld.words import Phrasing, choose
from vitron.demo.painters.shapes import BACKGROUND, shape_mask, shifted
from vitron.demo.painters.words import SHAPES
from vitron.protocol.media import Artefact
from vitron.specialists.words import COLOURS

Style = Literal["drawn", "flat"]
Bool = NDArray[np.bool_]
RGB = tuple[int, int, int]
_T = TypeVar("_T")

FRAMES = 4
FLAT = 0.5  # share of the images that are painted flat
MATERIALS = ("solid", "solid", "striped", "dotted")
# of objects that are made: seen on any ground
TINTS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
# few scenes of three and four hold no other than the five shapes: they are asked for more often
COUNTS = (0.25, 0.45, 0.7, 0.8)
# side of the box, as a share of the diameter of an object, so that no two boxes of objects apart touch
FILL = {"circle": 0.93, "square": 0.72, "triangle": 0.72, "star": 0.85, "cross": 0.9}
_GROUNDS = ("white", "grey", "black", "brown", "green", "blue", "yellow")
_SMALLEST = 24  # pixels of an image of 64 that must be seen of every object


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Source of one example.

    Attributes:
        seed: Random seed of the world.
        number: Number of the first scene to try.
        rng: Random generator of all other choices.
        split: Split of the scenes.
        phrasing: Wording of the user message.
        side: Side of images in pixels.
    """

    seed: int
    number: int
    rng: np.random.Generator
    split: Split
    phrasing: Phrasing
    side: int

    def pick(self, *options: _T) -> _T:
        """Return one of the options, each equally likely."""
        return choose(self.rng, options)

    def chance(self, share: float) -> bool:
        """Return true in a share of all cases."""
        return bool(self.rng.random() < share)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A painted scene, or a video of it.

    Attributes:
        media: Image or video.
        masks: Visible mask of each object, ``(N, T, H, W)``.
        scene: Objects in the order of the masks; of a video as they first are.
        style: Style in which it is painted.
        ground: Background of the flat style, RGB; ``None`` in the other style.
        video: Video before it was painted; ``None`` of an image.
        natural: Whether the colours are those of the scene; false after a change of style.
    """

    media: Artefact
    masks: Bool
    scene: Scene
    style: Style = "flat"
    ground: RGB | None = None
    video: Video | None = None
    natural: bool = True

    @property
    def ground_name(self) -> str | None:
        """Name of the background's colour, if it has one."""
        return next((name for name, colour in COLOURS.items() if colour == self.ground), None)

    def box(self, thing: int, frame: int = 0) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of an object, fractions."""
        mask = self.masks[thing, frame]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = mask.shape
        left, right = columns[0] / width, (columns[-1] + 1) / width
        return float(left), float(rows[0] / height), float(right), float((rows[-1] + 1) / height)


def noun(thing: Thing) -> str:
    """Return colour and shape, which no other object of a scene shares."""
    return f"{thing.colour} {thing.shape}"


def full_noun(thing: Thing) -> str:
    """Return colour and shape, and the pattern where there is one."""
    return noun(thing) if thing.material == "solid" else f"{thing.material} {noun(thing)}"


def new_noun(draw: Draw, *, without: str = "", shown: View | None = None) -> str:
    """Return colour and shape of an object to generate; held-out pairs in their split only.

    Args:
        draw: Source of random choices.
        without: Shape that is not wanted.
        shown: Image that gets the object: not one of its objects, nor in the colour of its background.
    """
    held_out = draw.split == "novel"
    known = set[str]() if shown is None else {noun(thing) for thing in shown.scene.things}
    ground = None if shown is None else shown.ground_name
    pairs = [
        f"{colour} {shape}"
        for colour in TINTS
        for shape in SHAPES
        if shape != without and ((colour, shape) in HELD_OUT) is held_out
    ]
    return draw.pick(*(pair for pair in pairs if pair not in known and pair.split()[0] != ground))


def scene_of(
    draw: Draw, *, counts: tuple[float, ...] = COUNTS, plain: bool = False, occlusion: float = 0.0
) -> Scene:
    """Draw a scene of the five shapes.

    Args:
        draw: Source of random choices.
        counts: Weights of 1, 2, ... objects before scenes with other shapes are left out.
        plain: Whether nothing has a pattern.
        occlusion: Share of the scenes in which objects may cover each other.
    """
    config = _config(counts, plain, occlusion)
    number = draw.number
    while True:
        scene = draw_scene(draw.seed, number, split=draw.split, config=config)
        if _is_known(scene):
            return scene
        number += 1


def _is_known(scene: Scene) -> bool:
    return all(thing.shape in SHAPES for thing in scene.things)


def _config(counts: tuple[float, ...], plain: bool, occlusion: float) -> SceneConfig:
    return SceneConfig(
        num_things=counts,
        occlusion=occlusion,
        materials=("solid",) if plain else MATERIALS,
        backgrounds=("gradient", "waves", "clouds"),
        saturation=(0.0, 0.4),
    )


def view(draw: Draw, scene: Scene, style: Style, *, ground: RGB | None = None) -> View | None:
    """Paint a scene; nothing if an object is hardly seen.

    Args:
        draw: Source of random choices.
        scene: Scene.
        style: Style.
        ground: Background of the flat style, RGB; a random one if ``None``.
    """
    if style == "flat":
        scene = _flattened(scene)
        ground = ground or _draw_ground(draw, scene.things)
        order = tuple(range(len(scene.things)))
        frames, masks = _paint_flat(draw.side, ground, [scene], [order], len(scene.things))
        image = frames[0]
    else:
        painted = render(scene, draw.side)
        image, masks = painted.image, painted.visible()[:, None]
    if not scene.things or masks.sum(axis=(1, 2, 3)).min() < _smallest(draw):
        return None
    return View(Artefact("image", image), masks, scene, style, ground)


def video_of(draw: Draw, style: Style, *, counts: tuple[float, ...] = COUNTS) -> Video:
    """Draw a video of the five shapes, seen by a camera that rests."""
    config, number = _config(counts, style == "flat", 0.0), draw.number
    # scenes are cheaper than videos, and the video of a number begins with the scene of that number
    while not _is_known(draw_scene(draw.seed, number, split=draw.split, config=config)):
        number += 1
    video = draw_video(draw.seed, number, frames=FRAMES, split=draw.split, config=config)
    events = tuple(event for event in video.events if event.kind != "camera")
    return replace(video, windows=(WHOLE,) * FRAMES, events=events)


def render_video(draw: Draw, video: Video, style: Style, *, ground: RGB | None = None) -> View | None:
    """Paint a video; nothing if an object that is there is hardly seen."""
    scene = replace(video.scenes[0], things=video.things)
    if style == "flat":
        ground = ground or _draw_ground(draw, [thing for one in video.scenes for thing in one.things])
        frames, masks = _paint_flat(
            draw.side, ground, list(video.scenes), list(video.tracks), len(video.things)
        )
    else:
        painted = video.render(draw.side)
        frames = painted.frames
        masks = np.stack([painted.instances == track + 1 for track in range(len(video.things))])
    seen = masks.sum(axis=(2, 3)).T  # (T, N)
    if (seen[video.present] < _smallest(draw)).any():
        return None
    return View(Artefact("video", frames), masks, scene, style, ground, video)


def _smallest(draw: Draw) -> float:
    return _SMALLEST * (draw.side / 64) ** 2


def draw_style(draw: Draw) -> Style:
    """Return one of the two styles."""
    first, second = get_args(Style)
    return second if draw.chance(FLAT) else first


@lru_cache(maxsize=1024)
def _mask(shape: str, side: int) -> Bool:
    return shape_mask(shape, side, side)


def _flattened(scene: Scene) -> Scene:
    return replace(scene, things=tuple(replace(thing, material="solid", angle=0.0) for thing in scene.things))


def _draw_ground(draw: Draw, things: Sequence[Thing]) -> RGB:
    taken = {thing.colour for thing in things}
    grounds = [COLOURS[name] for name in _GROUNDS if name not in taken]
    usual = not taken & {"white"} and draw.chance(0.5)
    return BACKGROUND if usual else choose(draw.rng, grounds)


def _paint_flat(
    side: int, ground: RGB, scenes: list[Scene], tracks: list[tuple[int, ...]], count: int
) -> tuple[NDArray[np.uint8], Bool]:
    """Paint scenes on one background: frames ``(T, H, W, 3)`` and masks ``(count, T, H, W)``."""
    frames = np.empty((len(scenes), side, side, 3), dtype=np.uint8)
    frames[:] = ground
    masks = np.zeros((count, len(scenes), side, side), dtype=np.bool_)
    for frame, (scene, order) in enumerate(zip(scenes, tracks, strict=True)):
        for track, thing in zip(order, scene.things, strict=True):
            long = max(4, round(2 * thing.radius * FILL[thing.shape] * side))
            row, column = round(thing.y * side - long / 2), round(thing.x * side - long / 2)
            there = shifted(_mask(thing.shape, long), row, column, (side, side))
            frames[frame, there] = COLOURS[thing.colour]
            masks[:, frame, there] = False
            masks[track, frame] = there
    return frames, masks
