# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a predictor on a data set: batched, sharded, resumable, past every bad file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common_kernels.runtime.images import MAX_PIXELS
from common_kernels.runtime.processes import Processes
from common_kernels.runtime.rows import RowStore, row_name
from PIL import Image
from torch import Tensor

from itaclip.evaluation.datasets import Dataset, Sample, SampleError
from itaclip.evaluation.metrics import Scores, confusion

Predict = Callable[[Sequence[Image.Image]], Iterable[Tensor]]
"""Returns class ids ``(H, W)`` for each of some images, of their sizes."""

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


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Scores of one image.

    Attributes:
        image: Name in the split.
        miou: Mean IoU in per cent over the classes that are true or predicted in it; NaN if no pixel counts.
        pixel_accuracy: Share of its counted pixels that are right, in per cent; NaN likewise.
    """

    image: str
    miou: float
    pixel_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of an evaluation, over all processes.

    Attributes:
        scores: Counts over the evaluated images, and the scores that follow from them.
        images: Scores of each of them, the worst mIoU first, those without counted pixels last.
        resumed: Number of them that an earlier run evaluated.
        failures: Images that do not count, by name.
    """

    scores: Scores
    images: tuple[ImageScore, ...]
    resumed: int
    failures: tuple[Failure, ...]

    @property
    def evaluated(self) -> int:
        """Number of images that count."""
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an image was evaluated with.

    Attributes:
        sample: Its files.
        image: RGB.
        truth: ``(H, W)``, uint8: class ids, or 255 for pixels that do not count.
        predicted: ``(H, W)``, class ids.
    """

    sample: Sample
    image: Image.Image
    truth: Tensor
    predicted: Tensor


def evaluate(
    dataset: Dataset,
    predict: Predict,
    labels: Sequence[str],
    *,
    batch_size: int = 1,
    folder: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    processes: Processes | None = None,
    on_image: Callable[[int, int, Failure | None], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    is_complete: Callable[[Sample], bool] | None = None,
    debug: bool = False,
) -> Evaluation:
    """Evaluate a predictor on a data set; called by every process with the same arguments.

    Each process takes every n-th image; the counts are added up at the end, so all return the same.

    Args:
        dataset: Images and label maps.
        predict: Returns class ids ``(H, W)`` for each of some images, of their sizes.
        labels: Display names of the classes, as many as the data set has.
        batch_size: Number of images that are read and predicted together. If a batch fails, its images are
            predicted one by one.
        folder: Folder in which the counts of each image are kept, so that a stopped run can be resumed; an
            image whose files have changed is evaluated again. Nothing is kept if ``None``.
        settings: What the counts depend on, as plain values; counts of other settings are not used.
        overwrite: Whether to discard the counts of earlier runs.
        max_pixels: Limit of width times height; larger images fail.
        processes: The joined processes; this one alone if ``None``.
        on_image: Called after every image of this process with images done, images of this process, and the
            failure, if there is one.
        on_outcome: Called with what each image was evaluated with, such as to write its prediction; an error
            makes the image fail.
        is_complete: Whether an image of an earlier run needs nothing more; it is evaluated again if not.
        debug: Whether the first bad image ends the run with its traceback.

    Raises:
        ValueError: If the number of labels is not the data set's number of classes, or ``batch_size`` is
            below 1.
    """
    _check(dataset, labels, batch_size)
    processes = processes or Processes()
    store = None if folder is None else RowStore(folder, settings=settings or {}, rank=processes.rank)
    counts = _Counts(labels, store)
    rows = _resume(store, dataset, processes, overwrite=overwrite, is_complete=is_complete)
    # all processes wait here: none may append rows while the first still reads
    done: set[str] = processes.gather(set(rows))[0]
    for name, row in rows.items():
        counts.add(name, _matrix(row, len(labels)))
    shard = processes.shard([sample for sample in dataset.samples if sample.name not in done])
    outcomes = _outcomes(shard, predict, batch_size=batch_size, max_pixels=max_pixels, debug=debug)
    for number, (sample, outcome) in enumerate(zip(shard, outcomes, strict=True), 1):
        failure = counts.judge(sample, outcome, on_outcome, debug=debug)
        if on_image is not None:
            on_image(number, len(shard), failure)
    return counts.everywhere(processes, resumed=len(done))


def _check(dataset: Dataset, labels: Sequence[str], batch_size: int) -> None:
    layout = dataset.layout
    if len(labels) != layout.num_classes:
        raise ValueError(f"{layout.name} has {layout.num_classes} classes, got {len(labels)} names")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


class _Counts:
    """Counts of this process, in total and as scores of each image, and what failed."""

    def __init__(self, labels: Sequence[str], store: RowStore | None) -> None:
        self.labels = tuple(labels)
        self.store = store
        self.total = torch.zeros(len(labels), len(labels), dtype=torch.int64)
        self.images: list[ImageScore] = []
        self.failures: list[Failure] = []

    def add(self, name: str, matrix: Tensor) -> None:
        self.total += matrix
        scores = Scores(matrix, self.labels)
        self.images.append(ImageScore(name, scores.mean_iou, scores.pixel_accuracy))

    def judge(
        self,
        sample: Sample,
        outcome: Outcome | Exception,
        on_outcome: Callable[[Outcome], None] | None,
        *,
        debug: bool,
    ) -> Failure | None:
        """Count one image and keep its row, or return why it failed."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            matrix = confusion(outcome.predicted, outcome.truth, len(self.labels))
            if on_outcome is not None:
                on_outcome(outcome)
        except ITEM_ERRORS as error:
            if debug:
                raise
            self.failures.append(Failure(sample.name, _sentence(sample, error)))
            return self.failures[-1]
        self.add(sample.name, matrix)
        if self.store is not None:
            self.store.append(_key(sample), _row(matrix))
        return None

    def everywhere(self, processes: Processes, *, resumed: int) -> Evaluation:
        """Return the result of all processes."""
        failures = [failure for part in processes.gather(self.failures) for failure in part]
        images = [image for part in processes.gather(self.images) for image in part]
        return Evaluation(
            scores=Scores(torch.stack(processes.gather(self.total)).sum(dim=0), self.labels),
            images=tuple(sorted(images, key=lambda each: (each.miou != each.miou, each.miou, each.image))),
            resumed=resumed,
            failures=tuple(sorted(failures, key=lambda failure: failure.image)),
        )


