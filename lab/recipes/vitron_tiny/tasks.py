# SPDX-License-Identifier: Apache-2.0
"""Tasks of the small model: one example of a task from a seed and a number, and the text corpus.

Same arguments, same example. Scenes of ``novel`` hold a pair of colour and shape that ``train`` and ``test``
never show or name; user messages of ``held_out`` have other wordings than those of ``train``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from shapeworld import scene_rng
from shapeworld.words import Phrasing, check_choice
from vitron.data.example import Example
from vitron.protocol import render
from vitron.protocol.contract import Invocation, Turn

from recipes.vitron_tiny import editing, generation, images, questions, videos
from recipes.vitron_tiny.composing import Composer, Drawn, Step
from recipes.vitron_tiny.scenes import Draw, View

__all__ = ["TASKS", "Split", "assistant_text", "corpus", "draw_example", "draw_task", "rendered"]

Split = Literal["train", "test", "novel"]
SPLITS: tuple[Split, ...] = ("train", "test", "novel")

Source = Callable[[Draw], View | None]
Maker = Callable[[Draw, View, Composer], Step | None]


def _on(source: Source, maker: Maker) -> Callable[[Draw], Composer | None]:
    """Return a task whose turn is about a new image or video."""

    def make(draw: Draw) -> Composer | None:
        shown, state = source(draw), Composer()
        if shown is None:
            return None
        state.show(shown)
        return _finish(state, maker(draw, shown, state))

    return make


def _free(
    maker: Callable[[Draw, View | None, Composer], Step | None], shown: float = 0.0
) -> Callable[[Draw], Composer | None]:
    """Return a task whose turn needs no image; a share of the turns has one."""

    def make(draw: Draw) -> Composer | None:
        state = Composer()
        view = images.any_view(draw) if draw.chance(shown) else None
        if view is not None:
            state.show(view)
        return _finish(state, maker(draw, view, state))

    return make


def _asked(source: Callable[[Draw], tuple[View, Step] | None]) -> Callable[[Draw], Composer | None]:
    """Return a task whose image or video is drawn for its question."""

    def make(draw: Draw) -> Composer | None:
        found, state = source(draw), Composer()
        if found is None:
            return None
        state.show(found[0])
        return _finish(state, found[1])

    return make


def _finish(state: Composer, step: Step | None) -> Composer | None:
    if step is None:
        return None
    state.add(step)
    return state


def _chains(draw: Draw) -> Composer | None:
    on_new = _free(generation.chain_on_new)
    return (on_new if draw.chance(0.6) else _on(editing.plain_view, generation.chain_on_shown))(draw)


_MAKERS: Mapping[str, Callable[[Draw], Composer | None]] = {
    "caption": _on(images.any_view, images.caption),
    "grounding": _on(images.any_view, images.grounding),
    "question": _asked(questions.fresh_question),
    "region_caption": _on(images.any_view, images.region_caption),
    "referring_segmentation": _on(images.crowded_view, images.referring_segmentation),
    "sketch_segmentation": _on(images.any_view, images.sketch_segmentation),
    "editing": _on(editing.plain_view, editing.editing),
    "restoration": _on(images.any_view, editing.restoration),
    "text_to_image": _free(generation.text_to_image),
    "text_to_video": _free(generation.text_to_video),
    "image_to_video": _on(editing.plain_view, editing.image_to_video),
    "video_question": _asked(questions.fresh_video_question),
    "span_grounding": _on(videos.any_video, questions.span_grounding),
    "tracking": _on(videos.any_video, videos.tracking),
    "video_editing": _on(videos.flat_video, videos.video_editing),
    "chains": _chains,
    "no_call": _free(generation.no_call, shown=0.4),
}
TASKS = tuple(_MAKERS)

_PURPOSE = 70  # first number of the random stream
_ATTEMPTS = 1000
_APART = 64  # numbers of scenes between two attempts: skipping scenes must not lead to those of the next


def draw_example(
    task: str, seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train", side: int = 64
) -> Example:
    """Draw one example; see :func:`draw_task`."""
    return draw_task(task, seed, index, split=split, phrasing=phrasing, side=side).example


def draw_task(
    task: str, seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train", side: int = 64
) -> Drawn:
    """Draw one example of a task, of one turn.

    Args:
        task: One of :data:`TASKS`.
        seed: Random seed of the world, at least 0.
        index: Number of the example, at least 0.
        split: Split of the scenes.
        phrasing: Wording of the user message.
        side: Side of images and frames in pixels.

    Raises:
        ValueError: If a name is unknown.
    """
    check_choice("task", task, TASKS)
    check_choice("split", split, SPLITS)
    check_choice("phrasing", phrasing, ("train", "held_out"))
    place = TASKS.index(task)
    for attempt in range(_ATTEMPTS):
        number = ((index * _ATTEMPTS + attempt) * len(TASKS) + place) * _APART
        rng = scene_rng(seed, index, _PURPOSE, place, SPLITS.index(split), attempt)
        draw = Draw(seed=seed, number=number, rng=rng, split=split, phrasing=phrasing, side=side)
        state = _MAKERS[task](draw)
        if state is not None:
            return state.drawn()
    raise RuntimeError(f"no example of {task} in {_ATTEMPTS} attempts")


def rendered(text: str, *calls: Invocation) -> str:
    """Return an assistant message in the format of the model, without signals."""
    return render(Turn(text=text, invocations=calls))


def assistant_text(example: Example) -> str:
    """Return the last message in the format of the model, without signals."""
    return rendered(example.messages[-1].text, *example.messages[-1].calls)


def corpus(seed: int, count: int, *, side: int = 32) -> Iterator[str]:
    """Yield user and assistant texts of examples of all tasks, for a vocabulary.

    Args:
        seed: Random seed of the world.
        count: Examples; two texts come from each.
        side: Side of the images in pixels.
    """
    for index in range(count):
        example = draw_example(TASKS[index % len(TASKS)], seed, index // len(TASKS), side=side)
        yield example.messages[0].text
        yield assistant_text(example)
