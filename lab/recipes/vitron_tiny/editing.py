# SPDX-License-Identifier: Apache-2.0
"""Turns that change an image: edits, restoration, animation; and the images that they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from shapeworld import Thing
from shapeworld.grid import WHOLE
from shapeworld.videos import Event, Video
from shapeworld.vocabulary import HELD_OUT
from shapeworld.words import with_article
from vitron.demo.painters.shapes import shape_mask, side_for, stamp
from vitron.demo.painters.words import read_phrase
from vitron.protocol.media import Artefact
from vitron.specialists.pixels import restyle

from recipes.vitron_tiny.composing import Composer, Step, Subject, call
from recipes.vitron_tiny.images import act, name_of, plural, plural_text, prompt_mask, union
from recipes.vitron_tiny.scenes import (
    FILL,
    FRAMES,
    TINTS,
    Draw,
    View,
    new_noun,
    noun,
    render_video,
    scene_of,
    view,
)
from recipes.vitron_tiny.wordings import ANIMATE, EDITS, RESTORE, worded

SIZES = {"small": "small ", "": "", "large": "large "}
PLACES = ("left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "middle")
STYLES = ("grey", "sepia", "negative", "night", "pencil")
WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
EDITED, RESTORED, MOVED = "I changed it.", "I cleaned it.", "Here it moves."
DRAWN_SHARE = 0.3  # of the images to edit: those that the toy painter may not know

_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SHIFT = 0.25  # of the side: how far an edit moves an object
_PACE = 0.1  # of the side: how far an animated object goes in a frame


def plain_view(draw: Draw) -> View | None:
    """Return an image of objects without patterns, most of them painted flat."""
    return view(draw, scene_of(draw, plain=True), "drawn" if draw.chance(DRAWN_SHARE) else "flat")


def editing(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Change an image in one of six ways."""
    kind = draw.pick(*EDITS)
    if kind == "add":
        return _add(draw, shown, state)
    if kind == "restyle":
        return _restyle(draw, shown)
    if kind == "remove" and draw.chance(0.25):
        found = plural(draw, shown)
        if found is not None:
            phrase, targets = found
            text = plural_text(draw, "remove", phrase, targets)
            return edit(draw, shown, state, "remove", Subject(targets=targets, phrase=phrase), text=text)
    target = int(draw.rng.integers(len(shown.scene.things)))
    if draw.chance(0.15):
        region, _ = prompt_mask(draw, shown.masks[target, 0])
        subject = Subject(targets=(target,), phrase="this", handle=state.next_region)
        step = edit(draw, shown, state, kind, subject)
        return None if step is None else replace(step, region=region)
    return edit(draw, shown, state, kind, Subject(targets=(target,), phrase=name_of(draw, shown, target)))


def edit(
    draw: Draw,
    shown: View,
    state: Composer,
    kind: str,
    subject: Subject,
    *,
    text: str | None = None,
    to: str = "",
    form: str = "",
) -> Step | None:
    """Return a turn that removes, recolours, replaces or moves objects.

    Args:
        draw: Source of random choices.
        shown: Image.
        state: Conversation.
        kind: Verb of the instruction.
        subject: Objects, their phrase and their handle.
        text: User text; by default one that names the objects.
        to: New colour, new object or direction; drawn if empty.
        form: How the turn depends on those before.
    """
    if kind != "remove" and subject.is_plural:
        return None
    target = subject.targets[0]
    to = to or draw_change(draw, shown, target, kind)
    ending = {"remove": "", "recolour": f" to {to}", "replace": f" with {to}", "move": f" {to}"}[kind]
    text = text or worded(draw, EDITS[kind], thing=subject.phrase, to=to)
    after = changed(draw, shown, kind, subject.targets, to)
    several = subject.phrase.startswith("all ")
    known = None
    if after is not None and kind != "remove":
        name = _name_after(subject.phrase, kind, after.scene.things[target])
        known = Subject(targets=(target,), phrase=name)
    return Step(
        task="editing",
        text=text,
        reply=EDITED,
        calls=(call("image_editing", (kind, subject.phrase + ending), region=subject.handle),),
        masks={0: union(shown.masks[list(subject.targets)])},
        results=() if after is None else (after,),
        subject=known,
        action=None if several else act("image_editing", kind, ending, target, shown, state),
        group=kind,
        form=form,
    )


