# SPDX-License-Identifier: Apache-2.0
"""What one visitor of the page sees and has said; nothing of it is shared with another."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vitron.errors import explain
from vitron.protocol.contract import Region
from vitron.protocol.media import Artefact, overlay
from vitron.protocol.messages import MessageGenerator, SamplingParams
from vitron.protocol.regions import mask_to_region
from vitron.session.chat import CallEvent, DoneEvent, IssueEvent, ResultEvent, Session, TextEvent
from vitron.session.conversation import StepResult
from vitron.specialists.registry import SpecialistRegistry

Pixels = NDArray[np.uint8]
SMALLEST = 384  # pixels of the longer side, below which a picture is enlarged to be drawn on


def enlarge(picture: Pixels) -> Pixels:
    """Return a picture enlarged by a whole factor, so that one can draw on a small one.

    Args:
        picture: ``(H, W, 3)``.

    Returns:
        ``(n * H, n * W, 3)``.
    """
    factor = max(1, -(-SMALLEST // max(picture.shape[:2])))
    return np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1)


def regions_of(layers: Sequence[NDArray[Any] | None], frame: int | None = None) -> list[Region]:
    """Return what was drawn on each layer of an editor as a mask; empty layers are none.

    Args:
        layers: ``(H, W, 4)`` each; what is not transparent was drawn.
        frame: Of the clip that it was drawn on.
    """
    drawn = [
        np.asarray(layer[..., 3] > 0, dtype=np.bool_)
        for layer in layers
        if layer is not None and layer.ndim == 3 and layer.shape[-1] == 4
    ]
    return [mask_to_region(mask, frame=frame) for mask in drawn if mask.any()]


def rgb(picture: NDArray[Any]) -> Pixels:
    """Return the colours of a picture from an editor; what is transparent lies on white."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=-1)
    if picture.shape[-1] == 3:
        return np.asarray(picture, dtype=np.uint8)
    alpha = picture[..., 3:].astype(np.float64) / 255
    return np.asarray((picture[..., :3] * alpha + 255 * (1 - alpha)).round(), dtype=np.uint8)


@dataclass(slots=True)
class Shown:
    """Something that was made, for the gallery.

    Attributes:
        artefact: A picture or a clip; masks lie over what they were made from.
        caption: One line.
        file: Where a clip was written to be shown; empty before.
    """

    artefact: Artefact
    caption: str
    file: str = ""


