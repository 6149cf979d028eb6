# SPDX-License-Identifier: Apache-2.0
"""One change to a scene, in words and as the scene that comes out.

An edit is decided by its arguments: ``apply_edit`` makes the same target from them as ``draw_edit`` did, so
that a model which gives the arguments is evaluated to the pixel. What does not change renders identically.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shapeworld.grid import WHOLE, Grid
from shapeworld.scene import Scene, Thing
from shapeworld.vocabulary import COLOURS, HELD_OUT, MATERIALS, SHAPES, Attribute
from shapeworld.words import (
    Phrasing,
    are_named_apart,
    check_choice,
    choose,
    place_phrase,
    with_article,
    words_of,
)

EditKind = Literal["remove", "add", "recolour", "replace", "move", "restyle"]
KINDS: tuple[EditKind, ...] = get_args(EditKind)

MAX_THINGS = 6
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
DISTANCES = {"short": 0.15, "long": 0.3}  # scene units
SIZES = {"small": 0.12, "large": 0.22}  # radius of a new thing, scene units
PLACES = {
    f"{row} {column}".strip(): (x, y)
    for (row, y), (column, x) in product(
        (("top", 0.24), ("", 0.5), ("bottom", 0.76)), (("left", 0.24), ("", 0.5), ("right", 0.76))
    )
    if row or column
} | {"middle": (0.5, 0.5)}

_TRAIN: dict[EditKind, tuple[str, ...]] = {
    "remove": ("remove {it}", "delete {it}", "erase {it}", "take away {it}"),
    "add": ("add {new} {place}", "draw {new} {place}", "put {new} {place}"),
    "recolour": ("make {it} {to}", "paint {it} {to}", "change {it} to {to}"),
    "replace": ("replace {it} with {to}", "turn {it} into {to}", "change {it} into {to}"),
    "move": ("move {it} {way}", "shift {it} {way}", "push {it} {way}"),
    "restyle": ("make {it} {to}", "make {it} look {to}", "change {it} to {to}"),
}
_HELD_OUT: dict[EditKind, tuple[str, ...]] = {
    "remove": ("get rid of {it}", "make {it} go away"),
    "add": ("place {new} {place}", "{place} add {new}"),
    "recolour": ("turn {it} {to}", "{it} should be {to}"),
    "replace": ("swap {it} for {to}", "make {it} {to}"),
    "move": ("slide {it} {way}", "{it} should go {way}"),
    "restyle": ("turn {it} {to}", "{it} should look {to}"),
}
_PHRASES: dict[Phrasing, dict[EditKind, tuple[str, ...]]] = {"train": _TRAIN, "held_out": _HELD_OUT}

CHANGED: Mapping[EditKind, Attribute] = {"recolour": "colour", "replace": "shape", "restyle": "material"}

_VISIBLE = 0.4  # share of a changed thing that must show
_RASTER = Grid.of_window(48, 48, WHOLE)

Arguments = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change, asked for and done.

    Attributes:
        kind: Kind of edit.
        instruction: In words; the thing is called by its colour and shape, which no other thing shares.
        args: The same as data. Always ``colour`` and ``shape`` of the thing; ``to`` (the new colour, shape or
            material) for recolour, replace and restyle; ``direction`` and ``distance`` for move; ``size``,
            ``material`` and ``place`` for add.
        source: The scene before.
        target: The scene after.
        subject: Place of the thing in ``source.things``, None when it is added.
        result: Place of the thing in ``target.things``, None when it is removed.
        seed: Seed for shade and pattern of an added thing.
    """

    kind: EditKind
    instruction: str
    args: Arguments
    source: Scene
    target: Scene
    subject: int | None
    result: int | None
    seed: int = 0

    def region(self, side: int | tuple[int, int] = 64) -> NDArray[np.bool_]:
        """Return every pixel that the thing touches before or after, soft edge and hidden parts included.

        No other pixel differs between source and target.

        Args:
            side: Size of the image in pixels: one number, or height and width.

        Returns:
            ``(H, W)`` bool.
        """
        height, width = (side, side) if isinstance(side, int) else side
        grid = Grid.of_window(height, width, WHOLE)
        seen = ((self.source, self.subject), (self.target, self.result))
        masks = [scene.things[place].paint(grid).cover > 0 for scene, place in seen if place is not None]
        return np.logical_or.reduce(masks)


