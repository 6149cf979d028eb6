# SPDX-License-Identifier: Apache-2.0
"""Contact sheets of scenes, sentences and ground truth."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from shapeworld.captions import caption
from shapeworld.edits import draw_edit
from shapeworld.prompts import points, scribble
from shapeworld.questions import ask
from shapeworld.referring import refer
from shapeworld.render import Rendering, render
from shapeworld.scene import Scene, Split, draw_scene, scene_rng
from shapeworld.videos import draw_video
from shapeworld.warps import draw_pair
from shapeworld.words import describe

UInt8 = NDArray[np.uint8]

MARGIN, LINE, FONT_SIZE = 6, 13, 11
PAPER, INK = (250, 250, 250), (30, 30, 30)
_PURPOSE = 90
# of the instances in an overlay, in depth order
_OUTLINES = ((230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240))

Strip = tuple[list[UInt8], list[str]]  # images side by side, and lines below them


class DrawScene(Protocol):
    """Draws the scenes of a world."""

    def __call__(self, seed: int, index: int, *, split: Split = "train") -> Scene:
        """Draw a scene; the same arguments always give the same one."""
        ...


def outlined(rendering: Rendering) -> UInt8:
    """Return the image in grey with each instance filled in a colour of its own."""
    grey = rendering.image.mean(axis=2, keepdims=True) * 0.6 + 90
    result = np.broadcast_to(grey, rendering.image.shape).copy()
    for i, mask in enumerate(rendering.visible()):
        result[mask] = 0.45 * result[mask] + 0.55 * np.array(_OUTLINES[i])
    return result.astype(np.uint8)


def scene_strip(seed: int, index: int, split: Split, side: int, draw: DrawScene = draw_scene) -> Strip:
    """Image and instances, with a long caption, a referring expression and a question."""
    scene, rng = draw(seed, index, split=split), scene_rng(seed, index, _PURPOSE)
    rendering = render(scene, side)
    lines = [caption(scene, rng, length="long")]
    if reference := refer(scene, rng):
        target = scene.things[reference.target]
        noun = describe(target, ("colour", "shape")).noun()
        lines.append(f"{reference.text} -> {noun}")
    question = ask(scene, rng)
    lines.append(f"{question.text}? {question.answer}")
    return [rendering.image, outlined(rendering)], lines


def edit_strip(seed: int, index: int, split: Split, side: int, draw: DrawScene = draw_scene) -> Strip:
    """Before and after, with the instruction."""
    scene, rng = draw(seed, index, split=split), scene_rng(seed, index, _PURPOSE)
    edit = draw_edit(scene, rng)
    return [render(edit.source, side).image, render(edit.target, side).image], [edit.instruction]


def video_strip(seed: int, index: int, split: Split, side: int, draw: DrawScene = draw_scene) -> Strip:
    """Four frames from first to last, with the caption."""
    video = draw_video(seed, index, split=split, scene=draw(seed, index, split=split))
    frames = video.render(side).frames
    shown = np.linspace(0, len(frames) - 1, 4).round().astype(int)
    return list(frames[shown]), [f"{len(frames)} frames: {video.caption}"]


def warp_strip(seed: int, index: int, split: Split, side: int, draw: DrawScene = draw_scene) -> Strip:
    """Two views of one scene with the keypoints that both show."""
    pair = draw_pair(draw(seed, index, split=split), scene_rng(seed, index, _PURPOSE), side)
    keypoints = pair.keypoints
    both = keypoints.seen_first & keypoints.seen_second
    views: list[UInt8] = []
    for view, places in ((pair.first.image, keypoints.first), (pair.second.image, keypoints.second)):
        canvas = Image.fromarray(view)
        pen = ImageDraw.Draw(canvas)
        for i, (x, y) in enumerate(places[both].tolist()):
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_OUTLINES[i % len(_OUTLINES)], outline=PAPER)
        views.append(np.asarray(canvas))
    return views, [f"{both.sum()} keypoints seen in both, {pair.valid.mean():.0%} of the pixels matched"]


def prompt_strip(seed: int, index: int, split: Split, side: int, draw: DrawScene = draw_scene) -> Strip:
    """Image and the prompts for one thing: scribble, points (plus inside, minus outside) and box."""
    scene, rng = draw(seed, index, split=split), scene_rng(seed, index, _PURPOSE)
    rendering = render(scene, side)
    target = int(rng.integers(len(scene.things)))
    mask = rendering.visible()[target]
    drawn = rendering.image.copy()
    drawn[scribble(mask, rng).mask] = _OUTLINES[0]
    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle(tuple(rendering.boxes()[target].tolist()), outline=_OUTLINES[2])
    marks = points(mask, rng, positive=2, negative=2)
    for (x, y), label in zip(marks.xy.tolist(), marks.labels.tolist(), strict=True):
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_OUTLINES[1] if label else INK, outline=PAPER)
    noun = describe(scene.things[target], ("colour", "shape")).noun()
    return [rendering.image, np.asarray(canvas)], [f"prompts for the {noun}"]


STRIPS: dict[str, Callable[..., Strip]] = {
    "scenes": scene_strip,
    "edits": edit_strip,
    "videos": video_strip,
    "warps": warp_strip,
    "prompts": prompt_strip,
}


def sheet(strips: Sequence[Strip], columns: int) -> Image.Image:
    """Lay strips out in columns, each with its lines below."""
    font = ImageFont.load_default(FONT_SIZE)
    side = strips[0][0][0].shape[0]
    width = max(len(images) for images, _ in strips) * (side + 2) - 2
    texts = [
        [part for line in lines for part in textwrap.wrap(line, int(width / 5.6))] for _, lines in strips
    ]
    starts = range(0, len(strips), columns)
    heights = [side + LINE * max(map(len, texts[i : i + columns])) + 3 * MARGIN for i in starts]
    page = Image.new("RGB", (MARGIN + columns * (width + 2 * MARGIN), MARGIN + sum(heights)), PAPER)
    pen = ImageDraw.Draw(page)
    for i, ((images, _), lines) in enumerate(zip(strips, texts, strict=True)):
        left = MARGIN + (i % columns) * (width + 2 * MARGIN)
        top = MARGIN + sum(heights[: i // columns])
        for j, image in enumerate(images):
            page.paste(Image.fromarray(image), (left + j * (side + 2), top))
        pen.multiline_text((left, top + side + 2), "\n".join(lines), INK, font, spacing=LINE - FONT_SIZE)
    return page
