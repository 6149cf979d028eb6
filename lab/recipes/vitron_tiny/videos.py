# SPDX-License-Identifier: Apache-2.0
"""Examples about one video: question, span, tracking, and new colours for objects and background."""

from __future__ import annotations

import numpy as np
from shapeworld.videos import Video
from shapeworld.words import unique_descriptions
from vitron.data.example import Example

from recipes.vitron_tiny.composing import call, example, user_text
from recipes.vitron_tiny.images import prompt_mask
from recipes.vitron_tiny.prompts import CHANGES, COUNT, EVENT, MOVES, RECOLOUR, SPAN, TRACK, WAY
from recipes.vitron_tiny.scenes import TINTS, Draw, draw_style, noun, render_video, video_of

FOLLOWED = "I follow it."
NUMBERS = ("zero", "one", "two", "three", "four")


def video_question(draw: Draw) -> Example | None:
    """Ask for one word about a video."""
    style = draw_style(draw)
    video = video_of(draw, style)
    kind = draw.pick("way", "moves", "changes", "count")
    made = {"way": _way, "moves": _moves, "changes": _changes, "count": _count}[kind](draw, video)
    shown = None if made is None else render_video(draw, video, style)
    if made is None or shown is None:
        return None
    text, answer = made
    return example("video_question", text, answer, view=shown, group=kind)


Asked = tuple[str, str] | None


def _way(draw: Draw, video: Video) -> Asked:
    ways = {event.track: event.direction for event in video.events if event.kind == "moves"}
    # on the way back from a wall there is no one direction
    ways = {track: way for track, way in ways.items() if not _happens(video, "bounces", track)}
    if not ways:
        return None
    track, way = draw.pick(*sorted(ways.items(), key=str))
    return user_text(draw, WAY, "?", thing=f"the {noun(video.things[track or 0])}"), str(way)


def _happens(video: Video, kind: str, track: int | None = None) -> bool:
    return any(event.kind == kind and track in (None, event.track) for event in video.events)


def _moves(draw: Draw, video: Video) -> Asked:
    wanted = draw.chance(0.5)
    tracks = [
        track
        for track in range(len(video.things))
        if _happens(video, "moves", track) is wanted and not _happens(video, "turns", track)
    ]
    if not tracks:
        return None
    return user_text(
        draw, MOVES, "?", thing=f"the {noun(video.things[draw.pick(*tracks)])}"
    ), "yes" if wanted else "no"


def _changes(draw: Draw, video: Video) -> Asked:
    verb, wanted = draw.pick("appear", "disappear"), draw.chance(0.5)
    if _happens(video, f"{verb}s") is not wanted:
        return None
    return user_text(draw, CHANGES, "?", verb=verb), "yes" if wanted else "no"


def _count(draw: Draw, video: Video) -> Asked:
    end = draw.pick("first", "last")
    return user_text(draw, COUNT, "?", end=end), NUMBERS[
        int(video.present[0 if end == "first" else -1].sum())
    ]


def span_grounding(draw: Draw) -> Example | None:
    """Say in which frames an object is there, or when it comes or goes."""
    style = draw_style(draw)
    video = video_of(draw, style)
    guests = [event for event in video.events if event.kind in ("appears", "disappears")]
    # an object that is always there is asked for too, but not as often as there are such
    if not guests and draw.chance(0.8):
        return None
    shown = render_video(draw, video, style)
    if shown is None:
        return None
    track = (guests[0].track or 0) if guests else int(draw.rng.integers(len(video.things)))
    thing = f"the {noun(video.things[track])}"
    if guests and draw.chance(0.4):
        text, reply = (
            user_text(draw, EVENT, "?", thing=thing, verb=guests[0].kind[:-1]),
            f"in frame {guests[0].frame}.",
        )
        group = "event"
    else:
        there = np.flatnonzero(video.present[:, track])
        text, reply = user_text(draw, SPAN, "?", thing=thing), f"in frames {there[0]} to {there[-1]}."
        group = "span"
    return example("span_grounding", text, reply, view=shown, group=group)


def tracking(draw: Draw) -> Example | None:
    """Follow one object, by words or from where it is in the first frame."""
    style = draw_style(draw)
    video = video_of(draw, style)
    shown = render_video(draw, video, style)
    if shown is None:
        return None
    track = int(draw.rng.integers(len(video.things)))
    masks = shown.masks[track]
    if draw.chance(0.15) and video.present[0, track]:
        region, _ = prompt_mask(draw, masks[0])
        follow = call("video_segmentation", ("track", "this"))
        text = user_text(draw, TRACK, thing="this")
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
    # a material is hard to see in motion: it is named only where nothing else tells the object
    short = [one for one in unique_descriptions(shown.scene, track) if one.material is None and one.named()]
    phrase = f"the {draw.pick(*short).noun()}" if draw.chance(0.4) else f"the {noun(video.things[track])}"
    follow = call("video_segmentation", ("track", phrase))
    text = user_text(draw, TRACK, thing=phrase)
    return example("tracking", text, FOLLOWED, follow, view=shown, masks={0: masks}, group="words")


def video_editing(draw: Draw) -> Example | None:
    """Give objects and background new colours."""
    video = video_of(draw, "flat")
    front, back = draw.pick(*TINTS), draw.pick(*TINTS)
    # a frame without objects has no foreground
    if (
        not video.present.any(axis=1).all()
        or front == back
        or {front} == {thing.colour for thing in video.things}
    ):
        return None
    shown = render_video(draw, video, "flat")
    if shown is None:
        return None
    edit = call("video_editing", ("foreground", front), ("background", back))
    return example(
        "video_editing",
        user_text(draw, RECOLOUR, front=front, back=back),
        "I changed the clip.",
        edit,
        view=shown,
        masks={0: np.asarray(shown.masks.any(axis=0), dtype=np.bool_)},
    )
