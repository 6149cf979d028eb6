# SPDX-License-Identifier: Apache-2.0
"""Two images of one scene, and where every point of the first lies in the second.

The second image is not resampled from the first: it is rendered at the scene coordinates that the warp gives
its pixels, so that both are equally sharp and what one hides the other may show. Pixel coordinates are x,
then y, from the outer edge of the image: pixel ``(row, column)`` has centre ``(column + 0.5, row + 0.5)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, log, pi, sin

import numpy as np
from numpy.typing import NDArray

from shapeworld.grid import WHOLE, Grid
from shapeworld.render import Rendering, render, render_at
from shapeworld.scene import Scene, Thing

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

STEEPEST = 0.5  # of the deformation; below 1 no two points fall together

# of the inverse: the first kind always comes closer, the second doubles its digits once it is near
_SAFE_STEPS, _FAST_STEPS = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpConfig:
    """Limits of the difference between two images.

    Attributes:
        rotation: Largest turn of the image to either side, radians.
        scale: Largest enlargement, and 1 over the smallest; at least 1.
        stretch: Largest ratio of the enlargements along two axes; at least 1, and 1 keeps all angles.
        shift: Largest shift along each axis, scene units.
        bend: Steepest slope of the smooth deformation, in [0, 0.5]; 0 leaves straight lines straight.
        motion: Largest shift of each thing by itself along each axis, scene units.
        turn: Largest turn of each thing by itself to either side, radians.
    """

    rotation: float = pi / 5
    scale: float = 1.3
    stretch: float = 1.25
    shift: float = 0.1
    bend: float = 0.25
    motion: float = 0.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        if min(self.scale, self.stretch) < 1:
            raise ValueError(f"scale and stretch must be at least 1, got {self.scale} and {self.stretch}")
        if not 0 <= self.bend <= STEEPEST:
            raise ValueError(f"bend must be in [0, {STEEPEST}], got {self.bend}")


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """A smooth one-to-one map of the plane: a sum of sine waves bends it, then a matrix turns and scales it.

    ``p -> matrix @ (p + bend(p) - 0.5) + 0.5 + shift``, scene units.

    Attributes:
        matrix: ``(2, 2)``.
        shift: ``(2,)``.
        amplitudes: Amplitudes of the waves, ``(K, 2)``, scene units.
        frequencies: ``(K, 2)``, cycles per scene unit.
        phases: ``(K,)``, radians.
    """

    matrix: Float
    shift: Float
    amplitudes: Float
    frequencies: Float
    phases: Float

    def forward(self, points: Float) -> Float:
        """Map points of the scene, ``(..., 2)``, to the second image; both in scene units."""
        return (points + self._bend(points) - 0.5) @ self.matrix.T + 0.5 + self.shift

    def inverse(self, points: Float) -> Float:
        """Map points of the second image, ``(..., 2)``, to the scene; exact to rounding."""
        straight = (points - 0.5 - self.shift) @ np.linalg.inv(self.matrix).T + 0.5
        found = straight
        for _ in range(_SAFE_STEPS if len(self.phases) else 0):
            found = straight - self._bend(found)
        for _ in range(_FAST_STEPS if len(self.phases) else 0):
            error = found + self._bend(found) - straight
            found = found - _solve(self._slope(found), error)
        return found

    def enlargement(self, points: Float) -> Float:
        """Return by how much lengths near points of the scene, ``(..., 2)``, grow in the mean, ``(...)``."""
        return np.sqrt(np.abs(np.linalg.det(self._slope(points)) * np.linalg.det(self.matrix)))

    def _bend(self, points: Float) -> Float:
        return np.sin(self._angles(points)) @ self.amplitudes

    def _slope(self, points: Float) -> Float:
        """Derivative of ``p + bend(p)``, ``(..., 2, 2)``."""
        outer = self.amplitudes[:, :, None] * (2 * pi * self.frequencies[:, None, :])  # (K, 2, 2)
        slope = np.cos(self._angles(points)) @ outer.reshape(-1, 4)
        return np.eye(2) + slope.reshape(*points.shape, 2)  # (..., 2, 2)

    def _angles(self, points: Float) -> Float:
        return 2 * pi * points @ self.frequencies.T + self.phases


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """Named points of things in both images.

    Attributes:
        first: In the first image, ``(K, 2)``, pixels, x then y; may lie outside.
        second: In the second image, likewise.
        seen_first: ``(K,)`` bool: inside the first image and behind no other thing.
        seen_second: ``(K,)`` bool, of the second.
        things: Place in ``scene.things`` of the thing each belongs to, ``(K,)`` int64.
        names: ``centre``, or ``corner 0`` and so on in the order of ``shapes.corners``.
    """

    first: Float
    second: Float
    seen_first: Bool
    seen_second: Bool
    things: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two images of one scene.

    Attributes:
        first: The scene as it is.
        second: The scene after its things moved by themselves, if they did, seen through the warp.
        warp: Warp of the ground, and of the things after their own motion.
        target: Position in the second image of what each pixel centre of the first shows, ``(H, W, 2)``
            float64, pixels, x then y. Its pixel there is ``floor(target)``.
        valid: ``(H, W)`` bool: whether that is inside the second image and shows the same thing, or ground
            where the first shows ground.
        keypoints: Keypoints of all things.
    """

    first: Rendering
    second: Rendering
    warp: Warp
    target: Float
    valid: Bool
    keypoints: Keypoints


