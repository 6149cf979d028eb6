# SPDX-License-Identifier: Apache-2.0
"""Restoration of windows of large photographs, by all shipped models, beside classical methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from semanir import RestoreOptions
from semanir.restorer import Restorer

from recipes.photo.crops import draw_windows
from recipes.photo.tables import Table, Values
from recipes.restoration.baselines import Figures, measure_baselines, score
from recipes.restoration.conditions import CONDITIONS, Condition
from recipes.restoration.judging import OURS, measure
from recipes.restoration.tasks import TaskName

SIDE = 192  # pixels of a window: a whole photograph takes minutes
LARGE_SIDE, TILE = 384, 192  # pixels of the windows that are restored in tiles
# of the conditions of each task those that differ most
CHOSEN: dict[TaskName, tuple[str, ...]] = {
    "denoise": ("white 25, JPEG 98", "camera", "dark camera, JPEG 90", "JPEG 90"),
    "jpeg": ("JPEG 10", "JPEG 40"),
    "demosaic": ("Malvar",),
    "sr-x2": ("x2",),
    "all": ("white 25, JPEG 98", "JPEG 10", "motion blur 7", "x2, enlarged"),
}
INPUTS = {"demosaic": "Malvar, the input", "sr-x2": "bicubic"}
NAMES = {"tv": "total variation, told the noise", "nlm": "non-local means, told the noise"}


def judge(seeds: Sequence[int], count: int = 3) -> list[Table]:
    """Restore fresh windows of large photographs under the conditions of every task.

    Args:
        seeds: Seeds of the windows.
        count: Windows for each seed.
    """
    windows = {
        f"{key} {seed}": window for seed in seeds for key, window in draw_windows(seed, count, SIDE).items()
    }
    tables: list[Table] = []
    restorers: dict[TaskName, Restorer] = {}
    for task, names in CHOSEN.items():
        restorer = Restorer.from_pretrained(f"tiny-{task}", device="cpu", dtype="float32")
        conditions = tuple(each for each in CONDITIONS[task] if each.name in names)
        photos = {key: (lambda window=window: window) for key, window in windows.items()}
        figures = measure({OURS: restorer.restore}, photos, conditions)
        for condition in conditions:
            tables.append(_table(task, condition, windows, figures))
        restorers[task] = restorer
    return [*tables, _tiled(restorers, seeds[0])]


def _table(
    task: TaskName, condition: Condition, windows: Mapping[str, NDArray[np.uint8]], figures: Figures
) -> Table:
    plain = INPUTS.get(task, "input")
    rows: dict[str, list[float]] = {}
    for key, window in windows.items():
        for method, found in measure_baselines(window, condition).items():
            rows.setdefault(plain if method == "input" else NAMES[method], []).append(found["psnr"])
        rows.setdefault(f"tiny-{task}", []).append(figures[key][condition.name][OURS]["psnr"])
    photos = [key.rsplit(" ", 1)[0] for key in windows]
    return Table(
        f"PSNR, dB: {task}, {condition.name}, windows of {SIDE} px",
        {name: Values(by_photo(values, photos)) for name, values in rows.items()},
        ours=f"tiny-{task}",
        baselines=tuple(name for name in rows if name != f"tiny-{task}"),
        unit="photographs",
    )


def by_photo(values: Sequence[float], photos: Sequence[str]) -> list[float]:
    """Return the mean of each photograph: windows of one are not independent."""
    groups: dict[str, list[float]] = {}
    for photo, value in zip(photos, values, strict=True):
        groups.setdefault(photo, []).append(value)
    return [float(np.mean(group)) for group in groups.values()]


def _tiled(restorers: Mapping[TaskName, Restorer], seed: int) -> Table:
    """Restore a larger window by every model in tiles and at once: the seams must cost nothing."""
    (photo,) = draw_windows(seed, 1, LARGE_SIDE).values()
    tiles: dict[str, int | None] = {"at once": None, f"in tiles of {TILE} px": TILE}
    rows: dict[str, list[float]] = {name: [] for name in tiles}
    for task, restorer in restorers.items():
        condition = next(each for each in CONDITIONS[task] if each.name == CHOSEN[task][0])
        image, clean = condition.apply(photo, side=LARGE_SIDE)
        for name, tile in tiles.items():
            result = restorer.restore(image.astype(np.float32), RestoreOptions(tile=tile))
            rows[name].append(score(result, clean)["psnr"])
    return Table(
        f"PSNR, dB, mean over the tasks: one window of {LARGE_SIDE} px",
        {name: Values(values) for name, values in rows.items()},
        ours=f"in tiles of {TILE} px",
        baselines=("at once",),
        unit="tasks",
    )