def _outcomes(
    samples: Sequence[Sample], predict: Predict, *, batch_size: int, max_pixels: int, debug: bool
) -> Iterator[Outcome | Exception]:
    """Yield for each sample what it was evaluated with, or why it could not be."""
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        read: dict[str, tuple[Image.Image, Tensor]] = {}
        errors: dict[str, Exception] = {}
        for sample in batch:
            try:
                read[sample.name] = sample.read(max_pixels=max_pixels)
            except ITEM_ERRORS as error:
                errors[sample.name] = error
        images = [image for image, _ in read.values()]
        found = dict(zip(read, _predict(predict, images, debug=debug), strict=True))
        for sample in batch:
            if sample.name in errors:
                yield errors[sample.name]
                continue
            result = found[sample.name]
            yield result if isinstance(result, Exception) else Outcome(sample, *read[sample.name], result)


def _predict(predict: Predict, images: Sequence[Image.Image], *, debug: bool) -> list[Tensor | Exception]:
    """Return the prediction of each image, or why there is none."""
    if not images:
        return []
    try:
        found: list[Tensor | Exception] = list(predict(images))
    except ITEM_ERRORS as error:
        if debug:
            raise
        if len(images) == 1:
            return [error]
        # one of them is to blame, and the others count
        return [result for image in images for result in _predict(predict, [image], debug=debug)]
    if len(found) != len(images):
        raise TypeError(f"predict must return one label map per image, got {len(found)} for {len(images)}")
    return found


def _resume(
    store: RowStore | None,
    dataset: Dataset,
    processes: Processes,
    *,
    overwrite: bool,
    is_complete: Callable[[Sample], bool] | None,
) -> dict[str, dict[str, list[int]]]:
    """Return the rows of earlier runs in the main process; nothing in the others."""
    if store is None or not processes.is_main:
        return {}
    if overwrite:
        store.clear()
    rows = store.read()
    if not rows:
        return {}  # nothing to read the files for
    wanted = {_key(each): each.name for each in dataset.samples if is_complete is None or is_complete(each)}
    num_classes = dataset.layout.num_classes
    return {wanted[key]: row for key, row in rows.items() if key in wanted and _is_usable(row, num_classes)}


def _key(sample: Sample) -> str:
    return row_name(sample.name, sample.image, sample.label)


def _matrix(row: Mapping[str, list[int]], num_classes: int) -> Tensor:
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    cells, pixels = (torch.tensor(row[key], dtype=torch.int64) for key in ("cells", "pixels"))
    matrix.view(-1).index_add_(0, cells, pixels)
    return matrix


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
