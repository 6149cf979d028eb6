# SPDX-License-Identifier: Apache-2.0
"""Conversations of several turns on one image, with small talk and new images between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from shapeworld import scene_rng
from shapeworld.referring import KINDS, refer
from shapeworld.words import MARGIN, Phrasing, choose, with_article
from vitron.data.example import Example
from vitron.protocol.messages import MediaPart, Message, Part, RegionPart

from recipes.vitron_tiny import images, prompts
from recipes.vitron_tiny.composing import call, example, listed, user_text
from recipes.vitron_tiny.scenes import Draw, View, draw_style, full_noun, noun, scene_of, view
from recipes.vitron_tiny.tasks import Split, draw_example

__all__ = ["draw_conversation", "join"]

_PURPOSE = 72  # first number of the random stream
_ATTEMPTS = 1000
_BETWEEN = (
    *("no_call", "no_call", "text_to_image", "editing", "question", "referring_segmentation", "tracking"),
)


def _caption(draw: Draw, shown: View) -> Example | None:
    things = sorted(shown.scene.things, key=lambda thing: thing.x)
    if any(after.x - before.x < MARGIN for before, after in pairwise(things)):
        return None
    said = listed([with_article(noun(thing)) for thing in things])
    return example("caption", user_text(draw, prompts.CAPTION, "?"), f"{said}.", view=shown)


def _referring(draw: Draw, shown: View) -> Example | None:
    reference = refer(shown.scene, draw.rng, kind=choose(draw.rng, KINDS))
    if reference is None:
        return None
    phrase = reference.expression.phrase()
    return example(
        "referring_segmentation",
        user_text(draw, prompts.SEGMENT, thing=phrase),
        "here it is.",
        call("image_segmentation", ("segment", phrase)),
        view=shown,
        masks={0: shown.masks[reference.target]},
    )


def _region(draw: Draw, shown: View) -> Example | None:
    target = int(draw.rng.integers(len(shown.scene.things)))
    mask = shown.masks[target, 0]
    region, _ = images.prompt_mask(draw, mask)
    if draw.chance(0.5):
        said = f"{with_article(full_noun(shown.scene.things[target]))}."
        return example(
            "region_caption", user_text(draw, prompts.REGION, "?"), said, view=shown, region=region
        )
    return example(
        "sketch_segmentation",
        user_text(draw, prompts.SEGMENT, thing="this"),
        "here it is.",
        call("image_segmentation", ("segment", "this")),
        view=shown,
        region=region,
        masks={0: mask[None]},
    )


_TURNS: tuple[Callable[[Draw, View], Example | None], ...] = (_caption, _referring, _referring, _region)


def draw_conversation(
    seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train", side: int = 64
) -> Example:
    """Draw one conversation of two or three turns.

    Args:
        seed: Random seed of the world.
        index: Number of the conversation.
        split: Split of the scenes.
        phrasing: Wording of the user message.
        side: Side of images in pixels.
    """
    for attempt in range(_ATTEMPTS):
        rng = scene_rng(seed, index, _PURPOSE, attempt)
        number = (index * _ATTEMPTS + attempt) * 997
        draw = Draw(seed=seed, number=number, rng=rng, split=split, phrasing=phrasing, side=side)
        style = draw_style(draw)
        shown = view(draw, scene_of(draw, plain=style == "flat"), style)
        if shown is None:
            continue
        count = 2 + int(draw.chance(0.4))
        turns = [choose(rng, _TURNS)(draw, shown) for _ in range(count)]
        if any(turn is None for turn in turns):
            continue
        parts = [turn for turn in turns if turn is not None]
        if draw.chance(0.4):
            task = choose(rng, _BETWEEN)
            other = draw_example(task, seed, index, split=split, phrasing=phrasing, side=side)
            # after a new image, messages refer to the new one only
            parts.insert(len(parts) if other.media else int(rng.integers(1, len(parts) + 1)), other)
        return join(parts)
    raise RuntimeError(f"no conversation in {_ATTEMPTS} attempts")


def join(turns: Sequence[Example]) -> Example:
    """Make one conversation of several; an image that was shown before is not shown again."""
    media, regions, messages = [], [], list[Message]()
    masks, mask_media, calls = {}, {}, 0
    for turn in turns:
        known = {
            number: next((at for at, seen in enumerate(media) if seen.data is each.data), None)
            for number, each in enumerate(turn.media)
        }
        places = dict[int, int]()
        for number, each in enumerate(turn.media):
            at = known[number]
            if at is None:
                at = len(media)
                media.append(each)
            places[number] = at
        first = len(regions)
        regions += [replace(region, media=places[region.media]) for region in turn.regions]
        for message in turn.messages:
            content = list[Part]()
            for part in message.content:
                if isinstance(part, MediaPart):
                    if known[part.media] is None:
                        content.append(MediaPart(media=places[part.media]))
                elif isinstance(part, RegionPart):
                    content.append(RegionPart(region=first + part.region))
                else:
                    content.append(part)
            messages.append(message.model_copy(update={"content": tuple(content)}))
        masks |= {calls + number: mask for number, mask in turn.masks.items()}
        mask_media |= {calls + number: places[turn.mask_media.get(number, 0)] for number in turn.masks}
        calls += sum(len(message.calls) for message in turn.messages)
    return Example(
        task="conversation",
        messages=tuple(messages),
        media=tuple(media),
        regions=tuple(regions),
        masks=masks,
        mask_media=mask_media,
    )
