# SPDX-License-Identifier: Apache-2.0
"""What the model is trained on: the scenes of the pool, and true sentences about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool
from typing import Literal

import numpy as np
import photoworld
from common_kernels.runtime.cli import OutputPath, say
from numpy.typing import NDArray
from shapeworld import Scene, SceneConfig, Split, draw_scene, render, scene_rng
from shapeworld.captions import WORDS as CAPTION_WORDS
from shapeworld.captions import background_phrase, caption
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES, Attribute
from shapeworld.words import ATTRIBUTES, Phrasing, choose, describe, shuffled, with_article, words_of

from recipes.options import Debug

SIDE = 64  # pixels
MAX_THINGS = 3
MIXED = SceneConfig(num_things=(0.5, 0.3, 0.2))
SINGLE = SceneConfig(num_things=(1.0,))
# of the scenes show the ground alone, or its names would only ever be heard together with a thing
BARE_SHARE = 0.04
VALUES: dict[Attribute, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS}

# loose captions leave attributes out; every name is then heard alone, as a user of the model will say it
_LOOSE = ("{}", "a photo of {}", "a picture of {}", "there is {}", "this picture shows {}")
SOME_THINGS_SHARE = 0.2  # of the loose captions pass over some of the things
GROUND_SHARE = 0.35  # of the loose captions name the ground
WORDS = tuple(sorted(CAPTION_WORDS | words_of(*_LOOSE) | {"thing", "things"}))

# independent streams of one scene; the world itself uses the numbers up to 4
_BARE_STREAM = 101
ANY = -1  # nothing is said about this
_COLOUR = ATTRIBUTES.index("colour")


def pool_scene(seed: int, index: int, *, split: Split = "train", config: SceneConfig = MIXED) -> Scene:
    """Return scene ``index`` of a pool; a small share are bare grounds."""
    scene = draw_scene(seed, index, split=split, config=config)
    if scene_rng(seed, index, _BARE_STREAM).random() < BARE_SHARE:
        scene = replace(scene, things=())
    return scene


def composite(seed: int, index: int) -> Scene:
    """Return composite ``index`` of a pool: training cut-outs over a training photograph."""
    return photoworld.draw_scene(seed, index, config=MIXED)


def coloured(scene: Scene) -> Scene:
    """Return what of a composite the vocabulary has words for: its things of one of the colours."""
    return replace(scene, things=tuple(thing for thing in scene.things if thing.colour in COLOURS))


def strict_caption(scene: Scene, rng: np.random.Generator, phrasing: Phrasing = "train") -> str:
    """Return a short or medium caption that names every thing by colour and shape at least."""
    if not scene.things:
        return choose(rng, _LOOSE).format(background_phrase(scene))
    return caption(scene, rng, length=choose(rng, ("short", "medium")), phrasing=phrasing)


def loose_caption(
    scene: Scene, rng: np.random.Generator, *, attributes: Sequence[Attribute] = ATTRIBUTES
) -> str:
    """Return a true caption that says of each thing some of its attributes: ``"a dotted thing on tiles"``.

    Args:
        scene: Scene that the image shows.
        rng: Stream that the caption is drawn from.
        attributes: Those that may be named.
    """
    things = shuffled(rng, scene.things)
    if len(things) > 1 and rng.random() < SOME_THINGS_SHARE:
        things = things[: 1 + int(rng.integers(len(things) - 1))]
    if not things:
        return strict_caption(scene, rng)
    phrases: list[str] = []
    for thing in things:
        named = 1 + int(rng.integers(2 ** len(attributes) - 1))  # a non-empty subset, as bits
        phrase = describe(thing, [name for i, name in enumerate(attributes) if named >> i & 1]).noun()
        phrases.append(with_article(phrase))
    text = choose(rng, _LOOSE).format(" and ".join(phrases))
    return f"{text} on {background_phrase(scene)}" if rng.random() < GROUND_SHARE else text


@dataclass(frozen=True, slots=True)
class Facts:
    """What images show or sentences claim, as numbers.

    Attributes:
        things: ``(B, MAX_THINGS, 3)`` int64, the place of shape, colour and material in their vocabulary, or
            ``ANY``.
        count: ``(B,)`` int64, things shown or spoken of; the rest of a row means nothing.
        ground: ``(B,)`` int64, place of the background or ``ANY``.
    """

    things: NDArray[np.int64]
    count: NDArray[np.int64]
    ground: NDArray[np.int64]


def shown(scenes: list[Scene], grey: NDArray[np.bool_] | None = None) -> Facts:
    """Return what images of scenes show.

    Args:
        scenes: ``B`` scenes.
        grey: ``(B,)``, images without colour; none if ``None``.
    """
    facts = _nothing(len(scenes))
    for row, scene in enumerate(scenes):
        facts.count[row] = len(scene.things)
        facts.ground[row] = _place(scene.background.kind, BACKGROUNDS)
        for i, thing in enumerate(scene.things):
            facts.things[row, i] = [_place(getattr(thing, name), VALUES[name]) for name in ATTRIBUTES]
    if grey is not None:
        facts.things[grey, :, _COLOUR] = ANY
    return facts


def claimed(texts: list[str]) -> Facts:
    """Return what captions claim, read from their words."""
    facts = _nothing(len(texts))
    for row, text in enumerate(texts):
        for phrase in text.split(" and "):
            words = phrase.split()
            for word in words:
                if word in BACKGROUNDS:
                    facts.ground[row] = BACKGROUNDS.index(word)
            if _HEADS.intersection(words):
                i = facts.count[row]
                for a, name in enumerate(ATTRIBUTES):
                    facts.things[row, i, a] = next(
                        (VALUES[name].index(word) for word in words if word in VALUES[name]), ANY
                    )
                facts.count[row] += 1
    return facts


_HEADS = frozenset({*SHAPES, "thing"})


def _place(word: str, words: Sequence[str]) -> int:
    return words.index(word) if word in words else ANY


def _nothing(rows: int) -> Facts:
    return Facts(
        np.full((rows, MAX_THINGS, 3), ANY, dtype=np.int64),
        np.zeros(rows, dtype=np.int64),
        np.full(rows, ANY, dtype=np.int64),
    )


def true_of(claims: Facts, sights: Facts) -> NDArray[np.bool_]:
    """Return ``(texts, images)``: whether a caption could have been said of an image.

    Every phrase must match some thing (two phrases may match the same one), no more things may be claimed
    than are shown, and the ground must be the same if it is named.
    """
    said, seen = _one_hot(claims), _one_hot(sights)
    named = said.sum(axis=-1)  # (texts, phrases)
    hits = (said.reshape(-1, said.shape[-1]) @ seen.reshape(-1, seen.shape[-1]).T).reshape(
        *named.shape, *seen.shape[:2]
    )  # (texts, phrases, images, things), attributes in common
    # places without a thing have nothing in common with a phrase, and every phrase names something
    matched = (hits == named[..., None, None]).any(axis=-1)  # (texts, phrases, images)
    unsaid = np.arange(MAX_THINGS) >= claims.count[:, None]  # (texts, phrases)
    matched = (matched | unsaid[..., None]).all(axis=1)  # (texts, images)
    ground = (claims.ground[:, None] == ANY) | (claims.ground[:, None] == sights.ground)
    return matched & ground & (claims.count[:, None] <= sights.count)


def betrayed_by_colour(claims: Facts, grey: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return ``(texts, images)``: whether colour alone may tell that a caption without colours is false.

    In training scenes some colours never meet some shapes. Where the image has a colour and the caption
    names none, a model learns these gaps in place of shapes, and denies the first thing of a new pair that
    it meets. So such captions are compared with grey images only, whatever the colours and shapes.

    Args:
        claims: What the captions claim.
        grey: ``(images,)``, images without colour.
    """
    colourless = (claims.things[..., _COLOUR] == ANY).all(axis=-1) & (claims.count > 0)
    return colourless[:, None] & ~grey


