# SPDX-License-Identifier: Apache-2.0
"""Turns that refer back: to an object that was spoken of, the other one, an earlier image; corrections."""

from __future__ import annotations

from dataclasses import replace

from shapeworld import Scene
from shapeworld.vocabulary import HELD_OUT
from shapeworld.words import with_article

from recipes.vitron_tiny.composing import Action, Composer, Step, Subject, capital
from recipes.vitron_tiny.editing import WAYS, animate, draw_change, edit
from recipes.vitron_tiny.images import name_of, segment
from recipes.vitron_tiny.scenes import Draw, View, full_noun, noun
from recipes.vitron_tiny.videos import track
from recipes.vitron_tiny.wordings import FOLLOW_UPS, worded

EDIT_VERBS = ("remove", "recolour", "replace", "move")


def edit_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Change the object, or remove the objects, that were spoken of."""
    subject = state.subject
    if subject is None:
        return None
    several = subject.is_plural
    kind = "remove" if several else draw.pick(*EDIT_VERBS)
    to = "" if several else draw_change(draw, shown, subject.targets[0], kind)
    text = worded(draw, FOLLOW_UPS[_form(kind, several)], to=to)
    return edit(draw, shown, state, kind, subject, text=text, to=to, form="it")


def _form(kind: str, several: bool) -> str:
    return f"{kind}_them" if several else f"{kind}_it"


def animate_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Let the object that was spoken of move."""
    subject = state.subject
    if subject is None or subject.is_plural:
        return None
    way = draw.pick(*WAYS)
    text = worded(draw, FOLLOW_UPS["animate_it"], way=WAYS[way])
    return animate(draw, shown, state, subject, way, text=text, form="it")


def segment_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Segment the object or the region that was spoken of, if it has no mask yet."""
    subject = state.subject
    if subject is None or subject.handle.startswith("mask"):
        return None
    text = worded(draw, FOLLOW_UPS["segment_it"])
    return segment(
        draw, shown, state, subject.phrase, subject.targets, text=text, form="it", handle=subject.handle
    )


def track_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Track the object that was spoken of, if it is not tracked yet."""
    subject = state.subject
    if subject is None or subject.is_plural or subject.handle.startswith("mask"):
        return None
    return track(shown, state, subject, text=worded(draw, FOLLOW_UPS["track_it"]), form="it")


def ask_about_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for colour, shape or pattern of the object that was spoken of."""
    subject = state.subject
    if subject is None or subject.is_plural:
        return None
    thing = shown.scene.things[subject.targets[0]]
    kinds = ["colour", "shape", *(["material"] if shown.style == "drawn" else [])]
    # what its phrase says already is not asked for
    kinds = [kind for kind in kinds if getattr(thing, kind) not in subject.phrase]
    if not kinds:
        return None
    kind = draw.pick(*kinds)
    text = worded(draw, FOLLOW_UPS[f"{kind}_of_it"], "?")
    return Step(task="question", text=text, reply=str(getattr(thing, kind)), group=kind, form="it")


def name_it(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for the name of an object that was marked by the user or by a mask."""
    subject = state.subject
    if subject is None or subject.is_plural or not subject.handle:
        return None
    reply = f"{capital(with_article(full_noun(shown.scene.things[subject.targets[0]])))}."
    text = worded(draw, FOLLOW_UPS["what_is_it"], "?")
    return Step(task="region_caption", text=text, reply=reply, group="it", form="it")


def _repeatable(shown: View, action: Action, state: Composer) -> list[int]:
    """Return the objects for which the last call can be repeated on the current image or video."""
    if shown.media.kind != action.view.media.kind:
        return []
    if action.verb == "remove" and action.input != state.input:
        return list(range(len(shown.scene.things)))
    return [place for place in range(len(shown.scene.things)) if place != action.target]


