# SPDX-License-Identifier: Apache-2.0
"""Scripted replies over drawn pictures, with scores against what was drawn, and their transcript.

The replies are written here; no language model takes part. The scores say whether calls are read, planned
and carried out, not how well anything understands a picture.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitron.demo.painters import toy_registry
from vitron.demo.painters.find import things_in
from vitron.demo.painters.shapes import blank, shape_mask, stamp
from vitron.demo.painters.words import COLOURS
from vitron.protocol import parse
from vitron.protocol.contract import Turn
from vitron.protocol.media import Artefact, encode, overlay, write_bytes, write_media
from vitron.session import CallResult, Conversation

__all__ = ["Figures", "TaskFigures", "run_demo"]

SIZE = 96
Thing = tuple[str, str, int, int, int]  # shape, colour, row, column, side
CIRCLE: Thing = ("circle", "red", 10, 10, 30)
SQUARE: Thing = ("square", "blue", 20, 58, 26)
STAR: Thing = ("star", "yellow", 56, 34, 34)
SCENE = (CIRCLE, SQUARE, STAR)


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What one task reached.

    Attributes:
        name: Of the task.
        score: 0 to 1.
        measure: What the score is.
    """

    name: str
    score: float
    measure: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What the demo measured.

    Attributes:
        tasks: One entry each.
        parse_rate: Share of replies that were read without an issue.
        replies: Where they came from.
    """

    tasks: tuple[TaskFigures, ...]
    parse_rate: float
    replies: str = "scripted; no language model took part"

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "tasks": {task.name: round(task.score, 4) for task in self.tasks},
            "parse_rate": self.parse_rate,
            "replies": self.replies,
        }


Score = Callable[[Turn, Sequence[CallResult]], float]


@dataclass(frozen=True, slots=True)
class _Script:
    name: str
    user: str
    reply: str
    media: Artefact | None
    score: Score
    measure: str


def draw(*things: Thing) -> NDArray[np.uint8]:
    """Return a picture of things, ``(96, 96, 3)``."""
    canvas = blank(SIZE, SIZE)
    for shape, colour, row, column, side in things:
        stamp(canvas, shape_mask(shape, side, side), row, column, COLOURS[colour])
    return canvas


def mask_of(thing: Thing) -> NDArray[np.bool_]:
    """Return where a thing is, ``(96, 96)``."""
    return np.asarray((draw(thing) != blank(SIZE, SIZE)).any(axis=-1), dtype=np.bool_)


def _call(module: str, *said: str, region: str = "") -> str:
    blocks = " ".join(f"<instruction>{text}</instruction>" for text in said)
    return f"<module>{module}</module> {blocks}" + (f" <region>{region}</region>" if region else "")


def _last(results: Sequence[CallResult]) -> Artefact:
    made = results[-1].artefact
    if made is None:
        raise RuntimeError(f"the demo broke: {results[-1].error}")
    return made


def _iou(*truth: NDArray[np.bool_]) -> Score:
    """Mean intersection over union of frames."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        found = _last(results)
        masks = [found.joint_mask(frame) for frame in range(found.num_frames)]
        pairs = zip(masks, truth, strict=True)
        return float(np.mean([(mask & real).sum() / (mask | real).sum() for mask, real in pairs]))

    return score


def _equal(*truth: NDArray[np.uint8]) -> Score:
    """Share of pixels that are as drawn."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        near = np.abs(_last(results).frames.astype(np.int64) - np.stack(truth)).max(axis=-1) <= 2
        return float(near.mean())

    return score


def _holds(*wanted: tuple[str, str]) -> Score:
    """Share of frames that hold exactly these things, by colour and shape."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        found = [
            sorted((thing.colour, thing.shape) for thing in things_in(frame))
            for frame in _last(results).frames
        ]
        return float(np.mean([things == sorted(wanted) for things in found]))

    return score


