# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on fresh examples: its calls, answers, masks and results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from shapeworld.words import Phrasing
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.model.engine import Vitron
from vitron.protocol import parse
from vitron.protocol.messages import text_message
from vitron.session import CallResult, Conversation
from vitron.specialists import SpecialistRegistry

from recipes.vitron_tiny.scoring import MessageScore, cumulative_iou, fit_mask, mean_iou, score_message, share
from recipes.vitron_tiny.tasks import TASKS, Split, assistant_text, draw_example

Bool = NDArray[np.bool_]

SILENT = ("caption", "grounding", "question", "region_caption", "video_question", "span_grounding", "no_call")
SPURIOUS = ("caption", "question", "no_call")
CALLING = tuple(task for task in TASKS if task not in SILENT)
# what the toy specialists can do by words alone; the others are the mask head's
EXECUTED = (
    "editing",
    "restoration",
    "text_to_image",
    "text_to_video",
    "image_to_video",
    "video_editing",
    "chains",
)
_MEAN_IOU = {"editing": "edit_iou", "tracking": "tracking_miou", "video_editing": "video_edit_iou"}
PARTS: Mapping[str, tuple[Split, Phrasing]] = {
    "test": ("test", "train"),
    "novel": ("novel", "train"),
    "held_out": ("test", "held_out"),
}
"""What is judged: fresh scenes; pairs of colour and shape never seen; requests worded as never before."""

SHARES: Mapping[str, float] = dict.fromkeys(TASKS, 1.0) | {
    "referring_segmentation": 3.0,  # of three kinds, each with a figure of its own
    "editing": 2.0,
    "restoration": 0.6,
    **dict.fromkeys(("caption", "grounding", "text_to_video", "image_to_video"), 0.5),
    **dict.fromkeys(("video_question", "span_grounding"), 0.5),
}
"""Examples of each task for one of most: tasks that matter more, or come in groups, are judged on more."""


class EvaluatedModel(Protocol):
    """Interface of what is evaluated."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Write the last message of each conversation anew, greedily, tags and signals included."""
        ...

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Return for each message the masks of its calls that the mask head serves, ``(T, H, W)``."""
        ...


class ShippedModel:
    """A :class:`vitron.Vitron`, as it is evaluated.

    Args:
        vitron: Model.
    """

    def __init__(self, vitron: Vitron) -> None:
        self.vitron = vitron

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Write the last message of each conversation anew, greedily."""
        return self.vitron.generate_batch(examples, constrained=constrained)

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Return masks of the mask head from the signals of all messages; an incomplete call has none."""
        found: list[dict[int, Bool]] = [{} for _ in examples]
        said = {place: self._said(*pair) for place, pair in enumerate(zip(examples, replies, strict=True))}
        whole = {place: each for place, each in said.items() if each is not None}
        signals = self.vitron.signals_of(list(whole.values())) if whole else []
        for (place, each), own in zip(whole.items(), signals, strict=True):
            turn = parse(replies[place])
            for number, call in enumerate(turn.invocations):
                complete = sum(signal.invocation == number for signal in turn.signals) == len(own[number])
                if complete and call.module in self.vitron.model.mask_head.queries and each.media:
                    found[place][number] = self.vitron.mask(own[number], call.module, each.media[0])
        return found

    def _said(self, example: Example, reply: str) -> Example | None:
        """Return the conversation with the message, or ``None`` if it has no valid call."""
        turn = parse(reply)
        calls = tuple(call.model_copy(update={"source": None}) for call in turn.invocations)
        if not calls:
            return None
        went = replace(
            example, messages=(*example.messages[:-1], text_message("assistant", turn.text, *calls))
        )
        try:
            self.vitron.encoder.assistant_text(went.messages[-1])
        except ValueError:
            return None
        return replace(went, masks={}, mask_media={})


@dataclass(slots=True)
class Tally:
    """Results of one task.

    Attributes:
        examples: Examples in order.
        messages: One each.
        verdicts: One each.
        masks: Found and true masks ``(T, H, W)`` of each example that has any; those of its first call.
        executed: Whether all calls of each message were run.
        alike: Whether what they made is what the true calls make.
    """

    examples: list[Example] = field(default_factory=list[Example])
    replies: list[str] = field(default_factory=list[str])
    scores: list[MessageScore] = field(default_factory=list[MessageScore])
    masks: list[tuple[Bool, Bool]] = field(default_factory=list[tuple[Bool, Bool]])
    executed: list[bool] = field(default_factory=list[bool])
    alike: list[bool] = field(default_factory=list[bool])


def judge(
    model: EvaluatedModel,
    part: str,
    *,
    seed: int,
    count: int,
    batch_size: int = 32,
    tasks: Sequence[str] = TASKS,
    constrained: bool = False,
    log: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Evaluate one part.

    Args:
        model: Model.
        part: One of :data:`PARTS`.
        seed: Random seed of the examples.
        count: Examples of most tasks; of the others by :data:`SHARES`, at least one.
        batch_size: Conversations that are answered at once.
        tasks: Tasks.
        constrained: Whether calls are constrained to the grammar.
        log: Called with a line for each task.

    Returns:
        Shares by name.
    """
    split, phrasing = PARTS[part]
    tallies: dict[str, Tally] = {}
    for task in tasks:
        wanted = max(1, round(count * SHARES[task]))
        tally = tallies[task] = Tally()
        drawn = (draw_example(task, seed, index, split=split, phrasing=phrasing) for index in range(wanted))
        for examples in batches(drawn, batch_size):
            collect(tally, model, examples, constrained=constrained)
        if log is not None:
            right = share([score.instructions and score.text for score in tally.scores])
            log(f"{part} {task}: {len(tally.replies)} replies, {right:.1%} exact")
    return summarise_tallies(tallies)


def batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Yield examples in lists of ``size``; the last may be shorter."""
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def collect(tally: Tally, model: EvaluatedModel, examples: Sequence[Example], *, constrained: bool) -> None:
    """Let a model answer examples of one task, and collect the results."""
    replies = model.generate_batch(examples, constrained=constrained)
    registry = toy_registry()
    marked = any(0 in example.masks for example in examples)
    masks = model.masks(examples, replies) if marked else [{}] * len(examples)
    for example, reply, found in zip(examples, replies, masks, strict=True):
        tally.examples.append(example)
        tally.replies.append(reply)
        tally.scores.append(score_message(example, reply))
        if 0 in example.masks:
            tally.masks.append((fit_mask(found.get(0), example.masks[0]), example.masks[0]))
        if example.task in EXECUTED:
            executed, alike = run_calls(registry, example, reply)
            tally.executed.append(executed)
            tally.alike.append(alike)


def run_calls(registry: SpecialistRegistry, example: Example, reply: str) -> tuple[bool, bool]:
    """Run the calls of a message and of the true one.

    Returns:
        Whether everything that should be made is made, and whether it is what the true calls make.
    """
    found, truth = (_results(registry, example, text) for text in (reply, assistant_text(example)))
    made = len(found) == len(truth) and all(result.artefact is not None for result in found)
    return made, made and all(_alike(*pair) for pair in zip(found, truth, strict=True))


def _results(registry: SpecialistRegistry, example: Example, reply: str) -> list[CallResult]:
    conversation = Conversation(specialists=registry)
    for medium in example.media:
        conversation.add_media(medium)
    return conversation.run_calls(parse(reply))


def _alike(found: CallResult, truth: CallResult) -> bool:
    one, other = found.artefact, truth.artefact
    if one is None or other is None:
        return False
    return one.kind == other.kind and np.array_equal(one.data, other.data)


def summarise_tallies(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Return all figures that the tasks at hand allow."""
    found: dict[str, float] = {}

    def scores(*tasks: str) -> list[MessageScore]:
        return [score for task in tasks if task in tallies for score in tallies[task].scores]

    def put(name: str, values: Sequence[bool]) -> None:
        if values:
            found[name] = share(values)

    put("module_accuracy", [each.modules for each in scores(*CALLING)])
    put("instruction_exact", [each.instructions for each in scores(*CALLING)])
    put("chain_exact", [each.instructions for each in scores("chains")])
    put("spurious_calls", [each.spurious for each in scores(*SPURIOUS)])
    put("spurious_calls_all", [each.spurious for each in scores(*SILENT)])
    put("parse_rate", [each.parsed for each in scores(*TASKS)])
    for task in ("caption", "question", "region_caption", "video_question", "span_grounding", "no_call"):
        put(task, [each.text and each.modules for each in scores(task)])
    put("grounding_acc50", [each.box is not None and each.box > 0.5 for each in scores("grounding")])
    for task in CALLING:
        put(f"instruction_exact_{task}", [each.instructions for each in scores(task)])
    put("execution_rate", [each for tally in tallies.values() for each in tally.executed])
    put("execution_right", [each for tally in tallies.values() for each in tally.alike])
    return found | _mask_figures(tallies)


def _mask_figures(tallies: Mapping[str, Tally]) -> dict[str, float]:
    found: dict[str, float] = {}
    if referring := tallies.get("referring_segmentation"):
        groups = [example.group for example in referring.examples]
        for group in sorted(set(groups)):
            own = [pair for name, pair in zip(groups, referring.masks, strict=True) if name == group]
            found[f"referring_ciou_{group}"] = cumulative_iou(own)
        found["referring_ciou"] = cumulative_iou(referring.masks)
    if (sketch := tallies.get("sketch_segmentation")) and sketch.masks:
        found["sketch_ciou"] = cumulative_iou(sketch.masks)
    for task, name in (
        ("editing", "edit_iou"),
        ("tracking", "tracking_miou"),
        ("video_editing", "video_edit_iou"),
    ):
        tally = tallies.get(task)
        if tally is not None and tally.masks:
            found[name] = mean_iou(tally.masks)
    return found


def evaluate_all(
    model: EvaluatedModel,
    *,
    seed: int,
    count: int,
    batch_size: int = 32,
    log: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluate all parts, and the parse rate under the grammar on calls of the test part.

    Args:
        model: Model.
        seed: Random seed of the examples.
        count: Examples of most tasks in each part; a quarter of it under the grammar.
        batch_size: Conversations that are answered at once.
        log: Called with a line for each task.
    """
    figures = {
        part: judge(model, part, seed=seed, count=count, batch_size=batch_size, log=log) for part in PARTS
    }
    held = judge(
        model,
        "test",
        seed=seed,
        count=max(1, count // 4),
        batch_size=batch_size,
        tasks=CALLING,
        constrained=True,
        log=log,
    )
    figures["test"]["parse_rate_constrained"] = held["parse_rate"]
    figures["test"]["instruction_exact_constrained"] = held["instruction_exact"]
    return figures


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return figures as a table in Markdown, one row a figure, one column a part."""
    names = dict.fromkeys(name for part in figures.values() for name in part)
    lines = [f"| figure | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for name in names:
        cells = [f"{part[name]:.3f}" if name in part else "" for part in figures.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