def draw_pair(
    scene: Scene,
    rng: np.random.Generator,
    side: int | tuple[int, int] = 64,
    *,
    config: WarpConfig | None = None,
) -> Pair:
    """Render a scene twice, the second time under a random warp.

    Args:
        scene: The scene.
        rng: Random generator.
        side: Size of both images in pixels: one number, or height and width.
        config: Limits of the difference.

    Returns:
        Both images and how they correspond.

    Raises:
        ValueError: If ``side`` is below 1.
    """
    config = config or WarpConfig()
    warp = draw_warp(rng, config)
    return warp_pair(scene, move_things(scene, rng, config), warp, side)


def draw_warp(rng: np.random.Generator, config: WarpConfig) -> Warp:
    """Draw a warp."""
    turn, axis = rng.uniform(-config.rotation, config.rotation), rng.uniform(0, pi)
    scale = np.exp(rng.uniform(-1, 1) * log(config.scale))
    ratio = np.exp(0.5 * rng.uniform(0, 1) * log(config.stretch))
    stretch = _turned(axis) @ np.diag([ratio, 1 / ratio]) @ _turned(-axis)
    shift = rng.uniform(-config.shift, config.shift, 2)
    count = 2 if config.bend else 0
    cycles = rng.uniform(0.5, 1.5, count)
    # together no steeper than asked for
    heights = config.bend / max(count, 1) / (2 * pi * cycles)
    return Warp(
        scale * _turned(turn) @ stretch,
        shift,
        heights[:, None] * _directions(rng.uniform(0, 2 * pi, count)),
        cycles[:, None] * _directions(rng.uniform(0, 2 * pi, count)),
        rng.uniform(0, 2 * pi, count),
    )


def move_things(scene: Scene, rng: np.random.Generator, config: WarpConfig) -> Scene:
    """Move and turn each thing by itself."""
    shifts = rng.uniform(-config.motion, config.motion, (len(scene.things), 2))
    turns = rng.uniform(-config.turn, config.turn, len(scene.things))
    moves = zip(scene.things, shifts.tolist(), turns.tolist(), strict=True)
    return replace(
        scene,
        things=tuple(
            replace(thing, x=thing.x + dx, y=thing.y + dy, angle=thing.angle + turn)
            for thing, (dx, dy), turn in moves
        ),
    )


