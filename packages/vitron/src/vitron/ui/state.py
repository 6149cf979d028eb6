# SPDX-License-Identifier: Apache-2.0
"""The state of one visitor of the page, shared with no other visitor."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vitron.errors import explain
from vitron.protocol.contract import Region
from vitron.protocol.media import Artefact, overlay
from vitron.protocol.regions import mask_to_region
from vitron.protocol.sampling import SamplingParams
from vitron.session import (
    CallEvent,
    CallResult,
    Conversation,
    DoneEvent,
    IssueEvent,
    ResultEvent,
    RetryEvent,
    TextEvent,
)
from vitron.specialists.registry import SpecialistRegistry

Pixels = NDArray[np.uint8]
SMALLEST = 384  # pixels of the longer side, below which an image is enlarged to be drawn on


def enlarge(image: Pixels) -> Pixels:
    """Return an image enlarged by a whole factor, so that a small one can be drawn on.

    Args:
        image: ``(H, W, 3)``.

    Returns:
        ``(n * H, n * W, 3)``.
    """
    factor = max(1, -(-SMALLEST // max(image.shape[:2])))
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def regions_of(layers: Sequence[NDArray[Any] | None], frame: int | None = None) -> list[Region]:
    """Return the drawing on each layer of an editor as a region; empty layers give none.

    Args:
        layers: ``(H, W, 4)`` each; pixels that are not transparent were drawn.
        frame: Frame of the video that was drawn on.
    """
    drawn = [
        np.asarray(layer[..., 3] > 0, dtype=np.bool_)
        for layer in layers
        if layer is not None and layer.ndim == 3 and layer.shape[-1] == 4
    ]
    regions = (mask_to_region(mask, frame=frame) for mask in drawn if mask.any())
    return [region.model_copy(update={"brush": True}) for region in regions]


def rgb(image: NDArray[Any]) -> Pixels:
    """Return the colours of an image from an editor, over white."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.shape[-1] == 3 or (image[..., 3] == 255).all():
        return np.ascontiguousarray(image[..., :3], dtype=np.uint8)
    alpha = image[..., 3:].astype(np.float64) / 255
    return np.asarray((image[..., :3] * alpha + 255 * (1 - alpha)).round(), dtype=np.uint8)


@dataclass(slots=True)
class GalleryItem:
    """A result in the gallery.

    Attributes:
        artefact: Image or video; masks as an overlay.
        caption: One line.
    """

    artefact: Artefact
    caption: str


