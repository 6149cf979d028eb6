# SPDX-License-Identifier: Apache-2.0
"""The page, of Gradio's blocks."""

from __future__ import annotations

import html
import secrets
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.themes import Soft
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import MediaError, explain
from vitron.protocol.media import Artefact, read_media, write_media
from vitron.protocol.messages import MessageGenerator
from vitron.protocol.sampling import SamplingParams
from vitron.session import Conversation
from vitron.specialists.registry import SpecialistRegistry
from vitron.ui.components import CSS, MAX_CHARACTERS, SCRIPT, conversation_parts, media_parts
from vitron.ui.examples import PageExample, page_examples
from vitron.ui.state import PageState, enlarge, rgb, status_of, thumbnails

MAX_PIXELS, MAX_FRAMES, MAX_UPLOAD = 64_000_000, 256, "32mb"
CLIP = ("video", "player", "slider", "frames")
SHOWN = ("state", "chat", "message", "results", "status", "redraw")


def build_page(
    generator: MessageGenerator,
    *,
    specialists: SpecialistRegistry | None = None,
    model: str = "vitron",
    notice: str | None = None,
    sampling: SamplingParams | None = None,
    concurrent: int = 1,
) -> gr.Blocks:
    """Return the page; each visitor has a conversation of their own.

    Args:
        generator: Generator of assistant messages; with ``concurrent`` above 1 called from several threads at
            once, as :class:`vitron.model.batching.ContinuousBatcher` can be.
        specialists: Specialists that run calls; by default all that are installed.
        model: Name of the model.
        notice: Sentence that visitors should read first, such as :attr:`vitron.Vitron.notice`.
        sampling: Sampling options.
        concurrent: Messages generated at a time; further visitors wait.
    """
    registry = SpecialistRegistry().discover() if specialists is None else specialists
    handlers = _Handlers(generator, registry, sampling or SamplingParams(max_new_tokens=512))
    title = f"vitron: {model}"
    # uploads and images that were not viewed for an hour are deleted
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as page:
        gr.HTML(
            f"<h1>vitron</h1><p>{html.escape(model)} &middot; add an image or a video, mark regions on "
            "it (a layer for each), and write what you want; or begin with an example</p>",
            elem_id="head",
        )
        if notice is not None:
            sentence = html.escape(notice[:1].upper() + notice[1:])
            gr.HTML(f"<p>{sentence}</p>", elem_id="notice")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                parts = conversation_parts()
            with gr.Column(scale=5, min_width=320):
                gr.HTML('<p id="unreadable" role="alert"></p>', padding=False, elem_id="fault")
                parts |= media_parts()
        with gr.Accordion("specialists", open=False):
            parts["status"] = gr.HTML(elem_id="status")
        parts["state"] = gr.State(None, time_to_live=3600, delete_callback=_forget)
        parts["redraw"] = gr.State(0)
        _connect(page, parts, handlers, concurrent)
    return page


def _connect(page: gr.Blocks, parts: dict[str, Any], handlers: _Handlers, concurrent: int) -> None:
    """Connect the events; none of the handlers can be called from outside the page."""
    state, redraw, editor, slider, frames = (
        parts[name] for name in ("state", "redraw", "editor", "slider", "frames")
    )
    message, examples = parts["message"], parts["examples"]
    shown, clip = [parts[name] for name in SHOWN], [parts[name] for name in CLIP]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    generating: dict[str, Any] = {"concurrency_limit": concurrent, "concurrency_id": "generate"} | quiet
    sending: Any = [
        event(handlers.send, [state, message, editor], shown, **generating)
        for event in (parts["send"].click, message.submit)
    ]
    parts["stop"].click(None, cancels=sending, **quiet)
    parts["new"].click(handlers.new, [state], shown, cancels=sending, **quiet)
    page.load(handlers.welcome, None, [parts["status"], examples], **quiet)
    # an editor that is an output loads its image anew and loses strokes, even where its value is skipped
    redraw.change(handlers.draw, [state], [editor, *clip], **quiet)
    editor.upload(handlers.add_image, [state, editor], [state, redraw, *clip], **quiet)
    editor.clear(handlers.clear, [state], [state, redraw], **quiet)
    parts["upload"].upload(handlers.add_video, [state, parts["upload"]], [state, redraw], **quiet)
    slider.release(handlers.select, [state, slider], [state, editor], **quiet)
    frames.select(handlers.click, [state], [state, editor, slider], **quiet)
    examples.select(handlers.add_example, [state], [state, redraw, message], **quiet)


