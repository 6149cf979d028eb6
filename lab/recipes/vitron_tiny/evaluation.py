# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on fresh examples: its messages, its masks and the results of its calls.

Each turn of a conversation is judged behind the true messages and results of the turns before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from shapeworld.words import Phrasing
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.model.engine import Vitron
from vitron.protocol import parse
from vitron.protocol.contract import ReferenceRegion
from vitron.protocol.messages import text_message
from vitron.protocol.regions import mask_to_region
from vitron.session import CallResult, Conversation
from vitron.specialists import SpecialistRegistry

from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.conversations import REFERENCES, draw_turns
from recipes.vitron_tiny.naming import draw_named
from recipes.vitron_tiny.scoring import MessageScore, fit_mask, score_message
from recipes.vitron_tiny.tasks import TASKS, Split, assistant_text, draw_task

__all__ = [
    "CALLING",
    "EXECUTED",
    "PARTS",
    "SILENT",
    "TEST_SEED",
    "VALIDATION_SEED",
    "EvaluatedModel",
    "Judged",
    "Part",
    "ShippedModel",
    "batches",
    "draw_part",
    "judge",
    "run_calls",
]

Bool = NDArray[np.bool_]
_T = TypeVar("_T")

SILENT = ("caption", "grounding", "question", "region_caption", "video_question", "span_grounding", "no_call")
CALLING = tuple(task for task in TASKS if task not in SILENT)
# what the toy specialists can do by words alone; segmentation and tracking are the mask head's
EXECUTED = (
    "editing",
    "restoration",
    "text_to_image",
    "text_to_video",
    "image_to_video",
    "video_editing",
    "chains",
)
FIRST_SEED = 4000  # random seeds from here on are for evaluation: no pool has them
VALIDATION_SEED, TEST_SEED = 6100, 7700


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A set of examples.

    Attributes:
        split: Split of the scenes.
        phrasing: Wording of the user messages.
        is_conversation: Whether all turns of conversations are judged, or examples of one turn.
        references: Share of the later turns of conversations that refer back.
        is_named: Whether calls are about things that the world does not have; their words alone are judged.
        share: Number of examples in proportion to that of the first part.
    """

    split: Split = "test"
    phrasing: Phrasing = "train"
    is_conversation: bool = False
    references: float = REFERENCES
    is_named: bool = False
    share: float = 1.0


PARTS: Mapping[str, Part] = {
    "test": Part(),
    "held_out": Part(phrasing="held_out"),
    "novel": Part(split="novel", share=0.5),
    "conversations": Part(is_conversation=True),
    "conversations_held_out": Part(phrasing="held_out", is_conversation=True),
    "explicit": Part(phrasing="held_out", is_conversation=True, references=0.0, share=0.5),
    "named": Part(phrasing="held_out", is_named=True, share=0.5),
}
"""Fresh scenes; held-out wordings; pairs of colour and shape never seen; conversations in either wording;
conversations in which each turn names what it means, and turns about things whose names training does not
have, both in held-out wordings."""

SHARES: Mapping[str, float] = dict.fromkeys(TASKS, 0.5) | {
    "referring_segmentation": 2.0,  # of four kinds, each with a figure of its own
    "question": 4.0,  # of eight kinds
    "region_caption": 2.0,
    **dict.fromkeys(("editing", "tracking", "chains", "no_call", "sketch_segmentation"), 1.0),
}
"""Examples of each task in a part of one turn, in proportion to ``count``."""
CONVERSATIONS, NAMED = 4.0, 8.0
"""Conversations, and turns about named things, in a part, in proportion to ``count``."""


class EvaluatedModel(Protocol):
    """Interface of evaluated models."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Generate the last message of each conversation, greedily, tags and signals included."""
        ...

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Return the masks of the mask head for each message, ``(T, H, W)``, by position of the call."""
        ...


class ShippedModel:
    """A :class:`vitron.Vitron`, as it is evaluated.

    Args:
        vitron: Model.
    """

    def __init__(self, vitron: Vitron) -> None:
        self.vitron = vitron

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Generate the last message of each conversation, greedily."""
        return self.vitron.generate_batch(examples, constrained=constrained)

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Return masks of the mask head; an incomplete call, or one without a true mask, has none."""
        found: list[dict[int, Bool]] = [{} for _ in examples]
        rewritten = {
            place: each
            for place, pair in enumerate(zip(examples, replies, strict=True))
            if (each := self._with_reply(*pair)) is not None
        }
        signals = self.vitron.signals_of(list(rewritten.values())) if rewritten else []
        for place, own in zip(rewritten, signals, strict=True):
            example, turn = examples[place], parse(replies[place])
            before = num_calls_before(example)
            for number, call in enumerate(turn.invocations):
                signal = own[before + number] if before + number < len(own) else None
                complete = sum(each.invocation == number for each in turn.signals)
                if signal is None or complete != len(signal) or before + number not in example.masks:
                    continue
                if call.module in self.vitron.model.mask_head.queries:
                    medium = example.media[example.mask_media[before + number]]
                    found[place][number] = self.vitron.mask(signal, call.module, medium)
        return found

    def _with_reply(self, example: Example, reply: str) -> Example | None:
        """Return the conversation with the message, or ``None`` if it has no valid call."""
        turn = parse(reply)
        calls = tuple(call.model_copy(update={"source": None}) for call in turn.invocations)
        if not calls or not example.masks:
            return None
        message = text_message("assistant", turn.text, *calls)
        try:
            self.vitron.encoder.assistant_text(message)
        except ValueError:
            return None
        return replace(example, messages=(*example.messages[:-1], message), masks={}, mask_media={})


def num_calls_before(example: Example) -> int:
    """Return the number of calls before the last message."""
    return sum(len(message.calls) for message in example.messages[:-1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A turn with the message of a model.

    Attributes:
        drawn: Turn.
        reply: Message of the model.
        score: Its score.
        masks: Found and true masks ``(T, H, W)`` of the first call that has one; ``None`` without any.
        executed: Whether all calls ran; ``None`` where calls are not run.
        alike: Whether their results are those of the true calls.
    """

    drawn: Drawn
    reply: str
    score: MessageScore
    masks: tuple[Bool, Bool] | None = None
    executed: bool | None = None
    alike: bool | None = None


