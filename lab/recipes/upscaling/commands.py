# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes upscaling``: pixelsmith with tiny-sdxl, way by way, judged by the frozen probe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
from common_kernels.runtime.cli import emit, progress_bars, say
from cyclopts import Parameter
from cyclopts.validators import Number
from diffusers import StableDiffusionXLPipeline

from recipes.cards import CARDS, weights_of
from recipes.gates import add_reading, fresh_seeds, mean, missed
from recipes.options import Accelerator, Flag
from recipes.probes.judging import Judge
from recipes.tiny_sdxl.assembly import generate_images
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.images import SIDE
from recipes.tiny_sdxl.judging import Order, draw_orders
from recipes.upscaling.generation import Generated, generate_row, stored_row
from recipes.upscaling.measures import (
    Images,
    contents,
    copies,
    detail,
    distances,
    saturation,
    things_of,
    worst_line,
    worst_seam,
)
from recipes.upscaling.report import JUDGED, REQUIREMENTS, gallery, gate_figures, table
from recipes.upscaling.rows import ROWS, Row

CARD = CARDS / "upscaling.json"
RUN = Path("runs/upscaling")
SHOWN = ("2x Lanczos", "2x direct sampling", "2x pixelsmith", "4x Lanczos", "4x direct sampling", JUDGED)
GATE_ROWS = ("4x drawn scene", "4x Lanczos", "4x autoencoder alone", JUDGED)
CAVEAT = (
    "One small model of one training, drawn scenes of one thing each, one noise per image. It shows what "
    "the parts of the method do; how they rank on photographs is another question."
)

Count = Annotated[int, Parameter(validator=Number(gte=2))]


class _Study:
    """Orders, base images and the progress bar, shared by the rows."""

    def __init__(
        self, model: Path, counts: dict[int, int], seed: int, folder: Path, device: str = "cpu"
    ) -> None:
        self.pipeline = StableDiffusionXLPipeline.from_pretrained(model).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.judge, self.counts, self.seed, self.folder = Judge.load(), counts, seed, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.orders: list[Order] = draw_orders(seed, max(counts.values()), 1)
        self.base: Images = generate_images(self.pipeline, [order.prompt for order in self.orders], seed=seed)
        self.generated: dict[str, Generated] = {}

    def run(self, rows: list[Row]) -> dict[str, dict[str, float]]:
        """Generate and measure rows; those of one size must begin with the drawn scenes."""
        figures: dict[str, dict[str, float]] = {}
        with progress_bars() as progress:
            task = progress.add_task("images", total=sum(self.counts[row.scale] for row in rows))
            for row in rows:
                progress.update(task, description=row.key)
                before = progress.tasks[task].completed
                self.generated[row.key] = stored_row(
                    self.folder, row, lambda row=row: self._generate(row, lambda: progress.advance(task))
                )
                progress.update(task, completed=before + self.counts[row.scale])
                figures[row.key] = self._measure(row)
        return figures

    def _generate(self, row: Row, tick: Callable[[], object]) -> Generated:
        count = self.counts[row.scale]
        return generate_row(
            row, self.pipeline, self.orders[:count], self.base[:count], seed=self.seed, tick=tick
        )

    def _measure(self, row: Row) -> dict[str, float]:
        generated = self.generated[row.key]
        scenes = self.generated[f"{row.scale}x drawn scene"].images
        # what is made from the base image has its thing where that has it
        source = self.base if row.way in ("pixelsmith", "lanczos", "autoencoder") else generated.images
        times = generated.images.shape[1] // source.shape[1]
        things = things_of(source[: len(generated.images)], self.judge)
        things = things.repeat(times, axis=1).repeat(times, axis=2)
        return {
            **contents(generated.images, self.orders[: len(generated.images)], self.judge),
            "copied": copies(generated.images, things, self.judge),
            **detail(generated.images, things),
            **distances(generated.images, scenes, self.judge),
            "saturation": saturation(generated.images),
            "seam": worst_seam(generated.images, self.pipeline.vae_scale_factor),
            "calls": round(generated.calls, 1),
            "seconds": round(generated.seconds, 2),
        }