def other_one(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Repeat the last call for the other object of the same shape."""
    action = state.action
    if action is None:
        return None
    shape = action.view.scene.things[action.target].shape
    others = [
        place for place in _repeatable(shown, action, state) if shown.scene.things[place].shape == shape
    ]
    if len(others) != 1:
        return None
    key = "segment_other" if action.verb == "segment" and draw.chance(0.3) else "other"
    return repeat(draw, shown, state, action, others[0], worded(draw, FOLLOW_UPS[key]), form="other")


def same_for(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Repeat the last call for an object that is named."""
    action = state.action
    others = [] if action is None else _repeatable(shown, action, state)
    if action is None or not others:
        return None
    target = draw.pick(*others)
    named = f"the {_short_noun(shown.scene, target)}"
    text = worded(draw, FOLLOW_UPS["same_for"], thing=named)
    return repeat(draw, shown, state, action, target, text, named, form="other")


def correction(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Repeat the last call for the object that was meant, on the image on which it was to work."""
    action = state.action
    if action is None:
        return None
    others = [place for place in range(len(action.view.scene.things)) if place != action.target]
    if not others:
        return None
    target = draw.pick(*others)
    named = f"the {_short_noun(action.view.scene, target)}"
    text = worded(draw, FOLLOW_UPS["correction"], thing=named)
    return repeat(draw, action.view, state, action, target, text, named, form="correction")


def _short_noun(scene: Scene, target: int) -> str:
    """Return the shape alone where it tells the object, else colour and shape."""
    thing = scene.things[target]
    alike = [one for one in scene.things if one.shape == thing.shape]
    return thing.shape if len(alike) == 1 else noun(thing)


def repeat(
    draw: Draw,
    shown: View,
    state: Composer,
    action: Action,
    target: int,
    text: str,
    phrase: str = "",
    *,
    form: str,
) -> Step | None:
    """Return a turn that runs the last call on another object.

    Args:
        draw: Source of random choices.
        shown: Image or video to work on.
        state: Conversation.
        action: Last call.
        target: Position of the object in the scene of ``shown``.
        text: User text.
        phrase: Noun phrase of the instruction; by default colour and shape.
        form: How the turn depends on those before.
    """
    subject = Subject(targets=(target,), phrase=phrase or f"the {noun(shown.scene.things[target])}")
    earlier = action.input if form == "correction" and action.input != state.input else ""
    if action.verb == "segment":
        step = segment(draw, shown, state, subject.phrase, (target,), text=text, form=form)
    elif action.verb == "track":
        step = track(shown, state, subject, text=text, form=form)
    elif action.verb == "animate":
        way = next(name for name, words in WAYS.items() if action.ending == f" moves {words}")
        step = animate(draw, shown, state, subject, way, text=text, form=form)
    else:
        to = action.ending.removeprefix(" to ") if action.verb == "recolour" else action.ending
        to = to.removeprefix(" with ").strip()
        if action.verb == "recolour" and not _can_take(shown, target, to):
            return None
        step = edit(draw, shown, state, action.verb, subject, text=text, to=to, form=form)
    return step and on_earlier(step, earlier)


def _can_take(shown: View, target: int, colour: str) -> bool:
    """Whether an object may get a colour: not its own, not that of a twin, and no held-out pair."""
    shape = shown.scene.things[target].shape
    taken = {(thing.colour, thing.shape) for thing in shown.scene.things}
    return (colour, shape) not in taken and (colour, shape) not in HELD_OUT


def on_earlier(step: Step, input: str) -> Step:
    """Return a turn whose call names the image or video that it works on."""
    if not input:
        return step
    calls = tuple(each.model_copy(update={"args": {"input": input}}) for each in step.calls)
    action = None if step.action is None else replace(step.action, input=input)
    # masks of an earlier image are none of the current one
    subject = step.subject if step.task != "referring_segmentation" else Subject(targets=(), phrase="")
    return replace(step, calls=calls, mask_input=input, action=action, subject=subject)


def earlier_image(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Segment or remove an object of the image before the last edit."""
    action = state.action
    if action is None or action.input == state.input or action.view.media.kind != "image":
        return None
    view = action.view
    target = int(draw.rng.integers(len(view.scene.things)))
    kind, phrase = draw.pick("segment", "remove"), name_of(draw, view, target)
    family = FOLLOW_UPS[f"{kind}_first" if action.input == "img_1" else f"{kind}_before"]
    text = worded(draw, family, thing=phrase)
    if kind == "segment":
        step = segment(draw, view, state, phrase, (target,), text=text, form="input")
    else:
        step = edit(
            draw, view, state, "remove", Subject(targets=(target,), phrase=phrase), text=text, form="input"
        )
    return None if step is None else on_earlier(step, action.input)
