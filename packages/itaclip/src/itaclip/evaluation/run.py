# SPDX-License-Identifier: Apache-2.0
"""A data set through a predictor: shared out among processes, resumed, past every bad file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from PIL import Image
from torch import Tensor

from itaclip.evaluation.datasets import Dataset, Sample, SampleError
from itaclip.evaluation.metrics import Scores, confusion
from itaclip.evaluation.rows import RowStore
from itaclip.images import MAX_PIXELS

Predict = Callable[[Image.Image], Tensor]
# what a bad file or one image too many for the memory raises; torch says out of memory with a RuntimeError
ITEM_ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that was left out.

    Attributes:
        image: Its name in the split.
        error: What was wrong.
    """

    image: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What all processes together found.

    Attributes:
        scores: Counts over the evaluated images, and what follows from them.
        evaluated: Images that count.
        resumed: How many of them were finished in an earlier run.
        failures: Images that do not count, by name.
    """

    scores: Scores
    evaluated: int
    resumed: int
    failures: tuple[Failure, ...]


def start_processes(*, cpu: bool) -> PartialState:
    """Join the processes that ``accelerate launch`` or ``torchrun`` started; alone if there are none.

    Args:
        cpu: Whether to stay on the CPU; so without CUDA, too.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    cpu = cpu or asked or not torch.cuda.is_available()
    # the last process may wait long for one with larger images
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=cpu, **({"timeout": timedelta(days=1)} if distributed else {}))


def evaluate(
    dataset: Dataset,
    predict: Predict,
    labels: Sequence[str],
    *,
    folder: str | Path | None = None,
    fresh: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_image: Callable[[int, int, Failure | None], None] | None = None,
    debug: bool = False,
) -> Evaluation:
    """Evaluate a predictor on a data set; called by every process with the same arguments.

    Each process takes every n-th image; the counts are added up at the end, so all return the same.

    Args:
        dataset: Images and label maps.
        predict: Gives class ids ``(H, W)`` for a picture of that size.
        labels: Display names of the classes, as many as the data set has.
        folder: Where counts per image are kept, so that a stopped run can go on; not kept if ``None``. Counts
            of other settings must not be in it.
        fresh: Whether to drop what is kept there.
        max_pixels: Larger images are left out, by name.
        on_image: Called after every image of this process with images done, images of this process, and what
            was wrong, if anything.
        debug: Whether the first bad image ends the run with its traceback.

    Raises:
        ValueError: If the number of labels is not the data set's number of classes.
    """
    num_classes = dataset.layout.num_classes
    if len(labels) != num_classes:
        raise ValueError(f"{dataset.layout.name} has {num_classes} classes, got {len(labels)} names")
    state = start_processes(cpu=False)  # those that are joined already, if any
    store = None if folder is None else RowStore(folder, num_classes, state.process_index)
    done, matrix = _kept(dataset, store, state, fresh=fresh)
    left = [sample for sample in dataset.samples if sample.name not in done]
    mine = left[state.process_index :: state.num_processes]
    failures: list[Failure] = []
    for number, sample in enumerate(mine, 1):
        failure = None
        try:
            counts = _judge(sample, predict, num_classes, max_pixels)
        except ITEM_ERRORS as error:
            if debug:
                raise
            failure = Failure(sample.name, _sentence(sample, error))
            failures.append(failure)
        else:
            matrix += counts
            if store is not None:
                store.add(sample.name, counts)
        if on_image is not None:
            on_image(number, len(mine), failure)
    if state.num_processes > 1:
        matrix = cast(Tensor, reduce(matrix.to(state.device), "sum")).cpu()
        failures = gather_object(failures)
    return Evaluation(
        scores=Scores(matrix, tuple(labels)),
        evaluated=len(dataset.samples) - len(failures),
        resumed=len(done),
        failures=tuple(sorted(failures, key=lambda failure: failure.image)),
    )


def _kept(
    dataset: Dataset, store: RowStore | None, state: PartialState, *, fresh: bool
) -> tuple[set[str], Tensor]:
    """Return what earlier runs finished: the names everywhere, the counts in the first process only."""
    nothing = torch.zeros(dataset.layout.num_classes, dataset.layout.num_classes, dtype=torch.int64)
    if store is None:
        return set(), nothing
    names: list[set[str]] = [set()]
    total = nothing
    if state.is_main_process:
        if fresh:
            store.clear()
        names[0], total = store.read({sample.name for sample in dataset.samples})
    # the others wait here: none may add lines while the first still reads
    broadcast_object_list(names)
    return names[0], total


def _judge(sample: Sample, predict: Predict, num_classes: int, max_pixels: int) -> Tensor:
    picture, target = sample.read(max_pixels=max_pixels)
    return confusion(predict(picture), target, num_classes)


def _sentence(sample: Sample, error: Exception) -> str:
    message = " ".join(str(error).split()) or "out of memory"
    return message if isinstance(error, SampleError) else f"{sample.image}: {message}"