def draw_edit(
    scene: Scene,
    rng: np.random.Generator,
    kind: EditKind | None = None,
    *,
    phrasing: Phrasing = "train",
    allow_held_out: bool = False,
) -> Edit:
    """Choose a change that can be done and seen.

    Afterwards colour and shape still identify every thing, what moved or came is inside the image, and it
    hides no other thing for the most part.

    Args:
        scene: The scene before.
        rng: Random generator.
        kind: Kind of edit; any possible one if ``None``.
        phrasing: Which instructions to use; those of ``held_out`` never occur in ``train``.
        allow_held_out: Whether the change may make a (colour, shape) pair of ``vocabulary.HELD_OUT``.

    Returns:
        The change.

    Raises:
        ValueError: If no change of this kind is possible, as adding to a full scene, or a word is unknown.
    """
    check_choice("phrasing", phrasing, _PHRASES)
    if kind is not None:
        check_choice("kind", kind, KINDS)
    kinds: list[EditKind] = [KINDS[i] for i in rng.permutation(len(KINDS))] if kind is None else [kind]
    for each in kinds:
        options = _OPTIONS[each](scene, rng)
        for i in rng.permutation(len(options)):
            args, seed = options[i], int(rng.integers(2**31))
            things, subject, result = _change(scene, each, args, seed)
            if _is_fine(scene.things, things, subject, result, allow_held_out):
                text = _say(each, args, _PHRASES[phrasing][each], rng)
                return Edit(
                    kind=each,
                    instruction=text,
                    args=args,
                    source=scene,
                    target=replace(scene, things=things),
                    subject=subject,
                    result=result,
                    seed=seed,
                )
    raise ValueError(f"kind must be possible in the scene, got {kind} and {len(scene.things)} things")


def apply_edit(scene: Scene, kind: EditKind, args: Arguments, *, seed: int = 0) -> Scene:
    """Do what arguments say, whether or not ``draw_edit`` would have chosen it.

    Args:
        scene: The scene before.
        kind: Kind of edit.
        args: Arguments as in ``Edit.args``.
        seed: Seed for shade and pattern of an added thing.

    Returns:
        The scene after.

    Raises:
        ValueError: If the scene does not hold the thing, an argument lacks or is not a known word, or two
            things would share colour and shape.
    """
    check_choice("kind", kind, KINDS)
    try:
        things, _, _ = _change(scene, kind, args, seed)
    except KeyError as error:
        raise ValueError(f"args of {kind} must hold known words, got {dict(args)}") from error
    if not are_named_apart(things):
        raise ValueError(f"args must leave colour and shape unique, got {dict(args)}")
    return replace(scene, things=things)


Changed = tuple[tuple[Thing, ...], int | None, int | None]


def _change(scene: Scene, kind: EditKind, args: Arguments, seed: int) -> Changed:
    """Return the things afterwards, and the place of the thing before and after.

    Raises:
        KeyError: If an argument lacks or is not a known word.
        ValueError: If the scene does not hold the thing.
    """
    things = scene.things
    if kind == "add":
        x, y = PLACES[args["place"]]
        new = scene.new_thing(args, x=x, y=y, radius=SIZES[args["size"]], seed=seed)
        return (*things, new), None, len(things)
    pairs = [(thing.colour, thing.shape) for thing in things]
    pair = (args["colour"], args["shape"])
    if pair not in pairs:
        raise ValueError(f"args must name a thing of the scene, got {' '.join(pair)} and {pairs}")
    subject = pairs.index(pair)
    before, after = things[:subject], things[subject + 1 :]
    if kind == "remove":
        return (*before, *after), subject, None
    return (*before, _alter(scene, things[subject], kind, args), *after), subject, subject


def _alter(scene: Scene, thing: Thing, kind: EditKind, args: Arguments) -> Thing:
    if kind == "move":
        dx, dy = DIRECTIONS[args["direction"]]
        step = DISTANCES[args["distance"]]
        return replace(thing, x=thing.x + dx * step, y=thing.y + dy * step)
    if args["to"] not in scene.values[CHANGED[kind]]:
        raise KeyError(args["to"])
    return thing.changed(CHANGED[kind], args["to"])


