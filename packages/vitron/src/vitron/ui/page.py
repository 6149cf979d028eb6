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
from vitron.ui.examples import PageExample, page_examples
from vitron.ui.state import PageState, enlarge, rgb, status_of, thumbnails

MAX_PIXELS, MAX_FRAMES, MAX_UPLOAD = 64_000_000, 256, "32mb"
MAX_CHARACTERS = 8000
VIDEO_SUFFIXES = [".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png", ".apng"]
CLIP = ("video", "player", "slider", "frames")
SHOWN = ("state", "chat", "message", "results", "status", "redraw")

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container .main { padding: 12px 16px !important; }
#head { padding: .25rem .25rem 0; }
#head h1 { font-size: 1.4rem; margin: 0; }
#head p { margin: .15rem 0 0; opacity: .75; }
#notice { margin-top: -.75rem; }
#notice p { margin: 0 .25rem; font-size: .85rem; opacity: .75; }
#chat .message { font-size: .95rem; }
#chat .top-panel { display: none; }
#unreadable:not(:empty) { margin: 0; padding: .5rem .75rem; border-radius: .4rem; color: #fff;
  background: #b3261e; }
#editor .empty { padding: 0 4.5rem; text-align: center; }
.below .grid-wrap { padding-top: 2.2rem; min-height: 0 !important; }
#examples .grid-container { grid-template: none / repeat(auto-fill, minmax(6.5rem, 1fr));
  grid-auto-rows: auto; }
#results .grid-container { display: flex !important; flex-wrap: wrap; gap: .5rem; }
#results .gallery-item { width: 15rem; height: auto; }
#results:has(.preview) .gallery-container { min-height: 460px; }
#results .preview .caption { white-space: normal; max-height: 5rem; overflow-y: auto; flex: none; }
/* captions stand below, and the sign of a video in a corner: nothing covers what is shown, or tints it */
.below .thumbnail-lg { display: flex; flex-direction: column; height: auto; aspect-ratio: auto; }
.below .thumbnail-lg > img, .below .thumbnail-lg > video { height: auto; aspect-ratio: 1;
  object-fit: contain; flex: none; }
.below .thumbnail-lg .caption-label, .below .thumbnail-lg:hover .caption-label { position: static;
  max-width: none; width: 100%; border: 0; opacity: 1; white-space: normal; text-align: center;
  overflow-wrap: anywhere; font-size: .8rem; }
.below .thumbnail-lg > svg { width: 1.5rem; height: 1.5rem; left: auto; top: .25rem; right: .25rem;
  transform: none; opacity: 1; padding: .2rem; border-radius: 50%; color: #fff; background: #0009; }
.below .thumbnail-item:hover { filter: none; }
#examples .caption-label, #frames .caption-label { font-size: .7rem; padding: .2rem .3rem; }
#message textarea { font-size: 1rem; }
.specialists { width: 100%; border-collapse: collapse; font-size: .82rem; }
.specialists th { text-align: left; font-weight: 600; }
.specialists td, .specialists th { padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%; margin-right: .4rem; }
.dot.on { background: #1d9e6f; } .dot.idle { background: #7fb8ff; }
.dot.bad { background: #d64545; } .dot.off { background: #b8bcc4; }
"""

# the editor says nothing of a file that the browser cannot decode: the promise that it forgot to handle does
SCRIPT = """() => {
  const say = (text) => { document.getElementById("unreadable").textContent = text; };
  window.addEventListener("unhandledrejection", ({ reason }) => {
    if (["InvalidStateError", "EncodingError"].includes(reason?.name)) {
      say("This file is not an image that the browser can read.");
    }
  });
  for (const kind of ["change", "drop", "paste"]) { document.addEventListener(kind, () => say(""), true); }
}"""


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
            gr.HTML(f"<p>{html.escape(notice)}</p>", elem_id="notice")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                parts = _conversation_parts()
            with gr.Column(scale=5, min_width=320):
                gr.HTML('<p id="unreadable" role="alert"></p>', padding=False)
                parts |= _media_parts()
        with gr.Accordion("specialists", open=False):
            parts["status"] = gr.HTML(elem_id="status")
        parts["state"] = gr.State(None, time_to_live=3600, delete_callback=_forget)
        parts["redraw"] = gr.State(0)
        _connect(page, parts, handlers, concurrent)
    return page


def _conversation_parts() -> dict[str, Any]:
    chat = gr.Chatbot(
        label="conversation",
        show_label=False,
        elem_id="chat",
        height=380,
        render_markdown=False,
        buttons=[],
        feedback_options=None,
        placeholder="No messages yet.",
    )
    message = gr.Textbox(
        label="message",
        elem_id="message",
        placeholder="segment the red star; make it green; ...",
        lines=1,
        max_lines=6,
        max_length=MAX_CHARACTERS,
    )
    with gr.Row():
        send = gr.Button("Send", variant="primary", elem_id="send", min_width=80)
        stop = gr.Button("Stop", elem_id="stop", min_width=80)
        new = gr.Button("New conversation", elem_id="new", min_width=180)
    results = gr.Gallery(
        label="results, the newest first",
        columns=3,
        height="auto",
        object_fit="contain",
        interactive=False,
        visible=False,
        buttons=["download"],
        format="png",  # edges of masks stay sharp
        elem_id="results",
        elem_classes="below",
    )
    return {"chat": chat, "message": message, "send": send, "stop": stop, "new": new, "results": results}


def _media_parts() -> dict[str, Any]:
    editor = gr.ImageEditor(
        label="image",
        elem_id="editor",
        type="numpy",
        image_mode="RGBA",
        format="png",
        sources=("upload", "clipboard"),
        transforms=(),
        buttons=[],
        brush=gr.Brush(colors=["#ff3b6b"], default_color="#ff3b6b", color_mode="fixed"),
        placeholder="Drop an image here, paste one, or upload one",
        height=440,
    )
    with gr.Accordion("video", open=False, elem_id="video") as video:
        upload = gr.File(
            label="MP4, MOV, WebM, MKV, GIF, WebP or APNG",
            elem_id="video-file",
            file_types=VIDEO_SUFFIXES,
            height=140,
        )
        player = gr.Video(
            label="the video, as the model gets it",
            interactive=False,
            loop=True,
            height=240,
            visible=False,
            buttons=["download"],
            elem_id="player",
        )
        slider = gr.Slider(0, 1, step=1, value=0, label="frame", visible=False, elem_id="frame")
        frames = gr.Gallery(
            label="frames: click one to draw on it",
            columns=6,
            height=180,
            visible=False,
            interactive=False,
            allow_preview=False,
            buttons=[],
            elem_id="frames",
            elem_classes="below",
        )
    examples = gr.Gallery(
        label="examples: click one",
        columns=5,
        height="auto",
        object_fit="contain",
        interactive=False,
        allow_preview=False,
        buttons=[],
        format="png",
        elem_id="examples",
        elem_classes="below",
    )
    found = {"editor": editor, "video": video, "upload": upload, "player": player, "slider": slider}
    return found | {"frames": frames, "examples": examples}


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
