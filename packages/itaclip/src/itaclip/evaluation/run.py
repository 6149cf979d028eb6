# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a predictor on a data set: sharded over processes, resumable, past every bad file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common_kernels.runtime.images import MAX_PIXELS
from common_kernels.runtime.processes import Processes
from common_kernels.runtime.rows import RowStore
from PIL import Image
from torch import Tensor

from itaclip.evaluation.datasets import Dataset, Sample, SampleError
from itaclip.evaluation.metrics import Scores, confusion

Predict = Callable[[Image.Image], Tensor]
# raised by a bad file or an image too large for the memory; torch reports out of memory by a RuntimeError
ITEM_ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be evaluated.

    Attributes:
        image: Name in the split.
        error: What was wrong.
    """

    image: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of an evaluation, over all processes.

    Attributes:
        scores: Counts over the evaluated images, and the scores that follow from them.
        evaluated: Number of images that count.
        resumed: Number of them that an earlier run evaluated.
        failures: Images that do not count, by name.
    """

    scores: Scores
    evaluated: int
    resumed: int
    failures: tuple[Failure, ...]


def evaluate(
    dataset: Dataset,
    predict: Predict,
    labels: Sequence[str],
    *,
    folder: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    processes: Processes | None = None,
    on_image: Callable[[int, int, Failure | None], None] | None = None,
    debug: bool = False,
) -> Evaluation:
    """Evaluate a predictor on a data set; called by every process with the same arguments.

    Each process takes every n-th image; the counts are added up at the end, so all return the same.

    Args:
        dataset: Images and label maps.
        predict: Returns class ids ``(H, W)`` for an image of that size.
        labels: Display names of the classes, as many as the data set has.
        folder: Folder in which the counts of each image are kept, so that a stopped run can be resumed; not
            kept if ``None``.
        settings: What the counts depend on, as plain values; counts of other settings are not used.
        overwrite: Whether to discard the counts of earlier runs.
        max_pixels: Limit of width times height; larger images fail.
        processes: The joined processes; this one alone if ``None``.
        on_image: Called after every image of this process with images done, images of this process, and the
            failure, if there is one.
        debug: Whether the first bad image ends the run with its traceback.

    Raises:
        ValueError: If the number of labels is not the data set's number of classes.
    """
    num_classes = dataset.layout.num_classes
    if len(labels) != num_classes:
        raise ValueError(f"{dataset.layout.name} has {num_classes} classes, got {len(labels)} names")
    processes = processes or Processes()
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    store = None if folder is None else RowStore(folder, settings=settings or {}, rank=processes.rank)
    rows = _resume(store, dataset, processes, overwrite=overwrite)
    # all processes wait here: none may append rows while the first still reads
    done: set[str] = processes.gather(set(rows))[0]
    if processes.is_main:
        for row in rows.values():
            matrix.view(-1).index_add_(0, torch.tensor(row["cells"]), torch.tensor(row["pixels"]))
    shard = processes.shard([sample for sample in dataset.samples if sample.name not in done])
    failures: list[Failure] = []
    for number, sample in enumerate(shard, 1):
        failure = None
        try:
            image, target = sample.read(max_pixels=max_pixels)
            counts = confusion(predict(image), target, num_classes)
        except ITEM_ERRORS as error:
            if debug:
                raise
            failure = Failure(sample.name, _sentence(sample, error))
            failures.append(failure)
        else:
            matrix += counts
            if store is not None:
                store.append(sample.name, _row(counts))
        if on_image is not None:
            on_image(number, len(shard), failure)
    total = torch.stack(processes.gather(matrix)).sum(dim=0)
    everywhere = [failure for part in processes.gather(failures) for failure in part]
    return Evaluation(
        scores=Scores(total, tuple(labels)),
        evaluated=len(dataset.samples) - len(everywhere),
        resumed=len(done),
        failures=tuple(sorted(everywhere, key=lambda failure: failure.image)),
    )


def _resume(
    store: RowStore | None, dataset: Dataset, processes: Processes, *, overwrite: bool
) -> dict[str, dict[str, list[int]]]:
    """Return the rows of earlier runs in the main process; nothing in the others."""
    if store is None or not processes.is_main:
        return {}
    if overwrite:
        store.clear()
    rows = store.read({sample.name for sample in dataset.samples})
    return {name: row for name, row in rows.items() if _is_usable(row, dataset.layout.num_classes)}


def _is_usable(row: Mapping[str, object], num_classes: int) -> bool:
    cells, pixels = row.get("cells"), row.get("pixels")
    if not isinstance(cells, list) or not isinstance(pixels, list) or len(cells) != len(pixels):
        return False
    numbers = all(isinstance(value, int) for value in (*cells, *pixels))
    return numbers and all(0 <= cell < num_classes**2 for cell in cells)


def _row(matrix: Tensor) -> dict[str, object]:
    """Return the cells of an image's matrix that are not zero."""
    cells = matrix.flatten().nonzero().flatten()
    return {"cells": cells.tolist(), "pixels": matrix.flatten()[cells].tolist()}


def _sentence(sample: Sample, error: Exception) -> str:
    message = " ".join(str(error).split()) or "out of memory"
    return message if isinstance(error, SampleError) else f"{sample.image}: {message}"
