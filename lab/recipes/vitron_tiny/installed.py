# SPDX-License-Identifier: Apache-2.0
"""What a user gets who installs vitron and edits: the small model with the installed specialists."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

import numpy as np
import torch
from common_kernels.runtime.cli import say
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from numpy.typing import NDArray
from vitron.demo.painters import ToyAnimator, ToyPainter
from vitron.errors import UnsupportedRequestError
from vitron.model.engine import Vitron
from vitron.protocol.contract import Invocation
from vitron.protocol.media import Artefact
from vitron.protocol.modules import MODULES
from vitron.session.events import ResultEvent
from vitron.specialists import Action, Request

from recipes.options import Accelerator
from recipes.vitron_tiny.composing import Drawn
from recipes.vitron_tiny.evaluation import FIRST_SEED
from recipes.vitron_tiny.figures import table
from recipes.vitron_tiny.judging import columns
from recipes.vitron_tiny.tasks import draw_task

TASKS = {"image_editing": "editing", "video_editing": "video_editing", "image_to_video": "image_to_video"}


def edits(
    *,
    model: str = "vitron-tiny",
    seed: Annotated[int, Parameter(validator=Number(gte=FIRST_SEED))] = 6800,
    count: PositiveInt = 120,
    machine: Accelerator = Accelerator(),
) -> None:
    """Evaluate edits of drawn images and videos by the installed specialists, asked for in words.

    The error is the mean difference of pixels, 0 to 1, from what the toy painter makes of the true call; it
    is of the requests that ran and that the toy painter can run.

    Args:
        model: Model.
        seed: Random seed of the examples.
        count: Number of images; of videos and of animations a fifth.
        machine: Device and threads.
    """
    torch.set_num_threads(machine.threads)
    loaded = Vitron.from_pretrained(model, device=machine.device, dtype="float32")
    found = defaultdict[str, list[tuple[float, float, float]]](list)
    for module, task in TASKS.items():
        for index in range(count if module == "image_editing" else count // 5):
            drawn = draw_task(task, seed, index, split="test")
            calls = drawn.example.messages[-1].calls
            parts = drawn.example.messages[0].content
            if len(calls) == 1 and calls[0].module == module and all(part.type != "region" for part in parts):
                kind = MODULES[module].action(calls[0].instruction[0])
                found[f"{module}: {kind}"].append(_judged(loaded, drawn, calls[0]))
    figures = dict[str, dict[str, float]]()
    for kind, rows in sorted(found.items()):
        ran, error, unchanged = np.array(rows).T
        known = ~np.isnan(error)
        means = (float(each[known].mean()) if known.any() else float("nan") for each in (error, unchanged))
        figures[kind] = dict(
            zip(
                ("requests", "ran", "error", "of the image unchanged"),
                (len(rows), ran.mean(), *means),
                strict=True,
            )
        )
    say(table(columns(figures), "edit"))


def _judged(model: Vitron, drawn: Drawn, call: Invocation) -> tuple[float, float, float]:
    """Return whether a request ran, its error and that of its input; the last two may be unknown."""
    message = drawn.example.messages[0]
    view = next(drawn.views[part.media] for part in message.content if part.type == "media")
    assert view is not None
    conversation = model.conversation()
    conversation.add_user_message(message.text, media=[view.media])
    results = [event.result.artefact for event in conversation.generate() if isinstance(event, ResultEvent)]
    made = next((each for each in results if each is not None and each.kind != "masks"), None)
    truth = _truth(view.media, call)
    if made is None or truth is None:
        return float(made is not None), float("nan"), float("nan")
    return 1.0, _difference(made.frames, truth), _difference(view.media.frames, truth)


def _truth(media: Artefact, call: Invocation) -> NDArray[np.uint8] | None:
    actions = tuple(
        Action(MODULES[call.module].action(each), each.text, each.verb) for each in call.instruction
    )
    painter = ToyPainter() if call.module == "image_editing" else ToyAnimator()
    try:
        request = Request(module=call.module, actions=actions, media=media, args=call.args)
        return painter.run(request).artefact.frames
    except UnsupportedRequestError:
        return None


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean difference over the frames that both have; an image is a video that rests."""
    if len(one) > 1:
        count = min(len(one), len(other))
        one, other = one[:count], other[:count]
    return float(np.abs(one.astype(np.float64) - other).mean() / 255)
