# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes features``: the study of diffeat on the small diffusion model, its gate, its scenes."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffeat import FeatureExtractor
from diffeat.shipped import ASSETS

from recipes.cards import CARDS
from recipes.features.bench import Bench, Sizes
from recipes.features.demo_scenes import DEMO, paint_demo
from recipes.features.figure import draw_figure
from recipes.features.report import markdown
from recipes.features.scenes import KINDS, Kind
from recipes.features.sets import LEGACY
from recipes.features.study import judge, misses, run_study, to_card

app = typer.Typer(help=__doc__, no_args_is_help=True)

MODEL = ASSETS / "tiny-sdxl"
CARD = CARDS / "features.json"
FIGURE = Path(__file__).parents[3] / "docs" / "diffeat" / "ranking.png"
JUDGED: tuple[Kind, ...] = ("shape", "colour")
CAVEAT = (
    "Drawn scenes of 128 pixels and one small model of one training seed: what holds here need not hold for "
    "large models and photographs. The spread is over scenes, not over trainings."
)

ModelFolder = Annotated[Path, typer.Option("--model", help="Folder of a diffusers pipeline.")]
Threads = Annotated[int, typer.Option(help="Number of threads.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of samples of fresh images that sets are judged on.")]
Fresh = Annotated[int, typer.Option(min=4, help="Number of images of each such sample.")]


def weights_hash(folder: Path) -> str:
    """SHA-256 of all weights in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@app.command()
def study(
    model: ModelFolder = MODEL,
    images: Annotated[
        int, typer.Option(min=4, help="Number of images that activations are ranked on, per kind.")
    ] = 80,
    pixels: Annotated[int, typer.Option(min=1, help="Number of pixels drawn from each image.")] = 80,
    fresh: Fresh = 80,
    seeds: Seeds = 5,
    candidates: Annotated[
        int, typer.Option(min=1, help="Number of best activations a set is chosen from.")
    ] = 8,
    json_file: Annotated[Path, typer.Option("--json", help="Card to write.")] = CARD,
    figure: Annotated[Path, typer.Option(help="PNG to draw.")] = FIGURE,
    results: Annotated[
        Path, typer.Option(help="Scores measured so far; a run that was cut goes on from them.")
    ] = Path("runs/features"),
    threads: Threads = 1,
) -> None:
    """Rank all activations, choose and judge sets, test the paper's properties; card, figure, Markdown."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    extractor = FeatureExtractor.from_pretrained(model, device="cpu")
    sizes = Sizes(images=images, fresh=fresh, seeds=seeds, pixels=pixels, candidates=candidates)
    bench = Bench(extractor, sizes, results)
    found = run_study(bench, tell=lambda line: typer.echo(line, err=True))
    card = {
        "name": "features",
        "weights_sha256": weights_hash(model),
        "caveat": CAVEAT,
        **to_card(bench, found),
    }
    card["failures"] = misses(found.judged, JUDGED)
    card["minutes"] = round((time.perf_counter() - start) / 60, 1)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")
    own: dict[Kind, tuple[str, ...]] = {kind: found.chosen[f"for {kind}"] for kind in KINDS}
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_figure(bench.names, found.rankings, {"legacy": dict.fromkeys(KINDS, LEGACY), "chosen": own}, figure)
    typer.echo(markdown(card))


@app.command()
@app.command("judge", hidden=True)
def gate(
    model: ModelFolder = MODEL,
    card: Annotated[Path, typer.Option(help="Card of the study, which chose the sets.")] = CARD,
    fresh: Fresh = 60,
    seeds: Seeds = 3,
    threads: Threads = 1,
) -> None:
    """Judge the chosen sets beside the legacy one again; exit 1 if a gain is within its spread."""
    torch.set_num_threads(threads)
    chosen = json.loads(card.read_text("utf-8"))["sets"]
    sets = {title: tuple(chosen[title]) for title in ("legacy", *(f"for {kind}" for kind in JUDGED))}
    bench = Bench(FeatureExtractor.from_pretrained(model, device="cpu"), Sizes(fresh=fresh, seeds=seeds))
    judged = judge(bench, JUDGED, sets, lambda line: typer.echo(line, err=True))
    failures = misses(judged, JUDGED)
    typer.echo(json.dumps({"judged": judged, "failures": failures}))
    if failures:
        raise typer.Exit(1)


@app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Folder to fill.")] = DEMO,
    number: Annotated[int, typer.Option(min=2, help="Pairs of views.")] = 8,
) -> None:
    """Paint the images of ``diffeat demo``: pairs of views, label maps, points."""
    seed = paint_demo(out, number)
    typer.echo(f"{out}: seed {seed}, {sum(file.stat().st_size for file in out.iterdir())} bytes")


if __name__ == "__main__":
    app()
