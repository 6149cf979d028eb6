# SPDX-License-Identifier: Apache-2.0
"""Short videos: things that move and bounce, turn, come and go, seen by a camera that may drift.

A video holds a scene and a window for each frame, so that it renders at any size. A track is one thing
through all frames; its number never changes, whether the thing is there, hidden or gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, radians
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shapeworld.edits import DIRECTIONS, visible_shares
from shapeworld.grid import WHOLE, Window
from shapeworld.render import render
from shapeworld.scene import Scene, SceneConfig, Split, Thing, draw_scene, scene_rng
from shapeworld.vocabulary import COLOURS, SHAPES
from shapeworld.words import Phrasing, check_choice, choose, describe, with_article, words_of

EventKind = Literal["appears", "moves", "turns", "bounces", "disappears", "camera"]

FEWEST_FRAMES, MOST_FRAMES = 4, 16
MOVING, COMING_OR_GOING, TURNING, DRIFTING = 0.7, 0.5, 0.3, 0.4  # shares of things, videos, things, videos
ROUND = ("circle", "ring")  # never turn: it does not show in their outline

_PURPOSE = 40  # first number of the random stream
_PATH = (0.22, 0.5)  # way of a moving thing, scene units
_FASTEST = 0.15  # scene units a frame
_CLEAR = 0.12  # way before the first bounce, so that the direction is seen
_ASIDE = 0.25  # largest speed across, as a share of that along
_SPIN, _FASTEST_SPIN = (radians(40), radians(90)), radians(15)  # in all, and a frame
_DRIFT = 0.1  # way of the camera: less than half of that of the slowest thing
_VISIBLE = 0.4  # share of a thing that must show where its event is seen
_TRIES = 24

_PHRASES: dict[Phrasing, dict[EventKind, tuple[str, ...]]] = {
    "train": {
        "appears": ("appears", "comes in"),
        "moves": ("moves {way}", "goes {way}"),
        "turns": ("turns", "spins"),
        "bounces": ("bounces", "comes back"),
        "disappears": ("disappears", "vanishes"),
        "camera": ("the camera moves {way}", "the view moves {way}"),
    },
    "held_out": {
        "appears": ("shows up",),
        "moves": ("slides {way}",),
        "turns": ("rotates",),
        "bounces": ("bounces back",),
        "disappears": ("goes away",),
        "camera": ("the camera slides {way}",),
    },
}
_ORDER = get_args(EventKind)  # of events of one frame in a sentence

WORDS = frozenset({*COLOURS, *SHAPES, *DIRECTIONS}) | words_of(
    *(phrase for table in _PHRASES.values() for group in table.values() for phrase in group), "a an and while"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens.

    Attributes:
        kind: Kind of event.
        track: Track of the thing; ``None`` for the camera.
        frame: The first frame it is seen in: for ``disappears`` the first without the thing, for ``bounces``
            the first after the turn; a turn at the very end, where no way back is seen, is no event.
        direction: ``left``, ``right``, ``up`` or ``down``, None where nothing goes anywhere; that of a thing
            before any bounce, in the scene as on the screen.
    """

    kind: EventKind
    track: int | None
    frame: int
    direction: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VideoRendering:
    """A rendered video with its ground truth.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        instances: ``(T, H, W)`` uint8: 0 ground, else the track plus one.
        boxes: ``(T, N, 4)`` int64 ``x0, y0, x1, y1`` of what is seen of each track, half open, pixels; zeros
            where nothing is seen.
    """

    frames: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A video before it is rendered.

    Attributes:
        scenes: One a frame.
        windows: View of the camera in each frame, scene units.
        tracks: Each frame's things by track, in the order of ``scene.things``.
        things: Thing of each track in its first frame.
        events: All that happens, by frame.
        caption: The same in words; without things that do not move.
    """

    scenes: tuple[Scene, ...]
    windows: tuple[Window, ...]
    tracks: tuple[tuple[int, ...], ...]
    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    caption: str

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether each track is in the scene, hidden or not, ``(T, N)`` bool."""
        return np.array([[track in tracks for track in range(len(self.things))] for tracks in self.tracks])

    def render(self, side: int | tuple[int, int] = 64) -> VideoRendering:
        """Render all frames.

        Args:
            side: Size of a frame in pixels: one number, or height and width.

        Returns:
            Frames, masks and boxes.
        """
        frames = [render(scene, side, window=window) for scene, window in self._views()]
        boxes = np.zeros((len(frames), len(self.things), 4), dtype=np.int64)
        instances: list[NDArray[np.uint8]] = []
        for frame, (rendering, tracks) in enumerate(zip(frames, self.tracks, strict=True)):
            labels = np.array([0, *(track + 1 for track in tracks)], dtype=np.uint8)
            instances.append(labels[rendering.instances])
            boxes[frame, list(tracks)] = rendering.boxes()
        return VideoRendering(np.stack([rendering.image for rendering in frames]), np.stack(instances), boxes)

    def _views(self) -> zip[tuple[Scene, Window]]:
        return zip(self.scenes, self.windows, strict=True)


