# SPDX-License-Identifier: Apache-2.0
"""The demonstration: small pictures, and the same four times as large by three ways."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pixelsmith.core.config import JobConfig
from pixelsmith.core.model import JobModel
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.rows import ArrayRows, Pixels, RawImage
from pixelsmith.io.seams import seam_score
from pixelsmith.io.writers import write_image
from pixelsmith.job import Job, JobProgress, JobSpec

__all__ = ["PROMPTS", "DemoFigures", "run_demo"]

PROMPTS = ("a red circle and a blue square", "a yellow star on waves")
SCALE = 4
SLIDER = 0.95  # fewer guided steps let a small model paint its thing again in every patch
_COLUMNS = (
    "by the model, {base} px",
    "Lanczos, {size} px",
    "sampled at once, {size} px",
    "pixelsmith, {size} px",
)
_TILE, _GAP, _HEAD = 256, 8, 34
_PAPER, _INK, _FAINT = (18, 18, 20), (245, 245, 245), (165, 168, 175)

OnDemo = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """What the demonstration measured.

    Attributes:
        model: Which.
        base_size: Side of the small pictures in pixels.
        size: Side of the large ones.
        denoiser_calls: Patches through the model, all pictures.
        seconds: For the large pictures of pixelsmith, decoding included.
        seconds_direct: For those sampled at once.
        seam_score: Of the large pictures where patches of a fixed grid would meet: 1 if nothing shows.
        seam_score_lanczos: Of the enlarged ones.
        detail: Mean step between neighbouring pixels, over that of the enlarged pictures.
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
    """One prompt: pictures by column, and what the last one took."""

    prompt: str
    pictures: tuple[Pixels, ...]
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
    """Paint some prompts small, make them four times as large, measure, and write the pictures.

    Args:
        load: Returns the model for a prompt.
        out: Folder for ``comparison.png``, and for the first large picture as ``picture.png`` and as
            ``picture.dzi`` with a page that zooms.
        prompts: What is painted.
        seed: Of all pictures.
        slider: Share of the steps that are guided.
        batch_size: Patches in one pass.
        on_progress: Called with the prompt, patches done and patches in all.

    Returns:
        The figures, over all prompts.
    """
    out.mkdir(parents=True, exist_ok=True)
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
        rows.append(_paint(model, prompt, config, on_progress))
    if model is None:
        raise ValueError("prompts must not be empty")
    side = model.patch * model.pixels
    _write(rows, out)
    lanczos, ours = ([ArrayRows(row.pictures[column]) for row in rows] for column in (1, 3))
    return DemoFigures(
        model=model.name,
        base_size=side,
        size=side * SCALE,
        denoiser_calls=sum(row.calls for row in rows),
        seconds=sum(row.seconds for row in rows),
        seconds_direct=sum(row.seconds_direct for row in rows),
        seam_score=float(np.mean([seam_score(each, side) for each in ours])),
        seam_score_lanczos=float(np.mean([seam_score(each, side) for each in lanczos])),
        detail=_mean_step(ours) / max(_mean_step(lanczos), 1e-9),
    )


def _paint(model: JobModel, prompt: str, config: JobConfig, on_progress: OnDemo | None) -> _Row:
    side = model.patch * model.pixels
    size = (side * SCALE, side * SCALE)
    spec = JobSpec(sizes=(size,), source_size=(side, side), config=config)

    def tell(progress: JobProgress) -> None:
        if on_progress is not None and progress.phase == "denoise":
            on_progress(prompt, progress.done, progress.total)

    with tempfile.TemporaryDirectory(prefix="pixelsmith-demo-") as scratch, torch.no_grad():
        result = Job(model, spec, Path(scratch) / "job", durable=False, on_progress=tell).run()
        base = np.load(Path(scratch) / "job" / "source.npy")
        ours = RawImage(result.image).read(0, size[0]).copy()
        begin = time.perf_counter()
        direct = np.asarray(model.base_image(size, config.seed))
        seconds_direct = time.perf_counter() - begin
    lanczos = Resized(ArrayRows(base), size).read(0, size[0])
    return _Row(prompt, (base, lanczos, direct, ours), result.calls, result.seconds, seconds_direct)


def _mean_step(pictures: Sequence[ArrayRows]) -> float:
    """Return the mean absolute difference of neighbours along rows, of all pictures."""
    return float(np.mean([np.abs(np.diff(each.array.astype(np.int16), axis=1)).mean() for each in pictures]))


def _write(rows: Sequence[_Row], out: Path) -> None:
    first = ArrayRows(rows[0].pictures[-1])
    write_image(out / "picture.png", first)
    write_image(out / "picture.dzi", first)
    part = out / "comparison.png.part"
    _sheet(rows).save(part, format="PNG")
    part.replace(out / "comparison.png")


def _sheet(rows: Sequence[_Row]) -> Image.Image:
    """Lay the pictures out, a row per prompt."""
    base, size = len(rows[0].pictures[0]), len(rows[0].pictures[-1])
    tile = max(_TILE, size)
    step = tile + _GAP
    sheet = Image.new("RGB", (len(_COLUMNS) * step + _GAP, len(rows) * (step + _HEAD) + _HEAD), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(16), ImageFont.load_default(14)
    for place, title in enumerate(_COLUMNS):
        draw.text((_GAP + place * step, 8), title.format(base=base, size=size), _INK, font)
    for number, row in enumerate(rows):
        top = _HEAD + number * (step + _HEAD)
        for place, picture in enumerate(row.pictures):
            # the small picture as it is, its pixels as squares
            shown = Image.fromarray(picture).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(shown, (_GAP + place * step, top))
        draw.text((_GAP, top + tile + 4), row.prompt, _FAINT, small)
    return sheet