class _Handlers:
    """Handlers of the page's events; all data of a visitor are in the state."""

    def __init__(
        self, generator: MessageGenerator, registry: SpecialistRegistry, sampling: SamplingParams
    ) -> None:
        self._generator = generator
        self._registry = registry
        self._sampling = sampling
        self._folder = tempfile.TemporaryDirectory(prefix="vitron-")  # deleted with the process
        self._examples = dict[int, str]()

    @cached_property
    def _offered(self) -> tuple[PageExample, ...]:
        """Examples whose calls some specialist runs: the others would end in an error."""
        return tuple(
            example for example in page_examples() if all(map(self._registry.for_module, example.modules))
        )

    def _state(self, state: PageState | None) -> PageState:
        return state or PageState(Conversation(self._generator, specialists=self._registry))

    def new(self, state: PageState | None) -> tuple[Any, ...]:
        """Show an empty page."""
        _forget(state)
        fresh = self._state(None)
        fresh.redraws = 0 if state is None else state.redraws
        return self._all(fresh)

    def welcome(self) -> tuple[Any, ...]:
        """Show the states of the specialists, and the examples."""
        shown = list[tuple[Any, str]]()
        for example in self._offered:
            if example.artefact.kind == "video" and id(example) not in self._examples:
                self._examples[id(example)] = self._write(example.artefact)
            image = Image.fromarray(enlarge(example.artefact.frames[0]))
            shown.append((self._examples.get(id(example), image), example.text))
        return status_of(self._registry), shown

    def send(
        self, state: PageState | None, text: str, drawing: dict[str, Any] | None
    ) -> Iterator[tuple[Any, ...]]:
        """Send a message, and show the answer as it comes."""
        state = self._state(state)
        if not text.strip():
            yield (state, *[gr.skip()] * (len(SHOWN) - 2), state.redraws)
            return
        # the model gets what the visitor sees: strokes are regions, and never part of the image
        image, layers = _image(drawing), (drawing or {}).get("layers") or []
        if image is not None and state.is_new(image):
            state.add(Artefact("image", image))
        message: Any = ""  # cleared once: text typed during the answer is kept
        skip = gr.skip()
        for news in state.send(text.strip()[:MAX_CHARACTERS], layers, self._sampling):
            if news != "done":
                results = self._gallery(state) if news == "result" else skip
                yield state, _lines(state), message, results, skip, state.redraws
                message = skip
        yield self._all(state, message)

    def _all(self, state: PageState, message: Any = "") -> tuple[Any, ...]:
        state.redraws += 1
        shown = (_lines(state), message, self._gallery(state), status_of(self._registry))
        return (state, *shown, state.redraws)

    def _gallery(self, state: PageState) -> dict[str, Any]:
        """Return images as pixels, videos as files; Gradio copies them to its own folder.

        A gallery without results would be an empty area between the message and the image.
        """
        shown = list[tuple[Any, str]]()
        for item in state.results[:32]:
            artefact = item.artefact
            is_video = artefact.kind == "video"
            made = self._file(state, artefact) if is_video else Image.fromarray(enlarge(artefact.frames[0]))
            shown.append((made, item.caption))
        return gr.update(value=shown, visible=bool(shown))

    def _file(self, state: PageState, video: Artefact) -> str:
        """Return the file of a video of the conversation; it is written once."""
        known = next((path for other, path in state.files if other is video), None)
        if known is None:
            known = self._write(video)
            state.files.append((video, known))
        return known

    def _write(self, video: Artefact) -> str:
        frames = np.stack([enlarge(frame) for frame in video.frames])
        large = Artefact("video", frames, fps=video.fps)
        return str(write_media(large, Path(self._folder.name), secrets.token_hex(16)))

    def draw(self, state: PageState | None) -> tuple[Any, ...]:
        """Return editor, video, player, slider and frames for the image or video to work on."""
        state = self._state(state)
        return (_drawing(state), *self._clip(state))

    def _clip(self, state: PageState) -> tuple[Any, ...]:
        latest = state.latest
        if latest is None or latest.kind != "video":
            hidden = gr.update(visible=False)
            return gr.skip(), gr.update(visible=False, value=None), hidden, hidden
        return (
            gr.update(open=True),
            gr.update(visible=True, value=self._file(state, latest)),
            gr.update(
                visible=latest.num_frames > 1, maximum=max(1, latest.num_frames - 1), value=state.frame
            ),
            gr.update(visible=True, value=thumbnails(latest)),
        )

    def add_image(self, state: PageState | None, drawing: dict[str, Any] | None) -> tuple[Any, ...]:
        """Add the image in the editor, which is drawn anew if the page shows another than was uploaded."""
        state = self._state(state)
        image = _image(drawing)
        if drawing is None or image is None or state.has_shown(image):
            return (state, state.redraws, *[gr.skip()] * len(CLIP))
        state.add(Artefact("image", image))
        canvas = state.show()
        if canvas is None or not np.array_equal(drawing["background"][..., :3], canvas):
            state.redraws += 1
        return (state, state.redraws, *self._clip(state))

    def clear(self, state: PageState | None) -> tuple[Any, ...]:
        """Remove the unsent medium and the drawing; the latest image of the conversation is shown again."""
        state = self._state(state)
        state.clear()
        state.redraws += 1
        return state, state.redraws

    def add_video(self, state: PageState | None, path: str | None) -> tuple[Any, ...]:
        """Add an uploaded video or image."""
        state = self._state(state)
        if path is None:
            return state, state.redraws
        try:
            found = read_media(Path(path), max_pixels=MAX_PIXELS, max_frames=MAX_FRAMES)
        except MediaError as error:
            # the message must not show the upload folder
            reason = explain(error).replace(path, "the file")
            reason = reason.replace("not an image", "neither a video nor an image")
            raise gr.Error(reason, print_exception=False) from error
        if found.note:
            gr.Info(f"{found.note} are used")
        state.add(found)
        state.redraws += 1
        return state, state.redraws

    def add_example(self, state: PageState | None, event: gr.SelectData) -> tuple[Any, ...]:
        """Add the image or video of the example that was clicked, and offer its message."""
        state = self._state(state)
        example = self._offered[int(event.index)]
        state.add(example.artefact)
        state.redraws += 1
        return state, state.redraws, example.text

    def select(self, state: PageState | None, frame: float) -> tuple[Any, ...]:
        """Show another frame."""
        state = self._state(state)
        state.frame = int(frame)
        return state, _drawing(state)

    def click(self, state: PageState | None, event: gr.SelectData) -> tuple[Any, ...]:
        """Show the frame that was clicked."""
        state = self._state(state)
        latest, index = state.latest, int(event.index)
        frames = [] if latest is None else thumbnails(latest)
        if index < len(frames):
            state.frame = int(frames[index][1])
        return state, _drawing(state), state.frame


