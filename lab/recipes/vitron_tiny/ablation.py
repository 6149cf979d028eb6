# SPDX-License-Identifier: Apache-2.0
"""Ablation of what specialists receive of a call: text, signals, or both (paper, figure 4).

``text``: specialists receive the instruction of a call. ``signal``: they receive its module and its signals,
without the instruction. ``hybrid``: both. The mask head reads signals; the toy specialists read instructions,
and take a mask where there is one. The model is the same throughout; only what is passed on of its message
differs.

Two specialists combine both. One segments: words name objects, and the mask of the signals chooses among them
(``combined_``). One edits by phrases that fit several objects, whose colour was left out of the instruction:
only the mask says which is meant (``ambiguous_``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.demo.painters.find import choose, things_in
from vitron.demo.painters.words import read_phrase
from vitron.errors import SpecialistError
from vitron.protocol import MODULES, parse
from vitron.protocol.contract import Invocation
from vitron.protocol.media import Artefact
from vitron.specialists import SpecialistRegistry
from vitron.specialists.protocol import Action, Request
from vitron.specialists.words import COLOURS

from recipes.vitron_tiny.evaluation import EvaluatedModel, batches
from recipes.vitron_tiny.scoring import cumulative_iou, fit_mask, mean_iou, share
from recipes.vitron_tiny.tasks import draw_example

Bool = NDArray[np.bool_]
Message = Literal["text", "signal", "hybrid"]
MESSAGES: tuple[Message, ...] = get_args(Message)
MASKED = ("referring_segmentation", "sketch_segmentation", "tracking")
EDITED = ("editing", "video_editing")
TASKS = (*MASKED, *EDITED)
COVERED = 0.5  # share of an object that the mask of the signals covers where it is meant
AGREED = 0.5  # least IoU of the objects of the words and the mask of the signals
_COLOUR = re.compile(rf"\b(?:{'|'.join(COLOURS)}) (?=\w)")
_REST = re.compile(r" (?:to|with|by|into|for) ")  # what comes behind the object of an edit


class Said(NamedTuple):
    """The first call of an assistant message.

    Attributes:
        example: Conversation.
        call: Call; ``None`` if there is none of the right module.
        mask: Mask of its signals, ``(T, H, W)``; ``None`` without signals.
    """

    example: Example
    call: Invocation | None
    mask: Bool | None


def run_calls(
    registry: SpecialistRegistry, message: Message, call: Invocation, medium: Artefact, mask: Bool | None
) -> Artefact | None:
    """Run one call on the parts of it that are passed on.

    Args:
        registry: Specialists that read instructions.
        message: Parts that are passed on.
        call: Call of the model.
        medium: Image or video.
        mask: Mask of the call's signals, ``(T, H, W)``; ``None`` if signals are missing.

    Returns:
        The result, or ``None`` if the call cannot run.
    """
    passed = mask if message != "text" else None
    if passed is not None and call.module in ("image_segmentation", "video_segmentation"):
        return Artefact("masks", passed[None], ("region",))
    module = MODULES[call.module]
    actions = tuple(Action(module.action(each), each.text, each.verb) for each in call.instruction)
    if message == "signal":
        # signals name no action: the specialist takes the first of the module
        actions = (Action(next(iter(module.verbs.values())), "", ""),)
    try:
        request = Request(
            module=call.module,
            actions=actions,
            media=medium,
            mask=passed[0]
            if passed is not None and passed.any() and call.module == "image_editing"
            else None,
            region=None,
            frames=None,
            args={},
        )
        return registry.run(request).result.artefact
    except SpecialistError:
        return None


def combine(
    registry: SpecialistRegistry, message: Message, call: Invocation, medium: Artefact, mask: Bool | None
) -> Artefact | None:
    """Segment by words and signals: of the objects that the words name, those that the mask covers.

    Where these do not agree with the mask, or the words name nothing, as "this" does, the mask itself is the
    result; without a mask, all that the words name.

    Args:
        registry: Specialists that read instructions.
        message: Parts that are passed on.
        call: Call of the model.
        medium: Image or video.
        mask: Mask of the call's signals, ``(T, H, W)``; ``None`` if signals are missing.

    Returns:
        Masks, or ``None`` if the call cannot run.
    """
    passed = None if message == "text" or mask is None or not mask.any() else mask
    named = None if message == "signal" else run_calls(registry, "text", call, medium, None)
    if passed is None:
        return named
    if named is not None:
        objects = np.asarray(named.data, dtype=np.bool_)  # (N, T, H, W)
        covered = (objects & passed).sum((1, 2, 3)) >= COVERED * np.maximum(objects.sum((1, 2, 3)), 1)
        chosen = objects[covered].any(axis=0)  # (T, H, W)
        if (chosen & passed).sum() >= AGREED * (chosen | passed).sum():
            return Artefact("masks", objects[covered], tuple("object" for _ in range(int(covered.sum()))))
    return Artefact("masks", passed[None], ("region",))


def ambiguous(call: Invocation, image: Artefact) -> Invocation | None:
    """Return an edit without the colour of its object; ``None`` where that leaves the object certain.

    Args:
        call: Edit of one object.
        image: Image.
    """
    if len(call.instruction) != 1:
        return None
    (instruction,) = call.instruction
    rest = _REST.search(instruction.text)
    end = len(instruction.text) if rest is None else rest.start()
    words = _COLOUR.sub("", instruction.text[:end], count=1)
    phrase = read_phrase(words)
    if words == instruction.text[:end] or phrase.shape is None:
        return None
    try:
        fitting = choose(things_in(image.frames[0]), phrase)
    except SpecialistError:
        return None
    if len(fitting) < 2:
        return None
    changed = instruction.model_copy(update={"text": words + instruction.text[end:]})
    return call.model_copy(update={"instruction": (changed,)})


def ablate(
    model: EvaluatedModel,
    *,
    seed: int,
    count: int,
    batch_size: int = 32,
    log: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Measure text, signals and both on the same assistant messages.

    Args:
        model: Model.
        seed: Random seed of the examples, which are of the test split.
        count: Number of examples of each task.
        batch_size: Number of conversations per batch.
        log: Called with a line for each task.

    Returns:
        Figures by name for each kind of message: ``execution_rate`` over all tasks and of each,
        ``referring_ciou``, ``sketch_ciou``, ``tracking_miou`` (a missing result is an empty mask), the same
        with :func:`combine` as ``combined_...``, and ``editing_error`` and ``video_editing_error``, the mean
        absolute difference in [0, 1] to the result of the true call with the true mask (a missing result is
        the input). Of edits whose object :func:`ambiguous` made uncertain: ``ambiguous_edits``, their number,
        ``ambiguous_rate`` of those that ran, and ``ambiguous_error``.
    """
    registry = toy_registry()
    figures: dict[str, dict[str, float]] = {message: {} for message in MESSAGES}
    executed: dict[str, list[bool]] = {message: [] for message in MESSAGES}
    for task in TASKS:
        examples = [draw_example(task, seed, index, split="test") for index in range(count)]
        calls = _calls(model, examples, batch_size)
        for message in MESSAGES:
            made = [_run(registry, run_calls, message, said) for said in calls]
            done = [each is not None for each in made]
            executed[message] += done
            figures[message][f"execution_rate_{task}"] = share(done)
            figures[message] |= _quality(registry, task, examples, made)
            if task in MASKED:
                both = [_run(registry, combine, message, said) for said in calls]
                found = _quality(registry, task, examples, both)
                figures[message] |= {f"combined_{name}": figure for name, figure in found.items()}
            elif task == "editing":
                figures[message] |= _ambiguous_figures(registry, message, calls)
        if log is not None:
            rates = ", ".join(f"{one} {figures[one][f'execution_rate_{task}']:.2f}" for one in MESSAGES)
            log(f"{task}: executed {rates}")
    return {message: {"execution_rate": share(executed[message])} | figures[message] for message in MESSAGES}


