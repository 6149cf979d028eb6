# SPDX-License-Identifier: Apache-2.0
"""Building blocks of conversations: calls, turns, and their assembly into an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.protocol.contract import Instruction, Invocation, MediaKind, ReferenceRegion
from vitron.protocol.media import Artefact
from vitron.protocol.messages import (
    MediaPart,
    Message,
    Part,
    PlacedRegion,
    RegionPart,
    TextPart,
    media_handles,
    region_handle,
    text_message,
)

from recipes.vitron_tiny.scenes import View

__all__ = ["Action", "Composer", "Drawn", "Step", "Subject", "call", "capital", "listed", "mask_artefact"]

Bool = NDArray[np.bool_]


def call(module: str, *said: tuple[str, str], region: str = "", input: str = "") -> Invocation:
    """Return a call of a module from verbs and texts.

    Args:
        module: Module.
        said: Verb and text of each instruction.
        region: Handle of its region; empty if it has none.
        input: Handle of the image or video to work on; empty for the latest.
    """
    return Invocation(
        module=module,
        instruction=tuple(Instruction(verb=verb, text=text) for verb, text in said),
        args={"input": input} if input else {},
        region=ReferenceRegion(name=region) if region else None,
    )


def listed(words: Sequence[str]) -> str:
    """Return words as "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capital(text: str) -> str:
    """Return a sentence with a capital letter."""
    return text[0].upper() + text[1:]


