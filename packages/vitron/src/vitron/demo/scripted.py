# SPDX-License-Identifier: Apache-2.0
"""Scripted assistant messages about drawn images: their calls run, and are scored against what was drawn.

No language model takes part. The scores say whether calls are parsed, planned and run, not how well anything
understands an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common_kernels.runtime.files import write_text
from common_kernels.runtime.pictures import escape
from numpy.typing import NDArray

from vitron.demo.painters import toy_registry
from vitron.demo.painters.find import things_in
from vitron.demo.painters.shapes import blank, shape_mask, stamp
from vitron.demo.transcript import DemoScores, TaskScore, image_tag, shown, transcript_page
from vitron.protocol import parse
from vitron.protocol.contract import Turn
from vitron.protocol.media import Artefact, write_media
from vitron.session import CallResult, Conversation
from vitron.specialists.words import COLOURS

__all__ = ["run_demo"]

SIZE = 96
Thing = tuple[str, str, int, int, int]  # shape, colour, row, column, side
CIRCLE: Thing = ("circle", "red", 10, 10, 30)
SQUARE: Thing = ("square", "blue", 20, 58, 26)
STAR: Thing = ("star", "yellow", 56, 34, 34)
SCENE = (CIRCLE, SQUARE, STAR)


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
    """Return an image of things, ``(96, 96, 3)``."""
    canvas = blank(SIZE, SIZE)
    for shape, colour, row, column, side in things:
        stamp(canvas, shape_mask(shape, side, side), row, column, COLOURS[colour])
    return canvas


def mask_of(thing: Thing) -> NDArray[np.bool_]:
    """Return the mask of a thing, ``(96, 96)``."""
    return np.asarray((draw(thing) != blank(SIZE, SIZE)).any(axis=-1), dtype=np.bool_)


def _call(module: str, *instructions: str, region: str = "") -> str:
    blocks = " ".join(f"<instruction>{text}</instruction>" for text in instructions)
    return f"<module>{module}</module> {blocks}" + (f" <region>{region}</region>" if region else "")


def _last(results: Sequence[CallResult]) -> Artefact:
    made = results[-1].artefact
    if made is None:
        raise RuntimeError(f"the demo failed: {results[-1].error}")
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
    """Share of pixels as drawn."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        near = np.abs(_last(results).frames.astype(np.int64) - np.stack(truth)).max(axis=-1) <= 2
        return float(near.mean())

    return score