def _calls(model: EvaluatedModel, examples: Sequence[Example], batch_size: int) -> list[Said]:
    """Return the first call of each message, if it names the right module."""
    found: list[Said] = []
    for batch in batches(examples, batch_size):
        replies = model.generate_batch(batch, constrained=False)
        for example, reply, masks in zip(batch, replies, model.masks(batch, replies), strict=True):
            turn, truth = parse(reply), example.messages[-1].calls[0]
            is_right = turn.invocations and not turn.refusal(0) and turn.invocations[0].module == truth.module
            found.append(Said(example, turn.invocations[0] if is_right else None, masks.get(0)))
    return found


def _run(
    registry: SpecialistRegistry, specialist: Callable[..., Artefact | None], message: Message, said: Said
) -> Artefact | None:
    if said.call is None:
        return None
    return specialist(registry, message, said.call, said.example.media[0], said.mask)


def _ambiguous_figures(
    registry: SpecialistRegistry, message: Message, calls: Sequence[Said]
) -> dict[str, float]:
    """Return the figures of edits whose words fit several objects."""
    ran: list[bool] = []
    errors: list[float] = []
    for example, call, mask in calls:
        unclear = None if call is None else ambiguous(call, example.media[0])
        if unclear is None:
            continue
        before = example.media[0]
        made = run_calls(registry, message, unclear, before, mask)
        truth = run_calls(registry, "hybrid", example.messages[-1].calls[0], before, example.masks[0])
        ran.append(made is not None)
        errors.append(difference(made or before, truth or before))
    if not errors:
        return {"ambiguous_edits": 0.0}
    return {
        "ambiguous_edits": float(len(errors)),
        "ambiguous_rate": share(ran),
        "ambiguous_error": sum(errors) / len(errors),
    }


def _quality(
    registry: SpecialistRegistry, task: str, examples: Sequence[Example], made: Sequence[Artefact | None]
) -> dict[str, float]:
    if task in EDITED:
        errors: list[float] = []
        for example, artefact in zip(examples, made, strict=True):
            call, before = example.messages[-1].calls[0], example.media[0]
            truth = run_calls(registry, "hybrid", call, before, example.masks[0]) or before
            errors.append(difference(artefact or before, truth))
        return {f"{task}_error": sum(errors) / len(errors)}
    pairs: list[tuple[Bool, Bool]] = []
    for example, artefact in zip(examples, made, strict=True):
        found = None if artefact is None else np.asarray(artefact.data.any(axis=0), dtype=np.bool_)
        pairs.append((fit_mask(found, example.masks[0]), example.masks[0]))
    if task == "tracking":
        return {"tracking_miou": mean_iou(pairs)}
    return {f"{task.partition('_')[0]}_ciou": cumulative_iou(pairs)}


def difference(one: Artefact, other: Artefact) -> float:
    """Return the mean absolute difference of two images or videos of one size, 0 to 1."""
    return float(np.abs(one.frames.astype(np.int64) - other.frames).mean() / 255)
