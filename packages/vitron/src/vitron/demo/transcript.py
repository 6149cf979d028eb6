# SPDX-License-Identifier: Apache-2.0
"""Scores and the HTML transcript of a demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common_kernels.runtime.pictures import escape, html_image, html_page

from vitron.protocol.media import Artefact, encode, overlay
from vitron.session import CallResult, Conversation

__all__ = ["DemoScores", "TaskScore", "image_tag", "shown", "transcript_page"]

_STYLE = """
body { max-width: 46rem; margin: 0 auto; padding: 2rem 1rem 4rem; line-height: 1.5 }
section { border-top: 1px solid #8884; padding: .5rem 0 1rem } h2 { font-size: 1rem }
.user, .message, .text { padding: .5rem .8rem; border-radius: .6rem; margin: .4rem 0; white-space: pre-wrap }
.user { background: #48f2; margin-left: 4rem } .message { background: #8882; font: 13px/1.4 monospace }
.text { background: #8881; margin-right: 4rem } .score { opacity: .7; font-size: .9rem }
img { image-rendering: pixelated; width: 12rem; margin: .2rem .4rem .2rem 0; border-radius: .3rem }
"""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Score of one task.

    Attributes:
        name: Name of the task.
        score: Score, 0 to 1.
        measure: Measure of the score.
    """

    name: str
    score: float
    measure: str


@dataclass(frozen=True, slots=True)
class DemoScores:
    """Scores of a demo.

    Attributes:
        tasks: Score of each task.
        parse_rate: Share of assistant messages that were parsed without an issue.
        replies: Origin of the assistant messages.
    """

    tasks: tuple[TaskScore, ...]
    parse_rate: float
    replies: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "tasks": {task.name: round(task.score, 4) for task in self.tasks},
            "parse_rate": self.parse_rate,
            "replies": self.replies,
        }


def shown(conversation: Conversation, result: CallResult) -> Artefact | None:
    """Return the result of a call as an image or video, masks as an overlay; ``None`` after an error."""
    made = result.artefact
    if made is None or made.kind != "masks" or result.call.input is None:
        return made
    return overlay(made, conversation.media[result.call.input])


def image_tag(artefact: Artefact, caption: str) -> str:
    """Return an image or video as HTML that holds its own bytes."""
    content, suffix = encode(artefact, "gif")
    return html_image(content, caption, f"image/{suffix[1:]}")


def transcript_page(title: str, summary: str, sections: Sequence[str]) -> str:
    """Return the page.

    Args:
        title: Heading, as plain text.
        summary: Paragraph below it, as plain text.
        sections: One HTML section for each conversation.
    """
    body = f"<h1>{escape(title)}</h1><p>{escape(summary)}</p>{''.join(sections)}"
    return html_page("vitron demo", body, style=_STYLE)