def _cleaner(noisy: NDArray[np.uint8], clean: NDArray[np.uint8]) -> Score:
    """Share of the error that is gone."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        before, after = (
            np.abs(each.astype(np.int64) - clean).mean() for each in (noisy, _last(results).data)
        )
        return float(1 - after / before)

    return score


def _silent(turn: Turn, results: Sequence[CallResult]) -> float:
    return float(not turn.invocations and not results)


def _clip() -> tuple[list[NDArray[np.uint8]], list[Thing]]:
    moving = [("circle", "red", 10, 4 + 8 * index, 30) for index in range(6)]
    return [draw(circle, STAR) for circle in moving], moving


def _scripts() -> list[_Script]:
    picture = Artefact("image", draw(*SCENE))
    return [*_picture_scripts(picture), *_clip_scripts(), *_other_scripts(picture)]


def _picture_scripts(picture: Artefact) -> list[_Script]:
    green = ("circle", "green", *CIRCLE[2:])
    moved = ("square", "blue", 20, 34, 26)
    edits = (
        ("remove", "Take the star away.", _call("C", "remove: the star"), _equal(draw(CIRCLE, SQUARE))),
        (
            "recolour",
            "Make the circle green.",
            _call("image_editing", "recolour: the red circle to green"),
            _equal(draw(green, SQUARE, STAR)),
        ),
        (
            "move",
            "Shift the square 24 pixels to the left.",
            _call("C", "move: the blue square to the left by 24"),
            _equal(draw(CIRCLE, moved, STAR)),
        ),
    )
    return [
        _Script(
            "segmentation by words",
            "Where is the leftmost round thing?",
            f"It is here. {_call('B', 'segment: the leftmost circle')}",
            picture,
            _iou(mask_of(CIRCLE)),
            "IoU",
        ),
        _Script(
            "segmentation by a click",
            "What is at the place I clicked?",
            _call("B", "segment: this", region="points [510, 740]"),
            picture,
            _iou(mask_of(STAR)),
            "IoU",
        ),
        *(
            _Script(f"editing: {name}", user, f"Done. {reply}", picture, score, "pixels as drawn")
            for name, user, reply, score in edits
        ),
        _Script(
            "text to image",
            "Draw me a red circle and a blue star.",
            _call("A", "draw: a red circle at the left and a blue star at the right", "size: 96x96"),
            None,
            _holds(("red", "circle"), ("blue", "star")),
            "the things asked for",
        ),
    ]


def _clip_scripts() -> list[_Script]:
    frames, moving = _clip()
    clip = Artefact("video", np.stack(frames))
    pink = [draw(("circle", "pink", *circle[2:]), STAR) for circle in moving]
    return [
        _Script(
            "text to video",
            "A clip of a purple triangle that moves to the right.",
            _call("D", "generate: a purple triangle moving right", "size: 96x96", "length: 6"),
            None,
            _holds(("purple", "triangle")),
            "frames with the thing",
        ),
        _Script(
            "image to video",
            "Let the circle move down.",
            _call("G", "animate: the red circle moves down", "length: 3"),
            Artefact("image", draw(CIRCLE, SQUARE)),
            _holds(("red", "circle"), ("blue", "square")),
            "frames with both things",
        ),
        _Script(
            "tracking",
            "Follow what is in my box.",
            _call("E", "track: the thing in the box", region="[50, 110, 340, 400] @ 0"),
            clip,
            _iou(*(mask_of(circle) for circle in moving)),
            "mean IoU of the frames",
        ),
        _Script(
            "video editing",
            "Make the circle pink.",
            _call("F", "recolour: the circle to pink"),
            clip,
            _equal(*pink),
            "pixels as drawn",
        ),
    ]


def _other_scripts(picture: Artefact) -> list[_Script]:
    rng, clean = np.random.default_rng(0), picture.frames[0]
    noisy = clean.copy()
    noisy[rng.random((SIZE, SIZE)) < 0.05] = 0
    chain = (
        f"First the picture. {_call('A', 'draw: a red circle at the left', 'size: 96x96')} "
        f"Then its mask. {_call('B', 'segment: the circle')} "
        f"Now blue. {_call('C', 'recolour: it to blue', region='mask_1')} "
        f"And it moves. {_call('G', 'animate: the circle moves right', 'length: 5')}"
    )
    return [
        _Script(
            "restoration",
            "There are specks on it.",
            _call("R", "denoise: the picture"),
            Artefact("image", noisy),
            _cleaner(noisy, clean),
            "share of the error that is gone",
        ),
        _Script(
            "chain of four calls",
            "Draw a red circle, mark it, make it blue and let it move.",
            chain,
            None,
            _holds(("blue", "circle")),
            "frames with the thing",
        ),
        _Script(
            "no call",
            "What does <module>B</module> mean?",
            "&lt;module>B&lt;/module> asks for a mask; 3 &lt; 4 and 5 > 4 stay as they are.",
            picture,
            _silent,
            "nothing is carried out",
        ),
    ]


def run_demo(out: Path) -> Figures:
    """Carry out all scripts; write a picture of each and ``transcript.html``.

    Args:
        out: Folder; files of an earlier demo are replaced.

    Raises:
        MediaError: If the folder cannot be written.
    """
    registry, figures, sections, clean = toy_registry(), list[TaskFigures](), list[str](), 0
    for number, script in enumerate(_scripts(), 1):
        conversation = Conversation(specialists=registry)
        if script.media is not None:
            conversation.add_media(script.media)
        turn = parse(script.reply)
        clean += not turn.issues
        results = conversation.run_calls(turn)
        score = script.score(turn, results)
        figures.append(TaskFigures(script.name, score, script.measure))
        shown = [_shown(conversation, result) for result in results]
        if shown:
            name = f"{number:02d}-{script.name.replace(':', '').replace(' ', '-')}"
            frames = [picture.frames[-1] for picture in ([script.media] if script.media else []) + shown]
            write_media(Artefact("image", _row(frames)), out, name)
        sections.append(_section(script, turn, results, shown, score))
    write_bytes(out / "transcript.html", _page(sections).encode("utf-8"))
    return Figures(tuple(figures), clean / len(figures))


def _shown(conversation: Conversation, result: CallResult) -> Artefact:
    """Return what a call made as a picture or clip, masks over what they mark."""
    made = _last([result])
    if made.kind != "masks" or result.call.input is None:
        return made
    return overlay(made, conversation.media[result.call.input])


def _row(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Set pictures side by side, twice as large."""
    space = np.full((SIZE, 6, 3), 255, dtype=np.uint8)
    parts = [part for frame in frames for part in (frame, space)][:-1]
    return np.concatenate(parts, axis=1).repeat(2, axis=0).repeat(2, axis=1)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