@dataclass(slots=True)
class Visit:
    """The state of one visitor.

    Attributes:
        session: The talk.
        messages: As the page shows them.
        made: What was made, the newest first.
        pending: A picture or clip that goes with the next message.
        frame: Frame of the clip that is shown, from 0.
        shown: Frames that were given to the editor since a picture or clip was brought.
    """

    session: Session
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    made: list[Shown] = field(default_factory=list[Shown])
    pending: Artefact | None = None
    frame: int = 0
    shown: set[int] = field(default_factory=set[int])

    @classmethod
    def begin(cls, replier: MessageGenerator, specialists: SpecialistRegistry) -> Visit:
        """Return a visit in which nothing was said."""
        return cls(Session(replier, specialists=specialists))

    @property
    def latest(self) -> Artefact | None:
        """The picture or clip that is worked on: what comes next, or the last of the talk."""
        if self.pending is not None:
            return self.pending
        shown = [each for each in self.session.media.values() if each.kind != "masks"]
        return shown[-1] if shown else None

    @property
    def canvas(self) -> Pixels | None:
        """What there is to draw on."""
        latest = self.latest
        if latest is None:
            return None
        return enlarge(latest.frames[min(self.frame, latest.num_frames - 1)])

    def show(self) -> Pixels | None:
        """Return what there is to draw on, and keep in mind that it was shown."""
        self.shown.add(self.frame)
        return self.canvas

    def has_shown(self, picture: Pixels) -> bool:
        """Tell whether a picture that comes from the editor is one that was given to it.

        An editor says that a picture was uploaded even if the page itself put it there.
        """
        latest = self.latest
        if latest is None:
            return False
        frames = (latest.frames[at] for at in self.shown if at < latest.num_frames)
        return any(_alike(enlarge(frame), picture) for frame in frames)

    def bring(self, artefact: Artefact) -> None:
        """Take a picture or a clip for the next message."""
        self.pending, self.frame, self.shown = artefact, 0, set()

    def drop(self) -> None:
        """Forget what would go with the next message."""
        self.pending, self.frame, self.shown = None, 0, set()

    def ask(
        self, text: str, layers: Sequence[NDArray[Any] | None], sampling: SamplingParams
    ) -> Iterator[Literal["words", "made", "done"]]:
        """Say something and take in the reply; yields whenever there is something new to show.

        A reply that fails is told in one message, and the talk is as it was before.
        """
        latest = self.latest
        frame = self.frame if latest is not None and latest.kind == "video" else None
        try:
            regions = regions_of(layers, frame)
            session = self.session.fork()
            media = [] if self.pending is None else [self.pending]
            names = session.say(text, media=media, regions=regions)
        except ValueError as error:
            self._tell("user", text)
            self._tell("assistant", explain(error), "not sent")
            yield "done"
            return
        extra = [*names, *(f"{len(regions)} region{'s' * (len(regions) > 1)}" for _ in regions[:1])]
        self._tell("user", text + (f" [{', '.join(extra)}]" if extra else ""))
        try:
            yield from self._listen(session, sampling)
        except Exception as error:  # whatever a model does wrong, the page stays
            self._tell("assistant", explain(error), "the reply failed")
        yield "done"

    def _listen(self, session: Session, sampling: SamplingParams) -> Iterator[Literal["words", "made"]]:
        is_open = False
        for event in session.reply(sampling):
            match event:
                case TextEvent():
                    if not is_open and not event.text.strip():
                        continue
                    if not is_open:
                        self._tell("assistant", "")
                        is_open = True
                    self.messages[-1]["content"] += event.text
                    yield "words"
                    continue
                case CallEvent():
                    said = "; ".join(
                        f"{each.verb} {each.text}".strip() for each in event.invocation.instruction
                    )
                    self._tell("assistant", said or "...", event.invocation.module)
                case IssueEvent():
                    self._tell("assistant", event.issue.message, "not understood")
                case ResultEvent():
                    self._take(event.result, session.media)
                case DoneEvent():
                    self.session, self.pending = session, None
                    latest = self.latest
                    self.frame = min(self.frame, latest.num_frames - 1) if latest is not None else 0
            is_open = False
            yield "made"

    def _take(self, result: StepResult, media: Mapping[str, Artefact]) -> None:
        step, made = result.step, result.artefact
        if made is None:
            error = result.error or RuntimeError("nothing was made")
            self._tell("assistant", explain(error), f"{step.invocation.module} failed")
            return
        under = media.get(step.input or "")
        labels = f": {', '.join(made.labels)}" if made.labels else ""
        source = f" from {step.input}" if step.input else ""
        if made.kind == "masks" and under is not None and under.num_frames == made.num_frames:
            made = overlay(made, under)
        self.made.insert(0, Shown(made, f"{step.output}{labels}{source}, by {result.specialist}"))
        self._tell("assistant", result.note or "done", f"{step.output}{source} by {result.specialist}")

    def _tell(self, role: str, content: str, title: str = "") -> None:
        metadata = {"metadata": {"title": title}} if title else {}
        self.messages.append({"role": role, "content": content, **metadata})


def _alike(one: Pixels, other: Pixels) -> bool:
    # a browser may round colours on their way through its canvas
    return one.shape == other.shape and int(np.abs(one.astype(np.int16) - other).max(initial=0)) <= 2


def status_of(registry: SpecialistRegistry) -> str:
    """Return who carries out calls, and how they are, as a table in HTML."""
    rows = list[tuple[str, str, str, str]]()
    problems, absent, loaded = registry.problems, registry.absent, registry.loaded
    for name in registry.names:
        if name in absent:
            rows.append(("off", name, "", absent[name]))
        elif name in problems:
            rows.append(("bad", name, "", problems[name]))
        else:
            spec = registry.spec(name)
            state = "on" if name in loaded else "idle"
            rows.append((state, name, ", ".join(spec.tasks), spec.summary))
    words = {"on": "loaded", "idle": "ready", "off": "not set up", "bad": "broken"}
    order = ("on", "idle", "bad", "off")
    rows.sort(key=lambda row: order.index(row[0]))
    cells = "".join(
        f'<tr><td><span class="dot {state}" title="{words[state]}"></span>{html.escape(name)}</td>'
        f"<td>{html.escape(tasks.replace('_', ' '))}</td><td>{html.escape(note)}</td></tr>"
        for state, name, tasks, note in rows
    )
    head = "<tr><th>specialist</th><th>serves</th><th></th></tr>"
    return f'<table class="specialists">{head}{cells}</table>'


def thumbnails(artefact: Artefact, most: int = 48) -> list[tuple[Pixels, str]]:
    """Return frames of a clip with their numbers; of a long clip, as many as a page can show."""
    count = artefact.num_frames
    chosen = sorted({int(at) for at in np.linspace(0, count - 1, min(count, most)).round()})
    return [(cast("Pixels", artefact.frames[at]), str(at)) for at in chosen]