def mask_artefact(masks: Bool, label: str) -> Artefact:
    """Return masks ``(K, T, H, W)`` as the result of a segmentation."""
    return Artefact("masks", masks, (label,) * len(masks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Objects that the conversation is about, and that "it" or "them" means.

    Attributes:
        targets: Positions of the objects in the scene.
        phrase: Noun phrase of an instruction; ``this`` for a region of the user.
        handle: Handle of a mask or region on the current medium; empty if there is none.
    """

    targets: tuple[int, ...]
    phrase: str
    handle: str = ""

    @property
    def is_plural(self) -> bool:
        """Whether it is several objects."""
        return len(self.targets) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """The last call on an object, which the user may ask to repeat for another.

    Attributes:
        module: Module.
        verb: Verb of the instruction.
        ending: Text of the instruction behind the object, such as `` to blue``.
        target: Position of the object in the scene of ``view``.
        view: Image or video on which the call worked.
        input: Handle of that image or video.
    """

    module: str
    verb: str
    ending: str
    target: int
    view: View
    input: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One turn: a user message, the assistant message, and the results of its calls.

    Attributes:
        task: Task of the turn.
        text: User text.
        reply: Assistant text.
        calls: Calls of the assistant message.
        shown: Image that the user shows instead of the current one, such as a noisy one.
        region: Mask of a region that the user draws on the current medium, ``(H, W)``.
        frame: Frame of a video on which the region lies.
        masks: True mask of each call that has one, ``(T, H, W)``, by position of the call.
        mask_on: Position of the call whose result a mask lies on, for a mask on such a result.
        mask_input: Handle of the medium on which the masks lie; empty for the current one.
        results: Result of each call: a view, or masks.
        subject: Meaning of "it" from now on; ``None`` keeps it while the medium is the same, one without
            targets clears it.
        action: Last call on an object.
        group: Part of the task that is scored separately.
        form: How the turn depends on those before: "it", "other", "correction", "input", or empty.
    """

    task: str
    text: str
    reply: str
    calls: tuple[Invocation, ...] = ()
    shown: View | None = None
    region: Bool | None = None
    frame: int = 0
    masks: dict[int, Bool] = field(default_factory=dict[int, Bool])
    mask_on: dict[int, int] = field(default_factory=dict[int, int])
    mask_input: str = ""
    results: tuple[View | Artefact, ...] = ()
    subject: Subject | None = None
    action: Action | None = None
    group: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """An example, and what is known of its last turn.

    Attributes:
        example: Conversation that ends with the assistant message of the turn.
        task: Task of the turn.
        turn: Number of the turn, from 1.
        world: Style of the image or video that the turn is about; ``none`` without one.
        form: How the turn depends on those before; empty if it does not.
        views: Scene of each medium of the example; ``None`` of masks.
    """

    example: Example
    task: str
    turn: int
    world: str
    form: str
    views: tuple[View | None, ...] = ()


class Composer:
    """A conversation that grows turn by turn.

    Attributes:
        view: Current image or video; ``None`` before there is one.
        subject: Meaning of "it".
        action: Last call on an object.
        num_shown: Number of images and videos shown.
        is_new: Whether the user shows ``view`` with the next message.
    """

    def __init__(self) -> None:
        self.view: View | None = None
        self.subject: Subject | None = None
        self.action: Action | None = None
        self.num_shown = 0
        self._media = list[Artefact]()
        self._views = list[View | None]()  # of the media
        self._regions = list[PlacedRegion]()
        self._messages = list[Message]()
        self._masks = dict[int, Bool]()
        self._mask_media = dict[int, int]()
        self._calls = 0
        self._current = -1  # position of the view among the media
        self._shown = set[int]()
        self._settled = 0  # media before the results of the last step
        self._last: Step | None = None
        self._world = "none"
        self.is_new = False

    def show(self, view: View) -> None:
        """Let the user show an image or video with the next message."""
        self.view, self.is_new = view, True
        self.subject = self.action = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no turn yet."""
        return self._last is None

    @property
    def input(self) -> str:
        """Handle of the current image or video; that which it will have if it is not shown yet."""
        kinds: list[MediaKind] = [each.kind for each in self._media]
        if self.is_new and self.view is not None:
            return media_handles([*kinds, self.view.media.kind])[-1]
        return media_handles(kinds)[self._current]

    @property
    def next_mask(self) -> str:
        """Handle of the next masks."""
        return media_handles([*(each.kind for each in self._media), "masks"])[-1]

    @property
    def next_region(self) -> str:
        """Handle of the next region of the user."""
        return region_handle(len(self._regions))

    def add(self, step: Step) -> None:
        """Add a turn."""
        parts = self._show(step)
        if step.region is not None:
            parts.append(RegionPart(region=len(self._regions)))
            self._regions.append(PlacedRegion(media=self._current, mask=step.region, frame=step.frame))
        parts.append(TextPart(text=step.text))
        self._messages += [
            Message(role="user", content=tuple(parts)),
            text_message("assistant", step.reply, *step.calls),
        ]
        self._settled, self._last = len(self._media), step
        self._world = "none" if self.view is None else self.view.style
        handles = media_handles([each.kind for each in self._media])
        target = handles.index(step.mask_input) if step.mask_input else self._current
        for number, mask in step.masks.items():
            self._masks[self._calls + number] = mask
            result = step.mask_on.get(number)
            self._mask_media[self._calls + number] = target if result is None else self._settled + result
        self._calls += len(step.calls)
        if step.subject is not None:
            self.subject = step.subject if step.subject.targets else None
        self.action = step.action or self.action
        self._add_results(step)

    def _show(self, step: Step) -> list[Part]:
        """Return the media that the next user message shows: results, then what the user shows."""
        if self.is_new:
            view = step.shown or self.view
            assert view is not None
            self.view, self.is_new = view, False
            self._media.append(view.media)
            self._views.append(view)
            own = [len(self._media) - 1]
        else:
            own = []
        # of images and videos, the latest result; of masks, all
        rasters = [at for at, each in enumerate(self._media) if each.kind != "masks" and at not in own]
        latest = rasters[-1:] if rasters and rasters[-1] not in self._shown else []
        masks = [at for at, each in enumerate(self._media) if each.kind == "masks" and at not in self._shown]
        self._current = own[0] if own else (rasters[-1] if rasters else -1)
        parts = sorted([*latest, *masks, *own])
        self._shown |= set(parts)
        self.num_shown += len(latest) + len(own)
        return [MediaPart(media=at) for at in parts]

    def _add_results(self, step: Step) -> None:
        for result in step.results:
            if isinstance(result, Artefact):
                self._media.append(result)
                self._views.append(None)
            else:
                self._media.append(result.media)
                self._views.append(result)
                self._current, self.view = len(self._media) - 1, result
                self.subject, self.action = step.subject, step.action

    def example(self, task: str = "") -> Example:
        """Return the conversation so far as an example.

        Args:
            task: Name of the task; by default that of the last turn.
        """
        assert self._last is not None
        shown = {call: at for call, at in self._mask_media.items() if at in self._shown}
        return Example(
            task=task or self._last.task,
            messages=tuple(self._messages),
            media=tuple(self._media[: self._settled]),
            regions=tuple(self._regions),
            masks={call: self._masks[call] for call in shown},
            mask_media=shown,
            group=self._last.group,
        )

    def drawn(self) -> Drawn:
        """Return the conversation so far, and what is known of its last turn."""
        assert self._last is not None
        return Drawn(
            example=self.example(),
            task=self._last.task,
            turn=len(self._messages) // 2,
            world=self._world,
            form=self._last.form,
            views=tuple(self._views[: self._settled]),
        )