def _holds(*wanted: tuple[str, str]) -> Score:
    """Share of frames with exactly these things, by colour and shape."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        found = [
            sorted((thing.colour, thing.shape) for thing in things_in(frame))
            for frame in _last(results).frames
        ]
        return float(np.mean([things == sorted(wanted) for things in found]))

    return score


def _cleaner(noisy: NDArray[np.uint8], clean: NDArray[np.uint8]) -> Score:
    """Share of the error that was removed."""

    def score(turn: Turn, results: Sequence[CallResult]) -> float:
        before, after = (
            np.abs(each.astype(np.int64) - clean).mean() for each in (noisy, _last(results).data)
        )
        return float(1 - after / before)

    return score


def _silent(turn: Turn, results: Sequence[CallResult]) -> float:
    return float(not turn.invocations and not results)


def _video() -> tuple[list[NDArray[np.uint8]], list[Thing]]:
    moving = [("circle", "red", 10, 4 + 8 * index, 30) for index in range(6)]
    return [draw(circle, STAR) for circle in moving], moving


def _scripts() -> list[_Script]:
    image = Artefact("image", draw(*SCENE))
    return [*_image_scripts(image), *_video_scripts(), *_other_scripts(image)]


def _image_scripts(image: Artefact) -> list[_Script]:
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
            image,
            _iou(mask_of(CIRCLE)),
            "IoU",
        ),
        _Script(
            "segmentation by a click",
            "What is at the place I clicked?",
            _call("B", "segment: this", region="points [510, 740]"),
            image,
            _iou(mask_of(STAR)),
            "IoU",
        ),
        *(
            _Script(f"editing: {name}", user, f"Done. {reply}", image, score, "pixels as drawn")
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


def _video_scripts() -> list[_Script]:
    frames, moving = _video()
    video = Artefact("video", np.stack(frames))
    pink = [draw(("circle", "pink", *circle[2:]), STAR) for circle in moving]
    return [
        _Script(
            "text to video",
            "A video of a purple triangle that moves to the right.",
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
            video,
            _iou(*(mask_of(circle) for circle in moving)),
            "mean IoU of the frames",
        ),
        _Script(
            "video editing",
            "Make the circle pink.",
            _call("F", "recolour: the circle to pink"),
            video,
            _equal(*pink),
            "pixels as drawn",
        ),
    ]


def _other_scripts(image: Artefact) -> list[_Script]:
    rng, clean = np.random.default_rng(0), image.frames[0]
    noisy = clean.copy()
    noisy[rng.random((SIZE, SIZE)) < 0.05] = 0
    chain = (
        f"First the image. {_call('A', 'draw: a red circle at the left', 'size: 96x96')} "
        f"Then its mask. {_call('B', 'segment: the circle')} "
        f"Now blue. {_call('C', 'recolour: it to blue', region='mask_1')} "
        f"And it moves. {_call('G', 'animate: the circle moves right', 'length: 5')}"
    )
    return [
        _Script(
            "restoration",
            "Remove the specks.",
            _call("R", "denoise: the image"),
            Artefact("image", noisy),
            _cleaner(noisy, clean),
            "share of the error removed",
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
            image,
            _silent,
            "no call runs",
        ),
    ]


def run_demo(output: Path) -> DemoScores:
    """Run all scripts; write an image of each and ``transcript.html``.

    Args:
        output: Folder; files of an earlier demo are replaced.

    Raises:
        OSError: If the folder cannot be written.
    """
    registry, tasks, sections, clean = toy_registry(), list[TaskScore](), list[str](), 0
    for number, script in enumerate(_scripts(), 1):
        conversation = Conversation(specialists=registry)
        if script.media is not None:
            conversation.add_media(script.media)
        turn = parse(script.reply)
        clean += not turn.issues
        results = conversation.run_calls(turn)
        score = script.score(turn, results)
        tasks.append(TaskScore(script.name, score, script.measure))
        made = [each for result in results if (each := shown(conversation, result)) is not None]
        if made:
            name = f"{number:02d}-{script.name.replace(':', '').replace(' ', '-')}"
            frames = [image.frames[-1] for image in ([script.media] if script.media else []) + made]
            write_media(Artefact("image", _row(frames)), output, name)
        captions = [f"{each.call.output}: {each.call.invocation.module}" for each in results]
        images = "".join(image_tag(*pair) for pair in zip(made, captions, strict=True))
        sections.append(_section(script, turn, images, score))
    summary = (
        "No language model took part: the messages, in grey, are written into the demo. Toy specialists, "
        "which know drawn shapes only, run their calls; the scores compare with what was drawn."
    )
    page = transcript_page("Scripted messages and their calls", summary, sections)
    write_text(output / "transcript.html", page)
    return DemoScores(tuple(tasks), clean / len(tasks), "scripted; no language model took part")


def _row(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Set images side by side, twice as large."""
    space = np.full((SIZE, 6, 3), 255, dtype=np.uint8)
    parts = [part for frame in frames for part in (frame, space)][:-1]
    return np.concatenate(parts, axis=1).repeat(2, axis=0).repeat(2, axis=1)


def _section(script: _Script, turn: Turn, images: str, score: float) -> str:
    given = image_tag(script.media, "image of the user") if script.media else ""
    text = f'<div class="text">{escape(turn.text.strip())}</div>' if turn.text.strip() else ""
    return (
        f"<section><h2>{escape(script.name)}</h2>"
        f'<div class="user">{escape(script.user)}<br>{given}</div>'
        f'<div class="message">{escape(script.reply)}</div>{text}{images}'
        f'<div class="score">{escape(script.measure)}: {score:.2f}</div></section>'
    )