def study(
    *,
    model: Path = ASSETS,
    count: Count = 32,
    count_4x: Count = 16,
    seed: int = 6000,
    folder: Path = RUN,
    leave_out: tuple[str, ...] = (),
    card: Path = CARD,
    figure: Path | None = None,
    machine: Accelerator = Accelerator(),
) -> None:
    """Generate and measure every row; write the card and print the tables.

    Args:
        model: Folder of the pipeline.
        count: Number of images of each row at 2x.
        count_4x: Number of images of each row at 4x.
        seed: Random seed of prompts and noise.
        folder: Folder of the images so far, from which a study resumes.
        leave_out: Rows to omit, such as '2x no mask'.
        card: Card to write.
        figure: PNG of a gallery.
    """
    torch.set_num_threads(machine.threads)
    if unknown := set(leave_out) - {row.key for row in ROWS}:
        raise ValueError(f"--leave-out must name rows, got {', '.join(sorted(unknown))}")
    run = _Study(model, {2: count, 4: count_4x}, seed, folder, machine.device)
    figures = run.run([row for row in ROWS if row.key not in leave_out])
    report = {
        "name": "upscaling",
        "model": model.name,
        "judged_on": {"seed": seed, "count_2x": count, "count_4x": count_4x},
        "base": contents(run.base, run.orders, run.judge),
        "figures": figures,
        "caveat": CAVEAT,
    }
    if card.exists():  # the gate is read apart
        report = json.loads(card.read_text("utf-8")) | report
    card.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for scale in (2, 4):
        say(table(figures, scale) + "\n")
    if figure is not None:
        shown = {"base": run.base[:6], **{key: run.generated[key].images[:6] for key in SHOWN}}
        gallery(shown, [order.prompt for order in run.orders[:6]], figure, 4 * SIDE)
    emit({"base": report["base"]})


def gate(
    *,
    model: Path = ASSETS,
    count: Count = 12,
    seed: int = 7000,
    seeds: int = 5,
    folder: Path | None = None,
    card: Path = CARD,
    write: Flag = False,
    machine: Accelerator = Accelerator(),
) -> int:
    """Compare 4x enlargements with Lanczos on fresh prompts; exit 1 if they are worse or show seams.

    Args:
        model: Folder of the pipeline.
        count: Number of images of each seed.
        seed: First random seed of prompts and noise.
        seeds: Number of seeds; each requirement holds at its 95 % bound over them.
        folder: Folder to keep the images in; without it they are discarded.
        card: Card of the study.
        write: Write the reading into the card.
    """
    torch.set_num_threads(machine.threads)
    rows = [row for row in ROWS if row.key in GATE_ROWS]
    drawn, figures = fresh_seeds(seed, seeds), list[dict[str, dict[str, float]]]()
    studies: list[_Study] = []
    with TemporaryDirectory() as own:
        for each in drawn:
            run = _Study(model, {4: count}, each, (folder or Path(own)) / str(each), machine.device)
            figures.append(run.run(rows))
            studies.append(run)
    spacing = studies[0].pipeline.vae_scale_factor
    lines = {row.key: worst_line([run.generated[row.key].images for run in studies], spacing) for row in rows}
    runs = [gate_figures(each) for each in figures]
    pooled = mean(runs) | lines[JUDGED]
    misses = missed(REQUIREMENTS, runs, pooled)
    found = {"figures": mean(figures), "lines": lines, "gate": pooled, "runs": runs, "missed": misses}
    say(table(found["figures"], 4))
    if write:
        facts = json.loads(card.read_text("utf-8"))
        digest = weights_of(model)["sha256"]["unet/diffusion_pytorch_model.safetensors"]
        facts["gate"] = {"seeds": drawn, "count": count, **found, "passed": not misses}
        facts["readings"] = add_reading(facts, seeds=drawn, digest=digest, misses=misses)
        card.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    emit(found)
    return int(bool(misses))
