# SPDX-License-Identifier: Apache-2.0
"""Messages about things that the small world does not have, whose names the model must copy into its calls.

Their masks are left out: only the words of a call can be learnt where the image shows another object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from zlib import crc32

import numpy as np
from photoworld.manifest import Manifest
from shapeworld import scene_rng
from shapeworld.words import Phrasing, choose, with_article
from torchvision.models import ResNet18_Weights
from vitron.demo.painters.words import SHAPES
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.messages import Message, TextPart
from vitron.specialists.words import COLOURS

from recipes.vitron_tiny.composing import Composer, Drawn, Step, call, listed
from recipes.vitron_tiny.conversations import draw_turns
from recipes.vitron_tiny.editing import WAYS
from recipes.vitron_tiny.generation import DRAWN, FILMED
from recipes.vitron_tiny.scenes import Draw, Split
from recipes.vitron_tiny.tasks import draw_task
from recipes.vitron_tiny.wordings import DRAW, FILM, worded

__all__ = ["draw_copied", "draw_named", "names"]

EVERYDAY = """
    dog cat man woman person child boy girl bird horse cow sheep fish car bus train bike boat tree
    flower leaf house door window roof chair table lamp book bottle cup plate hat shirt shoe bag
    face hand sky cloud road bridge hill river beach fence sign phone clock apple
"""
QUALITIES = """
    old new big little tall short young wooden metal open closed last broken wet dry empty full
    shiny dark bright sleeping running second standing sitting smiling flying parked nearest
    farthest brown
