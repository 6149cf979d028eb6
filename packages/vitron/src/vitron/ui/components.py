# SPDX-License-Identifier: Apache-2.0
"""Components of the page, and their style."""

from __future__ import annotations

from typing import Any

import gradio as gr

__all__ = ["CSS", "MAX_CHARACTERS", "SCRIPT", "conversation_parts", "media_parts"]

MAX_CHARACTERS = 8000
VIDEO_SUFFIXES = [".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png", ".apng"]

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
#fault:has(#unreadable:empty) { display: none; }
#unreadable { margin: 0; padding: .5rem .75rem; border-radius: .4rem; color: #fff;
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


def conversation_parts() -> dict[str, Any]:
    """Return the components of the conversation and its results, by name."""
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


def media_parts() -> dict[str, Any]:
    """Return the components that show, draw on and choose images and videos, by name."""
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
            height=190,
        )
        player = gr.Video(
            label="the video, as the model gets it",
            show_label=False,  # it would cover the frame
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