section { border-top: 1px solid #8884; padding: .5rem 0 1rem } h2 { font-size: 1rem }
.user, .reply, .shown { padding: .5rem .8rem; border-radius: .6rem; margin: .4rem 0; white-space: pre-wrap }
.user { background: #48f2; margin-left: 4rem } .reply { background: #8882; font: 13px/1.4 monospace }
.shown { background: #8881; margin-right: 4rem } .score { opacity: .7; font-size: .9rem }
img { image-rendering: pixelated; width: 12rem; margin: .2rem .4rem .2rem 0; border-radius: .3rem }
"""


def _section(
    script: _Script, turn: Turn, results: Sequence[CallResult], shown: Sequence[Artefact], score: float
) -> str:
    given = image_tag(script.media, "what the user brings") if script.media else ""
    captions = [f"{each.call.output}: {each.call.invocation.module}" for each in results]
    pictures = "".join(image_tag(*pair) for pair in zip(shown, captions, strict=True))
    text = f'<div class="shown">{html.escape(turn.text.strip())}</div>' if turn.text.strip() else ""
    return (
        f"<section><h2>{html.escape(script.name)}</h2>"
        f'<div class="user">{html.escape(script.user)}<br>{given}</div>'
        f'<div class="reply">{html.escape(script.reply)}</div>{text}{pictures}'
        f'<div class="score">{html.escape(script.measure)}: {score:.2f}</div></section>'
    )


def image_tag(artefact: Artefact, caption: str) -> str:
    """Return a picture or clip as HTML that holds its own bytes."""
    content, suffix = encode(artefact)
    data = base64.b64encode(content).decode("ascii")
    title = html.escape(caption, quote=True)
    return f'<img src="data:image/{suffix[1:]};base64,{data}" alt="{title}" title="{title}">'


def _page(sections: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>vitron demo</title>'
        f"<style>{STYLE}</style></head><body><h1>Scripted replies, carried out</h1>"
        "<p>No language model took part: the replies, in grey, are written into the demo. Toy specialists, "
        "which know drawn shapes only, carry out their calls; the scores compare with what was drawn.</p>"
        f"{''.join(sections)}</body></html>\n"
    )