def _is_fine(
    source: tuple[Thing, ...],
    target: tuple[Thing, ...],
    subject: int | None,
    result: int | None,
    allow_held_out: bool,
) -> bool:
    """Whether words still distinguish the things, and what changed shows and hides no other thing."""
    if not are_named_apart(target):
        return False
    if result is None:
        return True
    old, new = None if subject is None else source[subject], target[result]
    pair = (new.colour, new.shape)
    if not allow_held_out and pair in HELD_OUT and (old is None or pair != (old.colour, old.shape)):
        return False
    if old is not None and (old.x, old.y, old.shape) == (new.x, new.y, new.shape):
        return True
    margin = 0.96 * new.radius  # as of things that are drawn
    inside = margin <= new.x <= 1 - margin and margin <= new.y <= 1 - margin
    stays = old is not None and (old.x, old.y) == (new.x, new.y)
    if not (inside or stays):
        return False
    before, after = visible_shares(source), visible_shares(target)
    others = [
        after[i] >= min(_VISIBLE, before[i]) for i in range(min(len(source), len(target))) if i != result
    ]
    return bool(after[result] >= _VISIBLE) and all(others)


def visible_shares(things: tuple[Thing, ...]) -> list[float]:
    """Return how much of each thing shows, as a share of what would show of it alone, in [0, 1]."""
    shares: list[float] = []
    free = np.ones(_RASTER.shape, dtype=np.bool_)
    for thing in reversed(things):
        full = thing.distance(_RASTER.x, _RASTER.y) < 0
        shares.append(float(np.count_nonzero(full & free) / max(np.count_nonzero(full), 1)))
        free &= ~full
    return shares[::-1]


def _name(thing: Thing) -> dict[str, str]:
    return {"colour": thing.colour, "shape": thing.shape}


def _remove_options(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
    return [_name(thing) for thing in scene.things]


def _add_options(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
    if len(scene.things) >= MAX_THINGS:
        return []
    return [{"size": size, **scene.draw_looks(rng), "place": place} for size, place in product(SIZES, PLACES)]


def _move_options(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
    return [
        _name(thing) | {"direction": direction, "distance": length}
        for thing, direction, length in product(scene.things, DIRECTIONS, DISTANCES)
    ]


def _to_options(attribute: Attribute) -> Callable[[Scene, np.random.Generator], list[dict[str, str]]]:
    def options(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
        every = product(scene.things, scene.values[attribute])
        return [_name(thing) | {"to": word} for thing, word in every if getattr(thing, attribute) != word]

    return options


_OPTIONS: dict[EditKind, Callable[[Scene, np.random.Generator], list[dict[str, str]]]] = {
    "remove": _remove_options,
    "add": _add_options,
    "recolour": _to_options("colour"),
    "replace": _to_options("shape"),
    "move": _move_options,
    "restyle": _to_options("material"),
}


def _way(direction: str, length: str) -> str:
    way = f"to the {direction}" if direction in ("left", "right") else direction
    return f"a little {way}" if length == "short" else way


def _say(kind: EditKind, args: Arguments, phrases: tuple[str, ...], rng: np.random.Generator) -> str:
    it = " ".join(word for word in ("the", args["colour"], args["shape"]) if word)
    words = {"it": it, "to": args.get("to", "")}
    if kind == "replace":
        words["to"] = with_article(words["to"])
    if kind == "add":
        look = (args["size"], args["material"], args["colour"], args["shape"])
        words |= {"new": " ".join(("a", *filter(None, look))), "place": place_phrase(args["place"])}
    if kind == "move":
        words["way"] = _way(args["direction"], args["distance"])
    return choose(rng, phrases).format(**words)


WORDS = frozenset({*COLOURS, *SHAPES, *MATERIALS, *SIZES}) | words_of(
    *(phrase for table in _PHRASES.values() for group in table.values() for phrase in group),
    *map(place_phrase, PLACES),
    *(_way(direction, length) for direction, length in product(DIRECTIONS, DISTANCES)),
    "the a",
)