def draw_part(part: Part, seed: int, count: int, tasks: Sequence[str] = TASKS) -> Iterator[Drawn]:
    """Yield the turns of a part.

    Args:
        part: Part.
        seed: Random seed of the examples.
        count: Number of examples of a task of share 1.
        tasks: Tasks of a part of one turn.
    """
    count = max(1, round(count * part.share))
    if part.is_conversation:
        for index in range(round(count * CONVERSATIONS)):
            yield from draw_turns(
                seed, index, split=part.split, phrasing=part.phrasing, references=part.references
            )
    elif part.is_named:
        for index in range(round(count * NAMED)):
            yield draw_named(seed, index, split=part.split, phrasing=part.phrasing)
    else:
        for task in tasks:
            for index in range(max(1, round(count * SHARES[task]))):
                yield draw_task(task, seed, index, split=part.split, phrasing=part.phrasing)


def judge(
    model: EvaluatedModel,
    turns: Iterable[Drawn],
    *,
    batch_size: int = 32,
    constrained: bool = False,
    execute: bool = True,
    log: Callable[[str], None] | None = None,
) -> list[Judged]:
    """Let a model answer turns, and score its messages.

    Args:
        model: Model.
        turns: Turns.
        batch_size: Number of conversations per batch.
        constrained: Whether calls are constrained to the grammar.
        execute: Whether calls are run.
        log: Called with a line from time to time.
    """
    judged, registry = list[Judged](), toy_registry()
    # conversations of one length waste no padding
    ordered = sorted(turns, key=lambda each: (len(each.example.messages), len(each.example.media)))
    for batch in batches(ordered, batch_size):
        examples = [each.example for each in batch]
        replies = model.generate_batch(examples, constrained=constrained)
        masks = model.masks(examples, replies)
        for drawn, reply, found in zip(batch, replies, masks, strict=True):
            judged.append(_judged(registry, drawn, reply, found, execute=execute))
        if log is not None and len(judged) % (8 * batch_size) == 0:
            log(f"{len(judged)} of {len(ordered)} turns")
    return judged


def _judged(
    registry: SpecialistRegistry, drawn: Drawn, reply: str, found: Mapping[int, Bool], *, execute: bool
) -> Judged:
    example = drawn.example
    before = num_calls_before(example)
    number = min((call - before for call in example.masks if call >= before), default=None)
    pair = None
    if number is not None:
        truth = example.masks[before + number]
        pair = fit_mask(found.get(number), truth), truth
    result = None
    if execute and drawn.task in EXECUTED and _can_run(example):
        result = run_calls(registry, example, reply)
    return Judged(
        drawn=drawn,
        reply=reply,
        score=score_message(example, reply),
        masks=pair,
        executed=None if result is None else result[0],
        alike=None if result is None else result[1],
    )


def _can_run(example: Example) -> bool:
    """Whether the regions that the true calls name lie on the latest image or video."""
    last = max((place for place, each in enumerate(example.media) if each.kind != "masks"), default=-1)
    for call in example.messages[-1].calls:
        if isinstance(call.region, ReferenceRegion) and call.region.name.startswith("region"):
            number = int(call.region.name.removeprefix("region_")) - 1
            if example.regions[number].media != last:
                return False
    return True


def batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield items in lists of ``size``; the last may be shorter."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def run_calls(registry: SpecialistRegistry, example: Example, reply: str) -> tuple[bool, bool]:
    """Run the calls of a message and those of the true one.

    Returns:
        Whether every call has a result, and whether the results are those of the true calls. Where the
        specialists cannot run the true calls, neither holds.
    """
    found, truth = (_results(registry, example, text) for text in (reply, assistant_text(example)))
    done = len(found) == len(truth) and all(result.artefact is not None for result in found)
    return done, done and all(_alike(*pair) for pair in zip(found, truth, strict=True))


def _results(registry: SpecialistRegistry, example: Example, reply: str) -> list[CallResult]:
    conversation = Conversation(specialists=registry)
    for medium in example.media:
        conversation.add_media(medium)
    if example.regions:
        regions = [mask_to_region(each.mask, frame=each.frame or None) for each in example.regions]
        conversation.add_user_message("", regions=regions)
    return conversation.run_calls(parse(reply))


def _alike(found: CallResult, truth: CallResult) -> bool:
    one, other = found.artefact, truth.artefact
    if one is None or other is None:
        return False
    return one.kind == other.kind and np.array_equal(one.data, other.data)