def warp_pair(scene: Scene, moved: Scene, warp: Warp, side: int | tuple[int, int] = 64) -> Pair:
    """Render a scene, and the same with moved things through a warp.

    Args:
        scene: Scene of the first image.
        moved: Scene of the second image: the same things in the same order, at other places and angles.
        warp: Map from the scene to the second image.
        side: Size of both images in pixels: one number, or height and width.

    Returns:
        Both images and how they correspond.

    Raises:
        ValueError: If ``side`` is below 1, or the scenes differ in more than where their things are.
    """
    if scene != _put_back(moved, scene):
        raise ValueError("moved must hold the things of scene, each with its own centre and angle")
    height, width = (side, side) if isinstance(side, int) else side
    size = np.array([width, height], dtype=np.float64)
    first = render(scene, side)
    grid = Grid.of_window(height, width, WHOLE)
    centres = np.stack(np.broadcast_arrays(grid.x, grid.y), axis=-1)  # (H, W, 2)
    sources = warp.inverse(centres)
    second = render_at(moved, sources[..., 0], sources[..., 1], grid.pixel / warp.enlargement(sources))

    places = centres.copy()
    for i, (before, after) in enumerate(zip(scene.things, moved.things, strict=True)):
        own = first.instances == i + 1
        places[own] = _carry(centres[own], before, after)
    target = warp.forward(places) * size
    cells = np.floor(target).astype(np.int64)
    in_view = _within(target, size)
    columns, rows = np.moveaxis(np.where(in_view[..., None], cells, 0), -1, 0)
    valid = in_view & (second.instances[rows, columns] == first.instances)
    return Pair(first, second, warp, target, valid, _keypoints(scene, moved, warp, size))


def _put_back(moved: Scene, scene: Scene) -> Scene:
    """The moved scene with every thing where it was; unlike ``scene`` where more than that was changed."""
    if len(moved.things) != len(scene.things):
        return moved
    pairs = zip(moved.things, scene.things, strict=True)
    return replace(moved, things=tuple(replace(new, x=old.x, y=old.y, angle=old.angle) for new, old in pairs))


def _carry(points: Float, before: Thing, after: Thing) -> Float:
    """Move points ``(..., 2)`` that are fixed to a thing along with it."""
    if before == after:
        return points
    arm = points - (before.x, before.y)
    return arm @ _turned(after.angle - before.angle).T + (after.x, after.y)


def _keypoints(scene: Scene, moved: Scene, warp: Warp, size: Float) -> Keypoints:
    first: list[Float] = []
    second: list[Float] = []
    owners: list[int] = []
    names: list[str] = []
    for i, (before, after) in enumerate(zip(scene.things, moved.things, strict=True)):
        local = np.array([(0.0, 0.0), *before.corners()])
        first.append(_posed(local, before))
        second.append(_posed(local, after))
        owners += [i] * len(local)
        names += ["centre", *(f"corner {j}" for j in range(len(local) - 1))]
    here, there = np.concatenate([*first, np.zeros((0, 2))]), np.concatenate([*second, np.zeros((0, 2))])
    things = np.array(owners, dtype=np.int64)
    xy_first, xy_second = here * size, warp.forward(there) * size
    return Keypoints(
        xy_first,
        xy_second,
        _within(xy_first, size) & ~_covered(here, things, scene),
        _within(xy_second, size) & ~_covered(there, things, moved),
        things,
        tuple(names),
    )


def _posed(local: Float, thing: Thing) -> Float:
    """Take points from a shape's own coordinates to the scene."""
    return thing.radius * local @ _turned(thing.angle).T + (thing.x, thing.y)


def _within(xy: Float, size: Float) -> Bool:
    return np.all((xy >= 0) & (xy < size), axis=-1)


def _covered(points: Float, owners: NDArray[np.int64], scene: Scene) -> Bool:
    """Whether points ``(K, 2)`` lie behind a thing in front of their own."""
    covered = np.zeros(len(points), dtype=np.bool_)
    for i, thing in enumerate(scene.things):
        covered |= (owners < i) & (thing.distance(points[:, 0], points[:, 1]) < 0)
    return covered


def _solve(matrix: Float, right: Float) -> Float:
    """Solve ``(..., 2, 2)`` equations for ``(..., 2)``; far quicker by hand than one by one in a library."""
    (a, b), (c, d) = (np.moveaxis(row, -1, 0) for row in np.moveaxis(matrix, -2, 0))
    x, y = np.moveaxis(right, -1, 0)
    return np.stack([d * x - b * y, a * y - c * x], axis=-1) / (a * d - b * c)[..., None]


def _turned(angle: float) -> Float:
    """Matrix that turns clockwise on the screen."""
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def _directions(angles: Float) -> Float:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