@dataclass(slots=True)
class PageState:
    """The state of one visitor.

    Attributes:
        conversation: The conversation.
        messages: Messages as the page shows them.
        results: Results of calls, the newest first.
        pending: Image or video of the next message.
        frame: Frame of the video in the editor, from 0.
        shown: Frames given to the editor since the image or video was added.
        past: Size and every n-th pixel of all images given to the editor.
        files: Videos that were written for the page, and their files.
        redraws: How often the editor was to be drawn anew.
    """

    conversation: Conversation
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    results: list[GalleryItem] = field(default_factory=list[GalleryItem])
    pending: Artefact | None = None
    frame: int = 0
    shown: set[int] = field(default_factory=set[int])
    past: list[tuple[tuple[int, ...], Pixels]] = field(default_factory=list[tuple[tuple[int, ...], Pixels]])
    files: list[tuple[Artefact, str]] = field(default_factory=list[tuple[Artefact, str]])
    redraws: int = 0

    @property
    def latest(self) -> Artefact | None:
        """The image or video to work on: that of the next message, or the latest of the conversation."""
        return self.conversation.latest if self.pending is None else self.pending

    @property
    def canvas(self) -> Pixels | None:
        """The image to draw on."""
        latest = self.latest
        if latest is None:
            return None
        return enlarge(latest.frames[min(self.frame, latest.num_frames - 1)])

    def show(self) -> Pixels | None:
        """Return the image to draw on, and remember that the editor has it."""
        self.shown.add(self.frame)
        canvas = self.canvas
        if canvas is not None:
            self.past = [*self.past[-63:], (canvas.shape, _sparse(canvas))]
        return canvas

    def has_shown(self, image: Pixels) -> bool:
        """Return whether an image from the editor is one that the page gave to it.

        An editor reports an upload even if the page itself set the image.
        """
        latest = self.latest
        if latest is None:
            return False
        frames = (latest.frames[at] for at in self.shown if at < latest.num_frames)
        return any(_alike(enlarge(frame), image) for frame in frames)

    def is_new(self, image: Pixels) -> bool:
        """Return whether an image from the editor is one that the page never gave to it.

        The page may hear of an upload with what the editor held before, and of the image with the message.
        """
        sparse = _sparse(image)
        return not any(shape == image.shape and _alike(other, sparse) for shape, other in self.past)

    def add(self, artefact: Artefact) -> None:
        """Add an image or a video to the next message."""
        self.pending, self.frame, self.shown = artefact, 0, set()

    def clear(self) -> None:
        """Remove the image or video of the next message."""
        self.pending, self.frame, self.shown = None, 0, set()

    def send(
        self, text: str, layers: Sequence[NDArray[Any] | None], sampling: SamplingParams
    ) -> Iterator[Literal["text", "result", "done"]]:
        """Send a user message and follow the answer; yields whenever there is something new to show.

        If it fails, one message reports it, and the conversation is unchanged.
        """
        latest = self.latest
        frame = self.frame if latest is not None and latest.kind == "video" else None
        try:
            regions = regions_of(layers, frame)
            conversation = self.conversation.fork()
            sent = self.pending
            media = [] if sent is None else [sent]
            handles = conversation.add_user_message(text, media=media, regions=regions)
        except ValueError as error:
            self._show("user", text)
            self._show("assistant", explain(error), "not sent")
            yield "done"
            return
        extra = [*handles, *(f"{len(regions)} region{'s' * (len(regions) > 1)}" for _ in regions[:1])]
        self._show("user", text + (f" [{', '.join(extra)}]" if extra else ""))
        try:
            yield from self._follow(conversation, sampling, sent)
        except Exception as error:  # no error of a model may end the page
            self._show("assistant", explain(error), "failed")
        yield "done"

    def _follow(
        self, conversation: Conversation, sampling: SamplingParams, sent: Artefact | None
    ) -> Iterator[Literal["text", "result"]]:
        is_open = False
        for event in conversation.generate(sampling):
            match event:
                case TextEvent():
                    if not is_open and not event.text.strip():
                        continue
                    if not is_open:
                        self._show("assistant", "")
                        is_open = True
                    self.messages[-1]["content"] += event.text
                    yield "text"
                    continue
                case CallEvent():
                    actions = "; ".join(
                        f"{each.verb} {each.text}".strip() for each in event.invocation.instruction
                    )
                    self._show("assistant", actions or "...", event.invocation.module)
                case IssueEvent():
                    self._show("assistant", event.issue.message, "not understood")
                case RetryEvent():
                    self._show("assistant", "The text above does not count.", "asked again")
                case ResultEvent():
                    self._add_result(event.result, conversation.media)
                case DoneEvent():
                    self.conversation = conversation
                    if self.pending is sent:  # what was added during the answer waits for the next message
                        self.pending = None
                    latest = self.latest
                    self.frame = min(self.frame, latest.num_frames - 1) if latest is not None else 0
                case _:
                    continue
            is_open = False
            yield "result"

    def _add_result(self, result: CallResult, media: Mapping[str, Artefact]) -> None:
        call, made = result.call, result.artefact
        if made is None:
            error = result.error or RuntimeError("there is no result")
            self._show("assistant", explain(error), f"{call.invocation.module} failed")
            return
        source = media.get(call.input or "")
        labels = f": {_counted(made.labels)}" if made.labels else ""
        origin = f" from {call.input}" if call.input else ""
        if made.kind == "masks" and source is not None and source.num_frames == made.num_frames:
            made = overlay(made, source)
        self.results.insert(0, GalleryItem(made, f"{call.output}{labels}{origin}, by {result.specialist}"))
        self._show("assistant", result.note or "done", f"{call.output}{origin} by {result.specialist}")

    def _show(self, role: str, content: str, title: str = "") -> None:
        metadata = {"metadata": {"title": title}} if title else {}
        self.messages.append({"role": role, "content": content, **metadata})


def _counted(labels: Sequence[str]) -> str:
    """Return labels, each once, with its number if that is not 1."""
    return ", ".join(f"{label} ({count})" if count > 1 else label for label, count in Counter(labels).items())


def _sparse(image: Pixels) -> Pixels:
    """Return pixels that tell images apart: whole rows and columns would be much to keep."""
    height, width = image.shape[:2]
    return image[:: max(1, height // 64), :: max(1, width // 64)].copy()


def _alike(one: Pixels, other: Pixels) -> bool:
    # the canvas of a browser may round colours
    return one.shape == other.shape and int(np.abs(one.astype(np.int16) - other).max(initial=0)) <= 2


def status_of(registry: SpecialistRegistry) -> str:
    """Return the specialists and their states as a table in HTML."""
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
    titles = {"on": "loaded", "idle": "ready", "off": "not set up", "bad": "failed"}
    order = ("on", "idle", "bad", "off")
    rows.sort(key=lambda row: order.index(row[0]))
    cells = "".join(
        f'<tr><td><span class="dot {state}" title="{titles[state]}"></span>{html.escape(name)}</td>'
        f"<td>{html.escape(tasks.replace('_', ' '))}</td><td>{html.escape(note)}</td></tr>"
        for state, name, tasks, note in rows
    )
    head = "<tr><th>specialist</th><th>serves</th><th></th></tr>"
    return f'<table class="specialists">{head}{cells}</table>'


def thumbnails(artefact: Artefact, most: int = 48) -> list[tuple[Pixels, str]]:
    """Return frames of a video with their numbers, at most as many as a page can show."""
    count = artefact.num_frames
    chosen = sorted({int(at) for at in np.linspace(0, count - 1, min(count, most)).round()})
    return [(cast("Pixels", artefact.frames[at]), str(at)) for at in chosen]