def _name_after(phrase: str, kind: str, thing: Thing) -> str:
    """Return what "it" is called after a change: in the words of the conversation where they still name it.

    Args:
        phrase: Noun phrase before the change.
        kind: Verb of the change.
        thing: Object after it.
    """
    short = (f"the {thing.shape}", f"the {thing.colour} thing")
    if kind == "recolour" and phrase.endswith(" thing"):
        return short[1]  # a new colour is one that no other object has
    return phrase if kind != "replace" and phrase in short else f"the {noun(thing)}"


def draw_change(draw: Draw, shown: View, target: int, kind: str) -> str:
    """Return what an object is to become: a colour, an object with its article, or a direction."""
    thing = shown.scene.things[target]
    if kind == "recolour":
        taken = {one.colour for one in shown.scene.things} | {shown.ground_name}
        return draw.pick(
            *(colour for colour in TINTS if colour not in taken and (colour, thing.shape) not in HELD_OUT)
        )
    if kind == "replace":
        return with_article(new_noun(draw, without=thing.shape, shown=shown))
    return WAYS[draw.pick(*WAYS)] if kind == "move" else ""


def changed(draw: Draw, shown: View, kind: str, targets: tuple[int, ...], to: str) -> View | None:
    """Return the image after an edit of its scene; nothing if an object would hardly be seen.

    Args:
        draw: Source of random choices.
        shown: Image before.
        kind: ``remove``, ``recolour``, ``replace`` or ``move``.
        targets: Positions of the objects.
        to: New colour, new object or direction.
    """
    things = list(shown.scene.things)
    first = things[targets[0]]
    if kind == "remove":
        things = [thing for place, thing in enumerate(things) if place not in targets]
    elif kind == "recolour":
        things[targets[0]] = replace(first, colour=to)
    elif kind == "replace":
        _, colour, shape = to.split()
        things[targets[0]] = replace(first, colour=colour, shape=shape, material="solid", angle=0.0)
    else:
        way = next(name for name, words in WAYS.items() if words == to)
        things[targets[0]] = _shifted(first, way, _SHIFT)
    return repainted(draw, shown, things)


def _shifted(thing: Thing, way: str, step: float) -> Thing:
    """Return an object at another position, inside the image."""
    (dx, dy), low = _STEPS[way], thing.radius
    x, y = (min(max(at + step * by, low), 1 - low) for at, by in ((thing.x, dx), (thing.y, dy)))
    return replace(thing, x=x, y=y)


def repainted(draw: Draw, shown: View, things: list[Thing]) -> View | None:
    """Return an image of other objects on the same background, in the same style and size.

    Returns:
        ``None`` if there is no object, two objects have one name, or the image is in another style.
    """
    if not shown.natural or not things or len({noun(thing) for thing in things}) < len(things):
        return None
    draw = replace(draw, side=shown.media.size[0])
    return view(draw, replace(shown.scene, things=tuple(things)), shown.style, ground=shown.ground)


def _restyle(draw: Draw, shown: View) -> Step:
    to = draw.pick(*STYLES)
    image = restyle(shown.media.frames[0], to)
    return Step(
        task="editing",
        text=worded(draw, EDITS["restyle"], to=to),
        reply=EDITED,
        calls=(call("image_editing", ("restyle", f"the image in {to}")),),
        masks={0: np.ones_like(shown.masks[0])},
        results=(replace(shown, media=Artefact("image", image), natural=False),),
        group="restyle",
    )