def draw_video(
    seed: int,
    index: int,
    *,
    frames: int = 8,
    split: Split = "train",
    phrasing: Phrasing = "train",
    config: SceneConfig | None = None,
    scene: Scene | None = None,
) -> Video:
    """Draw a video; the same arguments always give the same one.

    At least one thing moves. At most one comes or goes. A thing that is spoken of is seen in its first and
    last frame, unless the scene is so crowded that no way for it was found.

    Args:
        seed: Seed of the world, at least 0.
        index: Number of the video, at least 0.
        frames: 4 to 16.
        split: Split, as for ``draw_scene``.
        phrasing: Which words the caption uses; the verbs of ``held_out`` never occur in ``train``.
        config: Distribution of scenes; the full world if ``None``.
        scene: Scene of another world to set in motion, instead of drawing one.

    Returns:
        The video.

    Raises:
        ValueError: If ``frames`` is out of range, or ``split`` or ``phrasing`` is unknown.
    """
    if not FEWEST_FRAMES <= frames <= MOST_FRAMES:
        raise ValueError(f"frames must be {FEWEST_FRAMES} to {MOST_FRAMES}, got {frames}")
    check_choice("phrasing", phrasing, _PHRASES)
    scene = scene or draw_scene(seed, index, split=split, config=config)
    rng = scene_rng(seed, index, _PURPOSE, get_args(Split).index(split))
    courses = _draw_courses(scene, frames, rng)
    for _ in range(_TRIES):
        if _all_seen(scene, courses):
            break
        courses = _draw_courses(scene, frames, rng)
    drift, windows = _draw_windows(frames, rng)
    events = sorted(
        (
            event
            for track, course in enumerate(courses)
            for event in course.events(track, scene.things[track])
        ),
        key=lambda event: event.frame,
    )
    if drift is not None:
        events.append(Event(kind="camera", track=None, frame=0, direction=drift))
    return Video(
        scenes=tuple(_scene_at(scene, courses, frame) for frame in range(frames)),
        windows=windows,
        tracks=tuple(
            tuple(track for track, course in enumerate(courses) if course.holds(frame))
            for frame in range(frames)
        ),
        things=scene.things,
        events=tuple(events),
        caption=_say(scene.things, events, _PHRASES[phrasing], rng),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """What one thing does: there from ``first`` to before ``end`` of ``frames``, at constant speed."""

    first: int
    end: int
    frames: int
    direction: str | None = None
    velocity: tuple[float, float] = (0.0, 0.0)
    spin: float = 0.0

    def holds(self, frame: int) -> bool:
        return self.first <= frame < self.end

    def at(self, thing: Thing, frame: int) -> Thing:
        """Return the thing in a frame; bit for bit itself where it rests."""
        steps = frame - self.first
        if self.direction is not None:
            x, y = (
                _bounce(start, speed * steps, thing.radius)[0]
                for start, speed in zip((thing.x, thing.y), self.velocity, strict=True)
            )
            thing = replace(thing, x=x, y=y)
        return replace(thing, angle=thing.angle + self.spin * steps) if self.spin else thing

    def events(self, track: int, thing: Thing) -> list[Event]:
        found: list[Event] = []
        if self.first > 0:
            found.append(Event(kind="appears", track=track, frame=self.first))
        if self.direction is not None:
            found.append(Event(kind="moves", track=track, frame=self.first, direction=self.direction))
        if self.spin:
            found.append(Event(kind="turns", track=track, frame=self.first))
        for frame in range(self.first + 1, self.end - 1):
            if self._turns_back(thing, frame):
                found.append(Event(kind="bounces", track=track, frame=frame))
        if self.end < self.frames:
            found.append(Event(kind="disappears", track=track, frame=self.end))
        return found

    def _turns_back(self, thing: Thing, frame: int) -> bool:
        """Whether the thing met a wall on its way since the frame before; walls at its side do not count."""
        if self.direction is None:
            return False
        axis = 0 if DIRECTIONS[self.direction][0] else 1
        start, speed, steps = (thing.x, thing.y)[axis], self.velocity[axis], frame - self.first
        walls = [_bounce(start, speed * step, thing.radius)[1] for step in (steps - 1, steps)]
        return walls[0] != walls[1]


def _bounce(start: float, way: float, radius: float) -> tuple[float, int]:
    """Go a way between two walls; return where it ends, and how many walls were met."""
    low, span = 0.96 * radius, 1 - 1.92 * radius  # as things are placed in scenes
    raw = min(max(start - low, 0.0), span) + way
    laps = floor(raw / span)
    rest = raw - laps * span
    return low + (rest if laps % 2 == 0 else span - rest), abs(laps)


def _draw_courses(scene: Scene, frames: int, rng: np.random.Generator) -> tuple[_Course, ...]:
    """Draw what every thing does: one moves for sure, one may come or go."""
    count = len(scene.things)
    mover = int(rng.integers(count))
    guest = int(rng.integers(count)) if rng.random() < COMING_OR_GOING else None
    courses: list[_Course] = []
    for track, thing in enumerate(scene.things):
        first, end = 0, frames
        if track == guest:  # there for two frames at least, so that its motion is seen
            cut = int(rng.integers(2, frames))
            first, end = (frames - cut, frames) if rng.random() < 0.5 else (0, cut)
        moves = track == mover or rng.random() < MOVING
        course = _Course(first=first, end=end, frames=frames)
        course = _set_off(course, thing, rng) if moves else course
        if thing.shape not in ROUND and rng.random() < TURNING:
            spin = min(rng.uniform(*_SPIN) / (end - first - 1), _FASTEST_SPIN)
            course = replace(course, spin=float(rng.choice((-spin, spin))))
        courses.append(course)
    return tuple(courses)


def _set_off(course: _Course, thing: Thing, rng: np.random.Generator) -> _Course:
    """Choose a direction in which there is space, and a speed at which the first step meets no wall."""
    space = {
        way: (1 - 0.96 * thing.radius - at if sign > 0 else at - 0.96 * thing.radius)
        for way, (dx, dy) in DIRECTIONS.items()
        for at, sign in [(thing.x, dx) if dx else (thing.y, dy)]
    }
    ways = [way for way in DIRECTIONS if space[way] >= _CLEAR]
    if not ways:
        return course
    way = choose(rng, ways)
    speed = min(rng.uniform(*_PATH) / (course.end - course.first - 1), _FASTEST, 0.99 * space[way])
    aside = float(rng.uniform(-_ASIDE, _ASIDE)) * speed
    dx, dy = DIRECTIONS[way]
    velocity = (dx * speed, aside) if dx else (aside, dy * speed)
    return replace(course, direction=way, velocity=velocity)


def _scene_at(scene: Scene, courses: tuple[_Course, ...], frame: int) -> Scene:
    things = zip(scene.things, courses, strict=True)
    return replace(
        scene, things=tuple(course.at(thing, frame) for thing, course in things if course.holds(frame))
    )


def _all_seen(scene: Scene, courses: tuple[_Course, ...]) -> bool:
    """Whether every thing that does something shows in its first and last frame."""
    for frame in sorted({edge for course in courses for edge in (course.first, course.end - 1)}):
        there = [course for course in courses if course.holds(frame)]
        shares = visible_shares(_scene_at(scene, courses, frame).things)
        for course, share in zip(there, shares, strict=True):
            idle = course.direction is None and not course.spin and course.end - course.first == course.frames
            if not idle and frame in (course.first, course.end - 1) and share < _VISIBLE:
                return False
    return True


def _draw_windows(frames: int, rng: np.random.Generator) -> tuple[str | None, tuple[Window, ...]]:
    """Draw what the camera sees: everything, or a window that drifts one way."""
    if rng.random() >= DRIFTING:
        return None, (WHOLE,) * frames
    way = choose(rng, tuple(DIRECTIONS))
    dx, dy = DIRECTIONS[way]
    windows: list[Window] = []
    for share in np.linspace(-0.5, 0.5, frames).tolist():
        x0, y0 = (0.5 + share * dx) * _DRIFT, (0.5 + share * dy) * _DRIFT
        windows.append((x0, y0, x0 + 1 - _DRIFT, y0 + 1 - _DRIFT))
    return way, tuple(windows)


def _say(
    things: tuple[Thing, ...],
    events: list[Event],
    phrases: dict[EventKind, tuple[str, ...]],
    rng: np.random.Generator,
) -> str:
    """One clause for each thing that does something, and one for the camera."""
    clauses: list[str] = []
    for track in (*range(len(things)), None):
        own = sorted(
            (event for event in events if event.track == track),
            key=lambda event: (event.frame, _ORDER.index(event.kind)),
        )
        said = [choose(rng, phrases[event.kind]).format(way=event.direction) for event in own]
        if said and track is not None:
            noun = describe(things[track], ("colour", "shape")).noun()
            clauses.append(f"{with_article(noun)} {' and '.join(said)}")
        elif said:
            clauses.append(said[0])
    return " while ".join(clauses)
