# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes upscaling``: pixelsmith with tiny-sdxl, way by way, judged by the frozen probe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from diffusers import StableDiffusionXLPipeline
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.cards import CARDS
from recipes.probes.judging import Judge
from recipes.tiny_sdxl.assembly import paint_prompts
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.images import SIDE
from recipes.tiny_sdxl.judging import Order, draw_orders
from recipes.upscaling.measures import Images, contents, detail, distances, seam_score
from recipes.upscaling.paint import Painted, kept, paint
from recipes.upscaling.report import JUDGED, gallery, missed, table
from recipes.upscaling.rows import ROWS, Row

app = typer.Typer(help=__doc__, no_args_is_help=True)

CARD = CARDS / "upscaling.json"
RUN = Path("runs/upscaling")
SHOWN = ("2x Lanczos", "2x direct sampling", "2x pixelsmith", "4x Lanczos", "4x direct sampling", JUDGED)
GATE_ROWS = ("4x drawn scene", "4x Lanczos", JUDGED)
CAVEAT = (
    "One small model of one training, drawn scenes of one thing each, one noise per picture. It shows what "
    "the parts of the method do; how they rank on photographs is another question."
)

Model = Annotated[Path, typer.Option("--model", help="Folder of the pipeline.")]
Count2 = Annotated[int, typer.Option("--count", min=2, help="Pictures of each row at 2x.")]
Count4 = Annotated[int, typer.Option("--count-4x", min=2, help="Pictures of each row at 4x.")]
Seed = Annotated[int, typer.Option(help="Of prompts and noise.")]
Threads = Annotated[int, typer.Option(help="Of the processor.")]


class _Study:
    """Orders, base pictures and the progress bar, shared by the rows."""

    def __init__(self, model: Path, counts: dict[int, int], seed: int, folder: Path) -> None:
        self.pipeline = StableDiffusionXLPipeline.from_pretrained(model)
        self.pipeline.set_progress_bar_config(disable=True)
        self.judge, self.counts, self.seed, self.folder = Judge.load(), counts, seed, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.orders: list[Order] = draw_orders(seed, max(counts.values()), 1)
        self.base: Images = paint_prompts(self.pipeline, [order.prompt for order in self.orders], seed=seed)
        self.painted: dict[str, Painted] = {}

    def run(self, rows: list[Row]) -> dict[str, dict[str, float]]:
        """Paint and measure rows; those of one size must begin with the drawn scenes."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        figures: dict[str, dict[str, float]] = {}
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("pictures", total=sum(self.counts[row.scale] for row in rows))
            for row in rows:
                progress.update(task, description=row.key)
                before = progress.tasks[task].completed
                self.painted[row.key] = kept(
                    self.folder, row, lambda row=row: self._paint(row, lambda: progress.advance(task))
                )
                progress.update(task, completed=before + self.counts[row.scale])
                figures[row.key] = self._measure(row)
        return figures

    def _paint(self, row: Row, tick: Callable[[], object]) -> Painted:
        count = self.counts[row.scale]
        return paint(row, self.pipeline, self.orders[:count], self.base[:count], seed=self.seed, tick=tick)

    def _measure(self, row: Row) -> dict[str, float]:
        painted = self.painted[row.key]
        scenes = self.painted[f"{row.scale}x drawn scene"].images
        return {
            **contents(painted.images, self.orders[: len(painted.images)], self.judge),
            "detail": detail(painted.images),
            **distances(painted.images, scenes, self.judge),
            "seam": seam_score(painted.images, SIDE),
            "calls": round(painted.calls, 1),
            "seconds": round(painted.seconds, 2),
        }


@app.command()
def study(
    model: Model = ASSETS,
    count: Count2 = 32,
    count_4x: Count4 = 16,
    seed: Seed = 6000,
    folder: Annotated[Path, typer.Option(help="Pictures so far; a study that was cut goes on.")] = RUN,
    leave_out: Annotated[list[str] | None, typer.Option(help="Rows to do without, as '2x no mask'.")] = None,
    json_file: Annotated[Path, typer.Option("--json", help="Card to write.")] = CARD,
    picture: Annotated[Path | None, typer.Option(help="PNG of a gallery.")] = None,
    threads: Threads = 1,
) -> None:
    """Paint and measure every row; write the card and print the tables."""
    torch.set_num_threads(threads)
    if unknown := set(leave_out or ()) - {row.key for row in ROWS}:
        raise typer.BadParameter(f"--leave-out must name rows, got {', '.join(sorted(unknown))}")
    run = _Study(model, {2: count, 4: count_4x}, seed, folder)
    figures = run.run([row for row in ROWS if row.key not in (leave_out or ())])
    misses = missed(figures)
    card = {
        "name": "upscaling",
        "model": model.name,
        "judged_on": {"seed": seed, "count_2x": count, "count_4x": count_4x},
        "base": contents(run.base, run.orders, run.judge),
        "figures": figures,
        "missed": misses,
        "passed": not misses,
        "caveat": CAVEAT,
    }
    json_file.write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    for scale in (2, 4):
        typer.echo(table(figures, scale) + "\n")
    if picture is not None:
        shown = {"base": run.base[:6], **{key: run.painted[key].images[:6] for key in SHOWN}}
        gallery(shown, [order.prompt for order in run.orders[:6]], picture, 4 * SIDE)
    typer.echo(json.dumps({"base": card["base"], "missed": misses}))


@app.command()
@app.command("judge", hidden=True)
def gate(
    model: Model = ASSETS,
    count: Annotated[int, typer.Option(min=2, help="Pictures.")] = 32,
    seed: Seed = 7000,
    folder: Annotated[Path | None, typer.Option(help="Keep the pictures here; nowhere else.")] = None,
    threads: Threads = 1,
) -> None:
    """Hold 4x enlargements against Lanczos on fresh prompts; exit 1 if they lose, repeat or blur."""
    torch.set_num_threads(threads)
    rows = [row for row in ROWS if row.key in GATE_ROWS]
    with TemporaryDirectory() as own:
        figures = _Study(model, {4: count}, seed, folder or Path(own)).run(rows)
    misses = missed(figures)
    typer.echo(json.dumps({"figures": figures, "missed": misses}, indent=1))
    if misses:
        raise typer.Exit(1)