def _one_hot(facts: Facts) -> NDArray[np.float32]:
    """Return ``(B, MAX_THINGS, names of all attributes)``, ones for what is shown or said."""
    starts = np.cumsum([0, *(len(VALUES[name]) for name in ATTRIBUTES)])
    places = np.where(facts.things == ANY, starts[-1], facts.things + starts[:3])
    return np.eye(starts[-1] + 1, starts[-1], dtype=np.float32)[places].sum(axis=2)


def _render(draw: Callable[[int, int], Scene], seed: int, index: int) -> NDArray[np.uint8]:
    return render(draw(seed, index), SIDE).image


def pool(
    *,
    output: OutputPath,
    count: int = 160_000,
    seed: int = 3,
    world: Literal["drawn", "photo"] = "drawn",
    processes: int = 2,
    debug: Debug = Debug(),
) -> None:
    """Render the training scenes once, ``(count, 64, 64, 3)`` uint8; training draws the captions.

    Args:
        output: File to write, .npy.
        count: Number of scenes.
        seed: Random seed of the scenes.
        world: Drawn scenes, or composites of photographs, which 'photoworld fetch' has to have fetched.
        processes: Number of processes that render.
    """
    draw = pool_scene if world == "drawn" else composite
    partial_file = output.with_suffix(".part")
    images = np.lib.format.open_memmap(partial_file, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE, 3))
    with Pool(processes) as workers:
        for i, image in enumerate(workers.imap(partial(_render, draw, seed), range(count), chunksize=200)):
            images[i] = image
    images.flush()
    partial_file.replace(output)
    say(f"{output}: {count} scenes of seed {seed}")
