# SPDX-License-Identifier: Apache-2.0
"""Measures a model on examples it never saw: its calls, answers and masks, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from shapeworld.words import Phrasing
from vitron.data.example import Example
from vitron.demo.painters import ToyAnimator, ToyPainter, ToySegmenter
from vitron.model.engine import Vitron
from vitron.protocol import parse
from vitron.protocol.messages import text_message
from vitron.session import CallResult, Conversation
from vitron.specialists import SpecialistRegistry

from recipes.vitron_tiny.scoring import (
    Verdict,
    cumulative_iou,
    fitted,
    judge_reply,
    mean_iou,
    share,
)
from recipes.vitron_tiny.tasks import TASKS, Split, draw_example, reply_of

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


class Judged(Protocol):
    """What is judged."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Write the last reply of each dialogue anew, greedily, tags and signals included."""
        ...

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Return for each reply the masks of those of its calls that the mask head serves, ``(T, H, W)``."""
        ...


class Shipped:
    """A model behind the engine, as it is judged.

    Args:
        vitron: The model.
    """

    def __init__(self, vitron: Vitron) -> None:
        self.vitron = vitron

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        """Write the last reply of each dialogue anew, greedily."""
        return self.vitron.generate_batch(examples, constrained=constrained)

    def masks(self, examples: Sequence[Example], replies: Sequence[str]) -> list[dict[int, Bool]]:
        """Read the signals of all replies at once and ask the mask head; a call that lacks some has none."""
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
        """Return the dialogue as it went on, or ``None`` if it calls nothing that can be written."""
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
    """Everything that was seen of one task.

    Attributes:
        examples: In order.
        replies: One each.
        verdicts: One each.
        masks: Found and true masks ``(T, H, W)`` of each example that has any; those of its first call.
        executed: Whether all calls of each reply were carried out.
        alike: Whether what they made is what the true calls make.
    """

    examples: list[Example] = field(default_factory=list[Example])
    replies: list[str] = field(default_factory=list[str])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    masks: list[tuple[Bool, Bool]] = field(default_factory=list[tuple[Bool, Bool]])
    executed: list[bool] = field(default_factory=list[bool])
    alike: list[bool] = field(default_factory=list[bool])


def judge(
    model: Judged,
    part: str,
    *,
    seed: int,
    count: int,
    batch_size: int = 32,
    tasks: Sequence[str] = TASKS,
    constrained: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Measure one part of the judgement.

    Args:
        model: What is judged.
        part: One of :data:`PARTS`.
        seed: Of the examples.
        count: Examples of most tasks; of the others by :data:`SHARES`, at least one.
        batch_size: Dialogues that are answered at once.
        tasks: Which tasks.
        constrained: Whether calls are held to the grammar.
        tell: Gets a line for each task.

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
        if tell is not None:
            right = share([verdict.instructions and verdict.text for verdict in tally.verdicts])
            tell(f"{part} {task}: {len(tally.replies)} replies, {right:.1%} exact")
    return figures_of(tallies)


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


def collect(tally: Tally, model: Judged, examples: Sequence[Example], *, constrained: bool) -> None:
    """Let a model answer examples of one task, and take down what comes."""
    replies = model.generate_batch(examples, constrained=constrained)
    registry = toys()
    marked = any(0 in example.masks for example in examples)
    masks = model.masks(examples, replies) if marked else [{}] * len(examples)
    for example, reply, found in zip(examples, replies, masks, strict=True):
        tally.examples.append(example)
        tally.replies.append(reply)
        tally.verdicts.append(judge_reply(example, reply))
        if 0 in example.masks:
            tally.masks.append((fitted(found.get(0), example.masks[0]), example.masks[0]))
        if example.task in EXECUTED:
            executed, alike = carry_out(registry, example, reply)
            tally.executed.append(executed)
            tally.alike.append(alike)


def toys() -> SpecialistRegistry:
    """Return the toy specialists alone, whatever else is installed."""
    registry = SpecialistRegistry()
    for toy in (ToyPainter, ToyAnimator, ToySegmenter):
        registry.register(toy.__name__, toy)
    return registry


def carry_out(registry: SpecialistRegistry, example: Example, reply: str) -> tuple[bool, bool]:
    """Carry out a reply and the true one.

    Returns:
        Whether everything that should be made is made, and whether it is what the true calls make.
    """
    found, truth = (_results(registry, example, text) for text in (reply, reply_of(example)))
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


def figures_of(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Return all figures that the tasks at hand allow."""
    found: dict[str, float] = {}

    def verdicts(*tasks: str) -> list[Verdict]:
        return [verdict for task in tasks if task in tallies for verdict in tallies[task].verdicts]

    def put(name: str, values: Sequence[bool]) -> None:
        if values:
            found[name] = share(values)

    put("module_accuracy", [each.modules for each in verdicts(*CALLING)])
    put("instruction_exact", [each.instructions for each in verdicts(*CALLING)])
    put("chain_exact", [each.instructions for each in verdicts("chains")])
    put("spurious_calls", [each.spurious for each in verdicts(*SPURIOUS)])
    put("spurious_calls_all", [each.spurious for each in verdicts(*SILENT)])
    put("parse_rate", [each.parsed for each in verdicts(*TASKS)])
    for task in ("caption", "question", "region_caption", "video_question", "span_grounding", "no_call"):
        put(task, [each.text and each.modules for each in verdicts(task)])
    put("grounding_acc50", [each.box is not None and each.box > 0.5 for each in verdicts("grounding")])
    for task in CALLING:
        put(f"instruction_exact_{task}", [each.instructions for each in verdicts(task)])
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


def judge_all(
    model: Judged,
    *,
    seed: int,
    count: int,
    batch_size: int = 32,
    tell: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Measure all parts, and the parse rate under the grammar on calls of the test part.

    Args:
        model: What is judged.
        seed: Of the examples.
        count: Examples of most tasks in each part; a quarter of it under the grammar.
        batch_size: Dialogues that are answered at once.
        tell: Gets a line for each task.
    """
    figures = {
        part: judge(model, part, seed=seed, count=count, batch_size=batch_size, tell=tell) for part in PARTS
    }
    held = judge(
        model,
        "test",
        seed=seed,
        count=max(1, count // 4),
        batch_size=batch_size,
        tasks=CALLING,
        constrained=True,
        tell=tell,
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
