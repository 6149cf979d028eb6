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
from vitron.protocol.contract import Turn

from recipes.vitron_tiny import generation, images, videos
from recipes.vitron_tiny.scenes import Draw

__all__ = ["TASKS", "WEIGHTS", "Split", "assistant_text", "corpus", "draw_example"]

Split = Literal["train", "test", "novel"]
SPLITS: tuple[Split, ...] = ("train", "test", "novel")

_MAKERS: Mapping[str, Callable[[Draw], Example | None]] = {
    "caption": images.caption,
    "grounding": images.grounding,
    "question": images.question,
    "region_caption": images.region_caption,
    "referring_segmentation": images.referring_segmentation,
    "sketch_segmentation": images.sketch_segmentation,
    "editing": images.editing,
    "restoration": images.restoration,
    "text_to_image": generation.text_to_image,
    "text_to_video": generation.text_to_video,
    "image_to_video": generation.image_to_video,
    "video_question": videos.video_question,
    "span_grounding": videos.span_grounding,
    "tracking": videos.tracking,
    "video_editing": videos.video_editing,
    "chains": generation.chains,
    "no_call": generation.no_call,
}
TASKS = tuple(_MAKERS)
WEIGHTS: Mapping[str, float] = {
    "caption": 0.04,
    "grounding": 0.04,
    "question": 0.05,
    "region_caption": 0.14,
    "referring_segmentation": 0.22,
    "sketch_segmentation": 0.04,
    "editing": 0.09,
    "restoration": 0.01,
    "text_to_image": 0.10,
    "text_to_video": 0.02,
    "image_to_video": 0.02,
    "video_question": 0.02,
    "span_grounding": 0.02,
    "tracking": 0.06,
    "video_editing": 0.02,
    "chains": 0.08,
    "no_call": 0.03,
}
"""Share of each task among the examples drawn, about that in which training asks for them."""

_PURPOSE = 70  # first number of the random stream
_ATTEMPTS = 1000
_APART = 64  # numbers of scenes between two attempts: skipping scenes must not lead to those of the next


def draw_example(
    task: str, seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train", side: int = 64
) -> Example:
    """Draw one example.

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
        made = _MAKERS[task](
            Draw(seed=seed, number=number, rng=rng, split=split, phrasing=phrasing, side=side)
        )
        if made is not None:
            return made
    raise RuntimeError(f"no example of {task} in {_ATTEMPTS} attempts")


def assistant_text(example: Example) -> str:
    """Return the last message as a model should write it, without signals."""
    message = example.messages[-1]
    return render(Turn(text=message.text, invocations=message.calls))


def corpus(seed: int, count: int, *, side: int = 32) -> Iterator[str]:
    """Yield user and assistant texts of examples of all tasks in turn, for a vocabulary.

    Args:
        seed: Random seed of the world.
        count: Examples; two texts come from each.
        side: Side in pixels of the images, which are not used.
    """
    for index in range(count):
        example = draw_example(TASKS[index % len(TASKS)], seed, index // len(TASKS), side=side)
        yield example.messages[0].text
        yield assistant_text(example)