def _lines(state: PageState) -> list[dict[str, Any]]:
    """Return messages as text: the page would turn tags into elements, and load what they name."""
    return [each | {"content": html.escape(each["content"], quote=False)} for each in state.messages]


def _image(drawing: dict[str, Any] | None) -> NDArray[np.uint8] | None:
    """Return the image in the editor, over white; its size is checked before anything is computed."""
    background: NDArray[np.uint8] | None = (drawing or {}).get("background")
    if background is None:
        return None
    height, width = background.shape[:2]
    if height * width > MAX_PIXELS:
        raise gr.Error(
            f"an image has at most {MAX_PIXELS:,} pixels, this one has {height * width:,}",
            print_exception=False,
        )
    return rgb(background)


def _drawing(state: PageState) -> dict[str, Any] | None:
    canvas = state.show()
    return None if canvas is None else {"background": canvas, "layers": [], "composite": None}


def _forget(state: PageState | None) -> None:
    """Delete the files of a visitor who left."""
    for _, path in [] if state is None else state.files:
        Path(path).unlink(missing_ok=True)


def launch(
    generator: MessageGenerator,
    *,
    specialists: SpecialistRegistry | None = None,
    model: str = "vitron",
    notice: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    concurrent: int = 1,
    block: bool = True,
) -> gr.Blocks:
    """Serve the page until it is closed; no public link is made.

    Args:
        generator: Generator of assistant messages.
        specialists: Specialists that run calls.
        model: Name of the model.
        notice: Sentence that visitors should read first, as in :func:`build_page`.
        host: Address to listen at.
        port: Port to listen at.
        password: Password of the user ``vitron``; ``None`` admits everybody who can reach the page.
        concurrent: Messages generated at a time, as in :func:`build_page`.
        block: Whether to return only when the page is closed.
    """
    page = build_page(generator, specialists=specialists, model=model, notice=notice, concurrent=concurrent)
    page.queue(max_size=32, default_concurrency_limit=4)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        auth=None if password is None else ("vitron", password),
        max_file_size=MAX_UPLOAD,
        quiet=True,
        prevent_thread_lock=not block,
        ssr_mode=False,
        footer_links=[],
        state_session_capacity=256,
        css=CSS,
        js=SCRIPT,
        theme=Soft(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        allowed_paths=[],
    )
    return page
