# SPDX-License-Identifier: Apache-2.0
"""The page itself, of Gradio's blocks."""

from __future__ import annotations

import html
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.themes import Soft
from PIL import Image

from vitron.errors import MediaError, explain
from vitron.protocol.media import Artefact, read_media, write_media
from vitron.protocol.messages import MessageGenerator, SamplingParams
from vitron.specialists.registry import SpecialistRegistry
from vitron.ui.visit import Shown, Visit, enlarge, rgb, status_of, thumbnails

MAX_PIXELS, MAX_FRAMES, MAX_UPLOAD = 64_000_000, 256, "32mb"
MAX_CHARACTERS = 8000
SHOWN = ("visit", "chat", "say", "editor", "slider", "frames", "made", "status")

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container .main { padding: 12px 16px !important; }
#head { padding: .25rem .25rem 0; }
#head h1 { font-size: 1.4rem; margin: 0; }
#head p { margin: .15rem 0 0; opacity: .75; }
#chat .message { font-size: .95rem; }
#chat button[aria-label="Clear"] { display: none; }
#made .grid-wrap, #frames .grid-wrap { padding-top: 2.2rem; }
#made .grid-wrap > div { display: flex !important; flex-wrap: wrap; gap: .5rem; }
#made .grid-wrap button { width: 15rem !important; height: 15rem !important; flex: none; }
#made .gallery-item { width: auto !important; }
#made .caption-label { white-space: normal; text-align: right; }
#say textarea { font-size: 1rem; }
.specialists { width: 100%; border-collapse: collapse; font-size: .82rem; }
.specialists th { text-align: left; font-weight: 600; }
.specialists td, .specialists th { padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); overflow-wrap: anywhere; }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%; margin-right: .4rem; }
.dot.on { background: #1d9e6f; } .dot.idle { background: #7fb8ff; }
.dot.bad { background: #d64545; } .dot.off { background: #b8bcc4; }
"""


def build_page(
    replier: MessageGenerator,
    *,
    specialists: SpecialistRegistry | None = None,
    model: str = "vitron",
    sampling: SamplingParams | None = None,
    concurrent: int = 1,
) -> gr.Blocks:
    """Return the page; each visitor has a talk of their own.

    Args:
        replier: What writes the replies; with ``concurrent`` above 1 from several threads at once, as
            :class:`vitron.model.batching.Batcher` can.
        specialists: Who carries out calls; by default all that are installed.
        model: Its name.
        sampling: How replies are drawn.
        concurrent: Replies at a time; more wait in line.
    """
    registry = SpecialistRegistry().discover() if specialists is None else specialists
    handlers = _Handlers(replier, registry, sampling or SamplingParams(max_new_tokens=512))
    title = f"vitron: {model}"
    # uploads and pictures that nobody looked at for an hour are deleted
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as page:
        gr.HTML(
            f"<h1>vitron</h1><p>{html.escape(model)} &middot; bring a picture or a clip, draw on it what you "
            "mean (a layer for each region), and say what shall happen</p>",
            elem_id="head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                parts = _talk_parts()
            with gr.Column(scale=5, min_width=320):
                parts |= _picture_parts()
        parts["made"] = gr.Gallery(
            label="masks and edits, the newest first",
            columns=4,
            height=320,
            object_fit="contain",
            interactive=False,
            buttons=["download"],
            format="png",  # edges of masks stay sharp
            elem_id="made",
        )
        with gr.Accordion("specialists", open=False):
            parts["status"] = gr.HTML(elem_id="status")
        parts["visit"] = gr.State(None, time_to_live=3600)
        _connect(page, parts, handlers, concurrent)
    return page


def _talk_parts() -> dict[str, Any]:
    chat = gr.Chatbot(
        label="talk",
        show_label=False,
        elem_id="chat",
        height=380,
        render_markdown=False,
        buttons=[],
        feedback_options=None,
        placeholder="Nothing was said yet.",
    )
    say = gr.Textbox(
        label="message",
        elem_id="say",
        placeholder="mark the red star; make it green; ...",
        lines=1,
        max_lines=6,
        max_length=MAX_CHARACTERS,
    )
    with gr.Row():
        send = gr.Button("Send", variant="primary", elem_id="send", min_width=80)
        stop = gr.Button("Stop", elem_id="stop", min_width=80)
        new = gr.Button("New talk", elem_id="new", min_width=80)
    return {"chat": chat, "say": say, "send": send, "stop": stop, "new": new}


def _picture_parts() -> dict[str, Any]:
    editor = gr.ImageEditor(
        label="picture",
        elem_id="editor",
        type="numpy",
        image_mode="RGBA",
        format="png",
        sources=("upload", "clipboard"),
        transforms=(),
        buttons=[],
        brush=gr.Brush(colors=["#ff3b6b"], default_color="#ff3b6b", color_mode="fixed"),
        placeholder="Drop a picture here, paste one, or upload it by the arrow at the left",
        height=440,
    )
    with gr.Accordion("clip", open=False, elem_id="clip"):
        upload = gr.File(
            label="GIF, WebP or APNG",
            elem_id="clip-file",
            file_types=[".gif", ".webp", ".png", ".apng"],
            height=96,
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
        )
    return {"editor": editor, "upload": upload, "slider": slider, "frames": frames}


def _connect(page: gr.Blocks, parts: dict[str, Any], handlers: _Handlers, concurrent: int) -> None:
    """Say what happens when something is clicked; none of it can be called but from the page."""
    visit, editor, slider, frames = (parts[name] for name in ("visit", "editor", "slider", "frames"))
    shown = [parts[name] for name in SHOWN]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    reply: dict[str, Any] = {"concurrency_limit": concurrent, "concurrency_id": "reply"} | quiet
    asking: Any = [
        event(handlers.ask, [visit, parts["say"], editor], shown, **reply)
        for event in (parts["send"].click, parts["say"].submit)
    ]
    parts["stop"].click(None, cancels=asking, **quiet)
    parts["new"].click(handlers.begin, None, shown, cancels=asking, **quiet)
    page.load(handlers.status, None, parts["status"], **quiet)
    brought = [visit, editor, slider, frames]
    editor.upload(handlers.bring_picture, [visit, editor], brought, **quiet)
    editor.clear(handlers.drop, [visit], brought, **quiet)
    parts["upload"].upload(handlers.bring_clip, [visit, parts["upload"]], brought, **quiet)
    slider.release(handlers.choose, [visit, slider], [visit, editor], **quiet)
    frames.select(handlers.click, [visit], [visit, editor, slider], **quiet)


class _Handlers:
    """What happens when something is clicked. All that a visitor has is in the visit."""

    def __init__(
        self, replier: MessageGenerator, registry: SpecialistRegistry, sampling: SamplingParams
    ) -> None:
        self._replier = replier
        self._registry = registry
        self._sampling = sampling
        self._folder = tempfile.TemporaryDirectory(prefix="vitron-")  # goes with the process

    def _visit(self, visit: Visit | None) -> Visit:
        return visit or Visit.begin(self._replier, self._registry)

    def begin(self) -> tuple[Any, ...]:
        """Show an empty page."""
        return self._all(self._visit(None))

    def status(self) -> str:
        """Tell how the specialists are."""
        return status_of(self._registry)

    def ask(
        self, visit: Visit | None, text: str, drawing: dict[str, Any] | None
    ) -> Iterator[tuple[Any, ...]]:
        """Say something, and show the reply as it comes."""
        visit = self._visit(visit)
        if not text.strip():
            yield (visit, *[gr.skip()] * 7)
            return
        layers = (drawing or {}).get("layers") or []
        said: Any = ""  # is emptied once: what is written while the reply comes is kept
        skip = gr.skip()
        for news in visit.ask(text.strip()[:MAX_CHARACTERS], layers, self._sampling):
            if news != "done":
                pictures = self._gallery(visit.made) if news == "made" else skip
                yield visit, _lines(visit), said, skip, skip, skip, pictures, skip
                said = skip
        yield self._all(visit, said)

    def _all(self, visit: Visit, said: Any = "") -> tuple[Any, ...]:
        return (
            visit,
            _lines(visit),
            said,
            *_canvas(visit),
            self._gallery(visit.made),
            self.status(),
        )

    def _gallery(self, made: list[Shown]) -> list[tuple[Any, str]]:
        return [(self._picture(shown), shown.caption) for shown in made[:32]]

    def _picture(self, shown: Shown) -> Any:
        """A picture as pixels, a clip as a file, for it has to move; Gradio copies it to its own folder."""
        if shown.artefact.kind == "image":
            return Image.fromarray(enlarge(shown.artefact.frames[0]))
        if not shown.file:
            frames = np.stack([enlarge(frame) for frame in shown.artefact.frames])
            folder = Path(self._folder.name)
            shown.file = str(write_media(Artefact("video", frames), folder, secrets.token_hex(16)))
        return shown.file

    def bring_picture(self, visit: Visit | None, drawing: dict[str, Any] | None) -> tuple[Any, ...]:
        """Take a picture that was put into the editor."""
        visit = self._visit(visit)
        background = (drawing or {}).get("background")
        if background is None:
            return (visit, *[gr.skip()] * 3)
        picture = rgb(np.asarray(background))
        if picture.shape[0] * picture.shape[1] > MAX_PIXELS:
            raise gr.Error(f"a picture has at most {MAX_PIXELS} pixels")
        if visit.has_shown(picture):
            return (visit, *[gr.skip()] * 3)
        visit.bring(Artefact("image", picture))
        return (visit, *_canvas(visit))

    def drop(self, visit: Visit | None) -> tuple[Any, ...]:
        """Forget what was not yet sent and what was drawn; the last picture of the talk comes back."""
        visit = self._visit(visit)
        visit.drop()
        return (visit, *_canvas(visit))

    def bring_clip(self, visit: Visit | None, path: str | None) -> tuple[Any, ...]:
        """Take a clip, or a picture, that was uploaded."""
        visit = self._visit(visit)
        if path is None:
            return (visit, *[gr.skip()] * 3)
        try:
            visit.bring(read_media(Path(path), max_pixels=MAX_PIXELS, max_frames=MAX_FRAMES))
        except MediaError as error:
            # where the page keeps its uploads is nobody's business
            raise gr.Error(explain(error).replace(path, "the file")) from error
        return (visit, *_canvas(visit))

    def choose(self, visit: Visit | None, frame: float) -> tuple[Any, ...]:
        """Show another frame."""
        visit = self._visit(visit)
        visit.frame = int(frame)
        return visit, _drawing(visit)

    def click(self, visit: Visit | None, event: gr.SelectData) -> tuple[Any, ...]:
        """Show the frame that was clicked."""
        visit = self._visit(visit)
        latest, index = visit.latest, int(event.index)
        frames = [] if latest is None else thumbnails(latest)
        if index < len(frames):
            visit.frame = int(frames[index][1])
        return visit, _drawing(visit), visit.frame


def _lines(visit: Visit) -> list[dict[str, Any]]:
    """What was said, as text: the page would make elements of tags, and load what they name."""
    return [each | {"content": html.escape(each["content"], quote=False)} for each in visit.messages]


def _drawing(visit: Visit) -> dict[str, Any] | None:
    canvas = visit.show()
    return None if canvas is None else {"background": canvas, "layers": [], "composite": None}


def _canvas(visit: Visit) -> tuple[Any, ...]:
    """Editor, slider and frames, for what is worked on."""
    latest = visit.latest
    if latest is None or latest.kind != "video":
        return _drawing(visit), gr.update(visible=False), gr.update(visible=False, value=[])
    slider = gr.update(
        visible=latest.num_frames > 1, maximum=max(1, latest.num_frames - 1), value=visit.frame
    )
    return _drawing(visit), slider, gr.update(visible=True, value=thumbnails(latest))


def launch(
    replier: MessageGenerator,
    *,
    specialists: SpecialistRegistry | None = None,
    model: str = "vitron",
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str | None = None,
    concurrent: int = 1,
    block: bool = True,
) -> gr.Blocks:
    """Show the page until it is closed; nothing is shared with the world.

    Args:
        replier: What writes the replies.
        specialists: Who carries out calls.
        model: Its name.
        host: Where to listen.
        port: Where to listen.
        password: Of the user ``vitron``; ``None`` lets everybody in who can reach the page.
        concurrent: Replies at a time, as of :func:`build_page`.
        block: Whether to return only when the page is closed.
    """
    page = build_page(replier, specialists=specialists, model=model, concurrent=concurrent)
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
        theme=Soft(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        allowed_paths=[],
    )
    return page
