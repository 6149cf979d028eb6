# SPDX-License-Identifier: Apache-2.0
"""What the small model learns: one example of a task from a seed and a number, and all words that occur.

Same arguments, same example. Scenes of ``novel`` hold a pair of colour and shape that ``train`` and ``test``
never show or name; requests of ``held_out`` are worded as none of ``train``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from shapeworld import scene_rng
from shapeworld.words import Phrasing, check_choice
from vitron.data.example import Example
from vitron.protocol import render
from vitron.protocol.contract import Turn

from recipes.vitron_tiny import clips, pictures, talk
from recipes.vitron_tiny.worlds import Draw

__all__ = ["TASKS", "WEIGHTS", "Split", "corpus", "draw_example", "reply_of"]

Split = Literal["train", "test", "novel"]
SPLITS: tuple[Split, ...] = ("train", "test", "novel")

_MAKERS: Mapping[str, Callable[[Draw], Example | None]] = {
    "caption": pictures.caption,
    "grounding": pictures.grounding,
    "question": pictures.question,
    "region_caption": pictures.region_caption,
    "referring_segmentation": pictures.referring_segmentation,
    "sketch_segmentation": pictures.sketch_segmentation,
    "editing": pictures.editing,
    "restoration": pictures.restoration,
    "text_to_image": talk.text_to_image,
    "text_to_video": talk.text_to_video,
    "image_to_video": talk.image_to_video,
    "video_question": clips.video_question,
    "span_grounding": clips.span_grounding,
    "tracking": clips.tracking,
    "video_editing": clips.video_editing,
    "chains": talk.chains,
    "no_call": talk.no_call,
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
    task: str,
    seed: int,
    index: int,
    *,
    split: Split = "train",
    phrasing: Phrasing = "train",
    side: int = 64,
) -> Example:
    """Draw one example.

    Args:
        task: One of :data:`TASKS`.
        seed: Of the world, at least 0.
        index: Number of the example, at least 0.
        split: Of the scenes.
        phrasing: How the user words what is asked for.
        side: Pixels of pictures and frames.

    Raises:
        ValueError: If a word is unknown.
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


def reply_of(example: Example) -> str:
    """Return the last message as a model should write it, without signals."""
    message = example.messages[-1]
    return render(Turn(text=message.text, invocations=message.calls))


def corpus(seed: int, count: int, *, side: int = 32) -> Iterator[str]:
    """Yield what is said and replied in examples of all tasks in turn, to learn a vocabulary from.

    Args:
        seed: Of the world.
        count: Examples; two texts come from each.
        side: Of pictures, which are painted in vain.
    """
    for index in range(count):
        example = draw_example(TASKS[index % len(TASKS)], seed, index // len(TASKS), side=side)
        yield example.messages[0].text
        yield reply_of(example)