"""
RELATIONS = (
    "next to the, behind the, in front of the, on the, in the, under the, near the, at the, with the, "
    "beside the, holding the, against the, between the two, over the, facing the"
)
BASES = (
    *("referring_segmentation",) * 4,
    *("editing",) * 3,
    *("tracking", "image_to_video", "text_to_image", "text_to_video", "chains", "video_editing"),
    *("conversation",) * 4,
)
# syllables of words that do not exist: such a word can only be copied
ONSETS = "b c d f g h j k l m n p qu r s t v w x y z br cr dr fl gr kr pl sh sl sp st th tr"
NUCLEI = "a e i o u ai ea ie oo ou"
CODAS = "n r s t l m p ck nd st x"
OPEN = 0.4  # share of the syllables that end with their vowel
INVENTED, COPIED_INVENTED = 0.4, 0.7  # shares of the names of training that do not exist
HELD_OUT_SHARE = 10  # one name in so many is for evaluation alone
WITH_COLOUR = 0.5  # share of the names that keep the colour: the red duck
QUALIFIED, RELATED = 0.2, 0.15  # shares of the names with a quality and with a relation
_PURPOSE, _ATTEMPTS = 73, 1000
_SHAPE = re.compile(rf"\b({'|'.join(SHAPES)})\b")
# other words for a shape would stay as they are
_REWORDED = re.compile(r"\b(disc|disk|ball|round|circular|box|rectangle|triangular|plus|shape|pointed)\b")
_PLURAL = re.compile(rf"\b({'|'.join(SHAPES)})(s|es)\b")


@cache
def names(phrasing: Phrasing = "train") -> tuple[str, ...]:
    """Return nouns of one or two words: everyday ones and the classes of ImageNet.

    Those that photoworld judges by are in neither set.
    """
    judged = {
        each.name.lower()
        for each in Manifest.read().pictures
        if each.kind == "cutout" and each.split != "train"
    }
    known = {*COLOURS, *SHAPES}
    found = sorted(
        {*EVERYDAY.split(), *(name.lower() for name in ResNet18_Weights.IMAGENET1K_V1.meta["categories"])}
    )
    return tuple(
        name
        for name in found
        if re.fullmatch(r"[a-z]+( [a-z]+)?", name)
        and not known & set(name.split())
        and not judged & {name, *name.split()}
        and (crc32(name.encode()) % HELD_OUT_SHARE == 0) is (phrasing == "held_out")
    )


def draw_named(seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train") -> Drawn:
    """Draw a turn or a conversation in which one kind of shape has the name of another thing.

    Args:
        seed: Random seed of the world.
        index: Number of the example.
        split: Split of the scenes.
        phrasing: Wording of the user messages, and set of the names.
    """
    for attempt in range(_ATTEMPTS):
        rng = scene_rng(seed, index, _PURPOSE, attempt)
        task, number = choose(rng, BASES), index * _ATTEMPTS + attempt
        if task == "conversation":
            turns = draw_turns(seed, number, split=split, phrasing=phrasing)
            if any(each.form == "other" for each in turns):  # what the other one is only the image tells
                continue
            drawn = turns[-1]
        else:
            drawn = draw_task(task, seed, number, split=split, phrasing=phrasing)
        found = _renamed(drawn, rng, _draw_name(rng, phrasing))
        if found is not None:
            return found
    raise RuntimeError(f"no named thing in {_ATTEMPTS} attempts")


def draw_copied(seed: int, index: int, *, phrasing: Phrasing = "train") -> Drawn:
    """Draw a request for an image or a video of things of any name, most of them invented; text alone.

    To copy a word letter by letter is a skill of its own, which a small model learns within some thousand
    examples of this kind, and hardly at all where one word of many is foreign.

    Args:
        seed: Random seed of the world.
        index: Number of the example.
        phrasing: Wording of the user message, and set of the names.
    """
    rng = scene_rng(seed, index, _PURPOSE + 2)
    draw = Draw(seed=seed, number=index, rng=rng, split="train", phrasing=phrasing, side=64)
    things = [with_article(_draw_name(rng, phrasing, COPIED_INVENTED)) for _ in range(draw.pick(1, 1, 2, 3))]
    is_image = draw.chance(0.6)
    text = listed(things) if is_image else f"{things[0]} moving {WAYS[draw.pick(*WAYS)]}"
    state, module = Composer(), "text_to_image" if is_image else "text_to_video"
    state.add(
        Step(
            task=module,
            text=worded(draw, DRAW if is_image else FILM, things=text),
            reply=DRAWN if is_image else FILMED,
            calls=(call(module, ("generate", text)),),
        )
    )
    return state.drawn()


def _invented(rng: np.random.Generator) -> str:
    """Draw a word that does not exist, of one to three syllables."""
    syllables = [
        choose(rng, ONSETS.split())
        + choose(rng, NUCLEI.split())
        + ("" if rng.random() < OPEN else choose(rng, CODAS.split()))
        for _ in range(choose(rng, (1, 2, 2, 3)))
    ]
    return "".join(syllables)


def _draw_noun(rng: np.random.Generator, phrasing: Phrasing, invented: float) -> str:
    if phrasing == "train" and rng.random() < invented:
        return _invented(rng)
    return choose(rng, names(phrasing))


def _draw_name(rng: np.random.Generator, phrasing: Phrasing, invented: float = INVENTED) -> str:
    """Draw a noun phrase: the old lamp near the door."""
    name = _draw_noun(rng, phrasing, invented)
    if rng.random() < QUALIFIED:
        name = f"{choose(rng, QUALITIES.split())} {name}"
    if rng.random() < RELATED:
        name = f"{name} {choose(rng, RELATIONS.split(', '))} {_draw_noun(rng, phrasing, invented)}"
    return name


def _renamed(drawn: Drawn, rng: np.random.Generator, name: str) -> Drawn | None:
    """Return the example with another name for its one kind of shape; ``None`` if it does not have one."""
    messages = drawn.example.messages
    said = [each.text for message in messages for call in message.calls for each in call.instruction]
    asked = " ".join(message.text for message in messages if message.role == "user")
    answered = " ".join(message.text for message in messages if message.role == "assistant")
    kinds = set(_SHAPE.findall(" ".join([*said, asked])))
    if len(kinds) != 1 or _SHAPE.search(answered) or _REWORDED.search(asked):
        return None
    if _PLURAL.search(" ".join([*said, asked, answered])):
        return None
    (shape,) = kinds
    count = sum(len(re.findall(rf"\b{shape}\b", text)) for text in said)
    if not count or shape not in asked:
        return None
    colours = set(re.findall(rf"(\w+) {shape}\b", " ".join(said))) & set(COLOURS)
    words = rf"{shape}"
    if len(colours) == 1 and rng.random() >= WITH_COLOUR:
        (colour,) = colours
        words = rf"{colour} {shape}"
        if asked.count(words) != asked.count(shape) or " ".join(said).count(words) != count:
            return None
    change = _change(words, name)
    example = replace(
        drawn.example, messages=tuple(_with(each, change) for each in messages), masks={}, mask_media={}
    )
    return replace(drawn, example=example)


def _change(words: str, name: str) -> Callable[[str], str]:
    """Return the exchange of words in a text, with the article that fits."""

    def change(text: str) -> str:
        text = re.sub(rf"\b{words}\b", name, text)
        return re.sub(rf"\b([Aa])n? {name}\b", rf"\1{'n' if name[0] in 'aeiou' else ''} {name}", text)

    return change


def _with(message: Message, change: Callable[[str], str]) -> Message:
    """Return a message with its texts changed."""
    content = tuple(
        each.model_copy(update={"text": change(each.text)}) if isinstance(each, TextPart) else each
        for each in message.content
    )
    return message.model_copy(update={"content": content, "calls": _calls(message.calls, change)})


def _calls(calls: Sequence[Invocation], change: Callable[[str], str]) -> tuple[Invocation, ...]:
    def said(each: Instruction) -> Instruction:
        return each.model_copy(update={"text": change(each.text)})

    return tuple(
        call.model_copy(update={"instruction": tuple(said(each) for each in call.instruction)})
        for call in calls
    )
