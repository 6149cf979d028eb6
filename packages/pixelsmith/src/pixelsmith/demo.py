# SPDX-License-Identifier: Apache-2.0
"""Small images, and the same four times as large by three methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.files import atomic_path, make_folder
from common_kernels.runtime.pictures import Panel, comparison, stack
from PIL import Image

from pixelsmith.config import JobConfig
from pixelsmith.core.model import JobModel
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.seams import seam_profile
from pixelsmith.io.writers import write_image
from pixelsmith.job import Job, JobProgress, JobSpec
from pixelsmith.store.memory import MemoryStore
from pixelsmith.store.rows import ArrayRows, Pixels

__all__ = ["PROMPTS", "DemoFigures", "run_demo"]

PROMPTS = ("a red circle and a blue square", "a yellow star on waves")
SCALE = 4
SLIDER = 0.95  # fewer guided steps let a small model repeat its shape in every patch
_COLUMNS = (
    "by the model, {base} px",
    "Lanczos, {size} px",
    "sampled at once, {size} px",
    "pixelsmith, {size} px",
)
_TILE = 256  # least width of an image in the comparison

OnDemo = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """Figures of the demo.

    Attributes:
        model: Name of the model.
        base_size: Side of the small images in pixels.
        size: Side of the large images in pixels.
        denoiser_calls: Number of patches through the model, all images.
        seconds: Duration of the large images of pixelsmith, decoding included.
        seconds_direct: Duration of those sampled at once.
        seam_score: Step across the line of latents that shows most, over the median of its neighbours, in
            the large images.
        seam_score_lanczos: The same of the images enlarged by Lanczos.
        detail: Mean step between neighbouring pixels, over that of the enlarged images.
    """

    model: str
    base_size: int
    size: int
    denoiser_calls: int
    seconds: float
    seconds_direct: float
    seam_score: float
    seam_score_lanczos: float
    detail: float

    def to_dict(self) -> dict[str, object]:
        """Return plain values, rounded to what is meaningful."""
        plain: dict[str, object] = asdict(self)
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True)
class _Row:
    """One prompt: images by column, and the cost of the last one."""

    prompt: str
    images: tuple[Pixels, ...]
    calls: int
    seconds: float
    seconds_direct: float


def run_demo(
    load: Callable[[str], JobModel],
    out: Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    seed: int = 0,
    slider: float = SLIDER,
    batch_size: int = 8,
    on_progress: OnDemo | None = None,
) -> DemoFigures:
    """Generate images of some prompts, make them four times as large, measure, and write them.

    Args:
        load: Function that returns the model for a prompt.
        out: Folder for ``comparison.png``, and for the first large image as ``image.png`` and as
            ``image.dzi`` with a page that zooms.
        prompts: Prompts of the images.
        seed: Random seed.
        slider: Fraction of guided steps.
        batch_size: Patches in one pass through the model.
        on_progress: Called with the prompt, patches done and patches in all.

    Returns:
        The figures, over all prompts.
    """
    make_folder(out)
    rows: list[_Row] = []
    model: JobModel | None = None
    for prompt in prompts:
        model = load(prompt)
        config = JobConfig(
            patch=model.patch,
            patch_multiple=model.patch_multiple,
            seed=seed,
            slider=slider,
            batch_size=batch_size,
        )
        rows.append(_generate(model, prompt, config, on_progress))
    if model is None:
        raise ValueError("prompts must not be empty")
    side = model.patch * model.vae_scale_factor
    _write(rows, out)
    lanczos, ours = ([ArrayRows(row.images[column]) for row in rows] for column in (1, 3))
    return DemoFigures(
        model=model.name,
        base_size=side,
        size=side * SCALE,
        denoiser_calls=sum(row.calls for row in rows),
        seconds=sum(row.seconds for row in rows),
        seconds_direct=sum(row.seconds_direct for row in rows),
        seam_score=seam_profile(ours, model.vae_scale_factor).worst()[0].ratio,
        seam_score_lanczos=seam_profile(lanczos, model.vae_scale_factor).worst()[0].ratio,
        detail=_mean_step(ours) / max(_mean_step(lanczos), 1e-9),
    )


def _generate(model: JobModel, prompt: str, config: JobConfig, on_progress: OnDemo | None) -> _Row:
    side = model.patch * model.vae_scale_factor
    size = (side * SCALE, side * SCALE)
    spec = JobSpec(sizes=(size,), source_size=(side, side), config=config)

    def report(progress: JobProgress) -> None:
        if on_progress is not None and progress.phase == "denoise":
            on_progress(prompt, progress.done, progress.total)

    store = MemoryStore()
    with torch.no_grad():
        result = Job(model, spec, store, on_progress=report).run()
        begin = time.perf_counter()
        direct = np.asarray(model.base_image(size, config.seed))
        seconds_direct = time.perf_counter() - begin
    source = store.source()
    assert source is not None
    base = source.image
    lanczos = Resized(base, size).read(0, size[0])
    return _Row(
        prompt,
        (base.array, lanczos, direct, result.image.array),
        result.calls,
        result.seconds,
        seconds_direct,
    )


def _mean_step(images: Sequence[ArrayRows]) -> float:
    """Return the mean absolute difference of neighbours along rows, of all images."""
    return float(np.mean([np.abs(np.diff(each.array.astype(np.int16), axis=1)).mean() for each in images]))


def _write(rows: Sequence[_Row], out: Path) -> None:
    first = ArrayRows(rows[0].images[-1])
    write_image(out / "image.png", first)
    write_image(out / "image.dzi", first)
    with atomic_path(out / "comparison.png") as temporary:
        _sheet(rows).save(temporary)


def _sheet(rows: Sequence[_Row]) -> Image.Image:
    """Draw a row of images per prompt."""
    base, size = len(rows[0].images[0]), len(rows[0].images[-1])
    titles = [title.format(base=base, size=size) for title in _COLUMNS]
    sheets = list[Image.Image]()
    for number, row in enumerate(rows):
        heads = titles if number == 0 else [""] * len(titles)
        prompts = [row.prompt] + [""] * (len(titles) - 1)
        panels = [
            Panel(head, prompt, Image.fromarray(image))
            for head, prompt, image in zip(heads, prompts, row.images, strict=True)
        ]
        sheets.append(comparison(panels, width=max(_TILE, size)))
    return stack(sheets)
