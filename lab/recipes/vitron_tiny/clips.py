# SPDX-License-Identifier: Apache-2.0
"""Examples about one clip: question, span, tracking, and new colours for things and background."""

from __future__ import annotations

import numpy as np
from shapeworld.videos import Video
from shapeworld.words import unique_descriptions
from vitron.data.example import Example

from recipes.vitron_tiny.phrases import CHANGES, COUNT, EVENT, MOVES, RECOLOUR, SPAN, TRACK, WAY
from recipes.vitron_tiny.pictures import prompt_mask
from recipes.vitron_tiny.wording import call, example, say
from recipes.vitron_tiny.worlds import TINTS, Draw, any_style, clip_of, film, noun

FOLLOWED = "I follow it."
NUMBERS = ("zero", "one", "two", "three", "four")


def video_question(draw: Draw) -> Example | None:
    """Ask for one word about a clip."""
    style = any_style(draw)
    clip = clip_of(draw, style)
    kind = draw.pick("way", "moves", "changes", "count")
    made = {"way": _way, "moves": _moves, "changes": _changes, "count": _count}[kind](draw, clip)
    shown = None if made is None else film(draw, clip, style)
    if made is None or shown is None:
        return None
    text, answer = made
    return example("video_question", text, answer, view=shown, group=kind)


Asked = tuple[str, str] | None


def _way(draw: Draw, clip: Video) -> Asked:
    ways = {event.track: event.direction for event in clip.events if event.kind == "moves"}
    # on the way back from a wall there is no one direction
    ways = {track: way for track, way in ways.items() if not _happens(clip, "bounces", track)}
    if not ways:
        return None
    track, way = draw.pick(*sorted(ways.items(), key=str))
    return say(draw, WAY, "?", thing=f"the {noun(clip.things[track or 0])}"), str(way)


def _happens(clip: Video, kind: str, track: int | None = None) -> bool:
    return any(event.kind == kind and track in (None, event.track) for event in clip.events)


def _moves(draw: Draw, clip: Video) -> Asked:
    wanted = draw.chance(0.5)
    tracks = [
        track
        for track in range(len(clip.things))
        if _happens(clip, "moves", track) is wanted and not _happens(clip, "turns", track)
    ]
    if not tracks:
        return None
    return say(
        draw, MOVES, "?", thing=f"the {noun(clip.things[draw.pick(*tracks)])}"
    ), "yes" if wanted else "no"


def _changes(draw: Draw, clip: Video) -> Asked:
    verb, wanted = draw.pick("appear", "disappear"), draw.chance(0.5)
    if _happens(clip, f"{verb}s") is not wanted:
        return None
    return say(draw, CHANGES, "?", verb=verb), "yes" if wanted else "no"


def _count(draw: Draw, clip: Video) -> Asked:
    end = draw.pick("first", "last")
    return say(draw, COUNT, "?", end=end), NUMBERS[int(clip.present[0 if end == "first" else -1].sum())]


def span_grounding(draw: Draw) -> Example | None:
    """Say in which frames a thing is there, or when it comes or goes."""
    style = any_style(draw)
    clip = clip_of(draw, style)
    guests = [event for event in clip.events if event.kind in ("appears", "disappears")]
    # a thing that is always there is asked for too, but not as often as there are such
    if not guests and draw.chance(0.8):
        return None
    shown = film(draw, clip, style)
    if shown is None:
        return None
    track = (guests[0].track or 0) if guests else int(draw.rng.integers(len(clip.things)))
    thing = f"the {noun(clip.things[track])}"
    if guests and draw.chance(0.4):
        text, reply = (
            say(draw, EVENT, "?", thing=thing, verb=guests[0].kind[:-1]),
            f"in frame {guests[0].frame}.",
        )
        group = "event"
    else:
        there = np.flatnonzero(clip.present[:, track])
        text, reply = say(draw, SPAN, "?", thing=thing), f"in frames {there[0]} to {there[-1]}."
        group = "span"
    return example("span_grounding", text, reply, view=shown, group=group)


def tracking(draw: Draw) -> Example | None:
    """Follow one thing, by words or from where it is in the first frame."""
    style = any_style(draw)
    clip = clip_of(draw, style)
    shown = film(draw, clip, style)
    if shown is None:
        return None
    track = int(draw.rng.integers(len(clip.things)))
    masks = shown.masks[track]
    if draw.chance(0.15) and clip.present[0, track]:
        region, _ = prompt_mask(draw, masks[0])
        follow = call("video_segmentation", ("track", "this"))
        text = say(draw, TRACK, thing="this")
        return example(
            "tracking",
            text,
            "I follow it.",
            follow,
            view=shown,
            region=region,
            masks={0: masks},
            group="region",
        )
    # a material is hard to see in motion: it is named only where nothing else tells the thing
    short = [one for one in unique_descriptions(shown.scene, track) if one.material is None and one.named()]
    phrase = f"the {draw.pick(*short).noun()}" if draw.chance(0.4) else f"the {noun(clip.things[track])}"
    follow = call("video_segmentation", ("track", phrase))
    text = say(draw, TRACK, thing=phrase)
    return example("tracking", text, FOLLOWED, follow, view=shown, masks={0: masks}, group="words")


def video_editing(draw: Draw) -> Example | None:
    """Give things and background new colours."""
    clip = clip_of(draw, "flat")
    front, back = draw.pick(*TINTS), draw.pick(*TINTS)
    # a frame without things has no foreground
    if (
        not clip.present.any(axis=1).all()
        or front == back
        or {front} == {thing.colour for thing in clip.things}
    ):
        return None
    shown = film(draw, clip, "flat")
    if shown is None:
        return None
    edit = call("video_editing", ("foreground", front), ("background", back))
    return example(
        "video_editing",
        say(draw, RECOLOUR, front=front, back=back),
        "I changed the clip.",
        edit,
        view=shown,
        masks={0: np.asarray(shown.masks.any(axis=0), dtype=np.bool_)},
    )