def _add(draw: Draw, shown: View, state: Composer) -> Step | None:
    size, place = draw.pick(*SIZES), draw.pick(*PLACES)
    new = new_noun(draw, shown=shown)
    thing = with_article(f"{SIZES[size]}{new}")
    where = f"{'in' if place == 'middle' else 'at'} the {place}"
    phrase = read_phrase(f"{thing} {where}")
    height = shown.media.size[0]
    side = side_for(phrase, height, height)
    canvas = np.zeros((height, height, 3), dtype=np.uint8)
    spare = height - side
    row, column = (
        round(spare * (0.08 if first in place else 0.92 if last in place else 0.5))
        for first, last in (("top", "bottom"), ("left", "right"))
    )
    stamp(canvas, shape_mask(str(phrase.shape), side, side), row, column, (1, 1, 1))
    colour, shape = new.split()
    added = Thing(
        shape=shape,
        colour=colour,
        material="solid",
        x=(column + side / 2) / height,
        y=(row + side / 2) / height,
        radius=side / height / 2 / FILL[shape],
    )
    after = repainted(draw, shown, [*shown.scene.things, added])
    subject = Subject(targets=(len(shown.scene.things),), phrase=f"the {new}") if after else None
    return Step(
        task="editing",
        text=worded(draw, EDITS["add"], thing=thing, to=where),
        reply=EDITED,
        calls=(call("image_editing", ("add", f"{thing} {where}")),),
        masks={0: canvas[None, ..., 0] > 0},
        results=() if after is None else (after,),
        subject=subject,
        group="add",
    )


def restoration(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for a better image; noise and blur are those of an image that the user shows in this turn."""
    kind = draw.pick(*RESTORE)
    if kind != "upscale" and not (state.is_new and shown.natural):
        return None
    image = shown.media.frames[0]
    if kind == "upscale":
        large = Artefact("image", np.asarray(image.repeat(2, axis=0).repeat(2, axis=1)))
        masks = shown.masks.repeat(2, axis=2).repeat(2, axis=3)
        before, after = None, replace(shown, media=large, masks=masks)
    else:
        before = replace(shown, media=Artefact("image", degrade(image, kind, draw.rng)))
        after = shown
    return Step(
        task="restoration",
        text=worded(draw, RESTORE[kind]),
        reply=RESTORED,
        calls=(call("restoration", (kind, "the image")),),
        shown=before,
        results=(after,),
        group=kind,
    )


def degrade(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a noisy or blurred image."""
    if kind == "denoise":
        noise = rng.normal(0, 22, image.shape)
        return (image + noise).round().clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.6)), dtype=np.uint8)


def image_to_video(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask that an object of an image moves."""
    target = int(draw.rng.integers(len(shown.scene.things)))
    way = draw.pick(*WAYS)
    subject = Subject(targets=(target,), phrase=name_of(draw, shown, target))
    text = worded(draw, ANIMATE, thing=subject.phrase, way=WAYS[way])
    return animate(draw, shown, state, subject, way, text=text)


def animate(
    draw: Draw, shown: View, state: Composer, subject: Subject, way: str, *, text: str, form: str = ""
) -> Step | None:
    """Return a turn that lets one object move."""
    if subject.is_plural:
        return None
    target = subject.targets[0]
    after = moving(draw, shown, target, way)
    ending = f" moves {WAYS[way]}"
    name = _name_after(subject.phrase, "move", shown.scene.things[target])
    return Step(
        task="image_to_video",
        text=text,
        reply=MOVED,
        calls=(call("image_to_video", ("animate", subject.phrase + ending), region=subject.handle),),
        results=() if after is None else (after,),
        subject=Subject(targets=(target,), phrase=name),
        action=act("image_to_video", "animate", ending, target, shown, state),
        form=form,
    )


def moving(draw: Draw, shown: View, target: int, way: str) -> View | None:
    """Return a video of an image in which one object moves; nothing if it has no room."""
    if not shown.natural:
        return None
    thing = shown.scene.things[target]
    (dx, dy), far = _STEPS[way], _PACE * (FRAMES - 1)
    x, y = thing.x + far * dx, thing.y + far * dy
    if not all(0.9 * thing.radius <= at <= 1 - 0.9 * thing.radius for at in (x, y)):
        return None
    scenes = list[tuple[Thing, ...]]()
    for frame in range(FRAMES):
        moved = replace(thing, x=thing.x + _PACE * frame * dx, y=thing.y + _PACE * frame * dy)
        scenes.append(
            tuple(moved if place == target else one for place, one in enumerate(shown.scene.things))
        )
    video = Video(
        scenes=tuple(replace(shown.scene, things=things) for things in scenes),
        windows=(WHOLE,) * FRAMES,
        tracks=(tuple(range(len(shown.scene.things))),) * FRAMES,
        things=shown.scene.things,
        events=(Event(kind="moves", track=target, frame=0, direction=way),),
        caption="",
    )
    return render_video(draw, video, shown.style, ground=shown.ground)
