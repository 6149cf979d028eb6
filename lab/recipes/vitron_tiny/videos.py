# SPDX-License-Identifier: Apache-2.0
"""Turns that track objects through a video, or give objects and background new colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapeworld import Thing
from shapeworld.vocabulary import HELD_OUT
from shapeworld.words import unique_descriptions
from vitron.protocol.media import Artefact
from vitron.specialists.words import COLOURS

from recipes.vitron_tiny.composing import Composer, Step, Subject, call, mask_artefact
from recipes.vitron_tiny.images import act, prompt_mask, union
from recipes.vitron_tiny.scenes import TINTS, Draw, View, draw_style, noun, render_video, video_of
from recipes.vitron_tiny.wordings import RECOLOUR, TRACK, worded

FOLLOWED, RECOLOURED = "I follow it.", "I changed the video."


def any_video(draw: Draw) -> View | None:
    """Return a video in either style."""
    style = draw_style(draw)
    return render_video(draw, video_of(draw, style), style)


def flat_video(draw: Draw) -> View | None:
    """Return a video in the style of the toy painter."""
    return render_video(draw, video_of(draw, "flat"), "flat")


def tracking(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Follow one object, by words or from its region in the first frame."""
    target = int(draw.rng.integers(len(shown.scene.things)))
    if draw.chance(0.15) and shown.masks[target, 0].any():
        region, _ = prompt_mask(draw, shown.masks[target, 0])
        subject = Subject(targets=(target,), phrase="this", handle=state.next_region)
        text = worded(draw, TRACK, thing="this")
        return replace(track(shown, state, subject, text=text, group="region"), region=region)
    # a material is hard to see in motion: it is named only where nothing else tells the object
    short = [one for one in unique_descriptions(shown.scene, target) if one.material is None and one.named()]
    full = f"the {noun(shown.scene.things[target])}"
    phrase = f"the {draw.pick(*short).noun()}" if short and draw.chance(0.4) else full
    subject = Subject(targets=(target,), phrase=phrase)
    return track(shown, state, subject, text=worded(draw, TRACK, thing=phrase), group="words")


def track(
    shown: View, state: Composer, subject: Subject, *, text: str, group: str = "", form: str = ""
) -> Step:
    """Return a turn that tracks one object."""
    target = subject.targets[0]
    masks = shown.masks[target]
    return Step(
        task="tracking",
        text=text,
        reply=FOLLOWED,
        calls=(call("video_segmentation", ("track", subject.phrase), region=subject.handle),),
        masks={0: masks},
        results=(mask_artefact(masks[None], subject.phrase),),
        subject=replace(subject, handle=state.next_mask),
        action=act("video_segmentation", "track", "", target, shown, state),
        group=group,
        form=form,
    )


def video_editing(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Give objects and background new colours."""
    front, back = draw.pick(*TINTS), draw.pick(*TINTS)
    things = union(shown.masks)
    # a frame without objects has no foreground
    if front == back or not all(frame.any() for frame in things):
        return None
    if {front} == {thing.colour for thing in shown.scene.things}:
        return None
    colours = np.array([COLOURS[back], COLOURS[front]], dtype=np.uint8)
    frames = colours[things.astype(np.intp)]
    scene = replace(shown.scene, things=tuple(replace(thing, colour=front) for thing in shown.scene.things))
    assert shown.video is not None
    video = replace(shown.video, things=scene.things)
    after = View(Artefact("video", frames), shown.masks, scene, "flat", COLOURS[back], video)
    return Step(
        task="video_editing",
        text=worded(draw, RECOLOUR, front=front, back=back),
        reply=RECOLOURED,
        calls=(call("video_editing", ("foreground", front), ("background", back)),),
        masks={0: things},
        results=(after,) if _is_named(scene.things, draw) else (),
    )


def _is_named(things: tuple[Thing, ...], draw: Draw) -> bool:
    """Whether objects of one colour have different names, and no pair that the split holds out."""
    shapes = {thing.shape for thing in things}
    unseen = any((thing.colour, thing.shape) in HELD_OUT for thing in things)
    return len(shapes) == len(things) and (draw.split == "novel" or not unseen)
