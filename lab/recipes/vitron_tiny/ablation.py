# SPDX-License-Identifier: Apache-2.0
"""Ablation of what specialists receive of a call: text, signals, or both (paper, figure 4).

``text``: specialists receive the instruction of a call. ``signal``: they receive its module and its signals,
without the instruction. ``hybrid``: both. The mask head reads signals; the toy specialists read instructions,
and take a mask where there is one. The model is the same throughout; only what is
passed on of its message differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.demo.painters import toy_registry
from vitron.errors import SpecialistError
from vitron.protocol import MODULES, parse
from vitron.protocol.contract import Invocation
from vitron.protocol.media import Artefact
from vitron.specialists import SpecialistRegistry
from vitron.specialists.protocol import Action, Request

from recipes.vitron_tiny.evaluation import EvaluatedModel, batches
from recipes.vitron_tiny.scoring import cumulative_iou, fit_mask, mean_iou, share
from recipes.vitron_tiny.tasks import draw_example

Bool = NDArray[np.bool_]
Message = Literal["text", "signal", "hybrid"]
MESSAGES: tuple[Message, ...] = get_args(Message)
MASKED = ("referring_segmentation", "sketch_segmentation", "tracking")
EDITED = ("editing", "video_editing")
TASKS = (*MASKED, *EDITED)


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
        ``referring_ciou``, ``sketch_ciou``, ``tracking_miou`` (a missing result is an empty mask), and
        ``editing_error`` and ``video_editing_error``, the mean absolute difference in [0, 1] to the result of
        the true call with the true mask (a missing result is the input).
    """
    registry = toy_registry()
    figures: dict[str, dict[str, float]] = {message: {} for message in MESSAGES}
    executed: dict[str, list[bool]] = {message: [] for message in MESSAGES}
    for task in TASKS:
        made: dict[str, list[Artefact | None]] = {message: [] for message in MESSAGES}
        examples = [draw_example(task, seed, index, split="test") for index in range(count)]
        for batch in batches(examples, batch_size):
            replies = model.generate_batch(batch, constrained=False)
            masks = model.masks(batch, replies)
            for example, reply, found in zip(batch, replies, masks, strict=True):
                for message in MESSAGES:
                    made[message].append(_first(registry, message, example, reply, found))
        for message in MESSAGES:
            done = [each is not None for each in made[message]]
            executed[message] += done
            figures[message][f"execution_rate_{task}"] = share(done)
            figures[message] |= _quality(registry, task, examples, made[message])
        if log is not None:
            rates = ", ".join(f"{one} {figures[one][f'execution_rate_{task}']:.2f}" for one in MESSAGES)
            log(f"{task}: executed {rates}")
    return {message: {"execution_rate": share(executed[message])} | figures[message] for message in MESSAGES}


def _first(
    registry: SpecialistRegistry, message: Message, example: Example, reply: str, masks: Mapping[int, Bool]
) -> Artefact | None:
    """Run the first call of a message, if it names the right module."""
    turn, truth = parse(reply), example.messages[-1].calls[0]
    if not turn.invocations or turn.refusal(0) or turn.invocations[0].module != truth.module:
        return None
    return run_calls(registry, message, turn.invocations[0], example.media[0], masks.get(0))


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
