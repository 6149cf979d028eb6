# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes features``: the study of diffeat on the small diffusion model, its gate, its scenes."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import torch
from common_kernels.runtime.cli import OutputPath, emit, say, warn
from common_kernels.runtime.files import write_json
from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from diffeat import FeatureExtractor
from diffeat.shipped import ASSETS
from safetensors.numpy import load_file

from recipes.cards import CARDS, folder_size
from recipes.features.bench import AtLeastFour, Bench, Sizes
from recipes.features.demo_scenes import DEMO, write_demo
from recipes.features.figure import draw_figure
from recipes.features.report import markdown
from recipes.features.scenes import KINDS, Kind
from recipes.features.sets import LEGACY
from recipes.features.study import judge, misses, run_study, to_card
from recipes.options import Accelerator, Debug

MODEL = ASSETS / "tiny-sdxl"
CARD = CARDS / "features.json"
FIGURE = Path(__file__).parents[3] / "docs" / "diffeat" / "ranking.png"
JUDGED: tuple[Kind, ...] = ("shape", "colour")
CAVEAT = (
    "Drawn scenes of 128 pixels and one small model of one training seed: what holds here need not hold for "
    "large models and photographs. The spread is over scenes, not over trainings."
)


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights in a folder that features depend on: all but the decoder of the autoencoder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        for name, value in sorted(load_file(file).items()):
            if not name.startswith(("decoder.", "post_quant_conv.")):
                digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def study(
    *,
    model: Path = MODEL,
    sizes: Annotated[Sizes, Parameter(name="*", group=Group("Sizes", sort_key=1))] = Sizes(),
    card: Path = CARD,
    figure: Path = FIGURE,
    results: Path = Path("runs/features"),
    machine: Accelerator = Accelerator(),
) -> None:
    """Rank all activations, choose and judge sets, test the paper's properties; card, figure, Markdown.

    Args:
        model: Folder of a diffusers pipeline.
        card: Card to write.
        figure: PNG to draw.
        results: Scores measured so far, from which a run resumes.
    """
    torch.set_num_threads(machine.threads)
    start = time.perf_counter()
    extractor = FeatureExtractor.from_pretrained(model, device=machine.device)
    bench = Bench(extractor, sizes, results)
    found = run_study(bench, report=warn)
    report = {
        "name": "features",
        "weights_sha256": weights_hash(model),
        "caveat": CAVEAT,
        **to_card(bench, found),
    }
    report["failures"] = misses(found.judged, JUDGED)
    report["minutes"] = round((time.perf_counter() - start) / 60, 1)
    write_json(card, report)
    own: dict[Kind, tuple[str, ...]] = {kind: found.chosen[f"for {kind}"] for kind in KINDS}
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_figure(bench.names, found.rankings, {"legacy": dict.fromkeys(KINDS, LEGACY), "chosen": own}, figure)
    say(markdown(report))


def gate(
    *,
    model: Path = MODEL,
    card: Path = CARD,
    fresh: AtLeastFour = 60,
    seeds: PositiveInt = 3,
    machine: Accelerator = Accelerator(),
) -> int:
    """Judge the chosen sets beside the legacy one again; exit 1 if a gain is within its spread.

    Args:
        model: Folder of a diffusers pipeline.
        card: Card of the study, which chose the sets.
        fresh: Number of images that sets are judged on, for each kind and seed.
        seeds: Number of seeds of fresh images.
    """
    torch.set_num_threads(machine.threads)
    chosen = json.loads(card.read_text("utf-8"))["sets"]
    sets = {title: tuple(chosen[title]) for title in ("legacy", *(f"for {kind}" for kind in JUDGED))}
    extractor = FeatureExtractor.from_pretrained(model, device=machine.device)
    bench = Bench(extractor, Sizes(fresh=fresh, seeds=seeds))
    judged = judge(bench, JUDGED, sets, warn)
    failures = misses(judged, JUDGED)
    emit({"judged": judged, "failures": failures})
    return int(bool(failures))


def scenes(
    *,
    output: OutputPath = DEMO,
    number: Annotated[int, Parameter(validator=Number(gte=2))] = 8,
    debug: Debug = Debug(),
) -> None:
    """Render the images of ``diffeat demo``: pairs of views, label maps, points.

    Args:
        output: Folder to fill.
        number: Number of pairs of views.
    """
    seed = write_demo(output, number)
    say(f"{output}: seed {seed}, {folder_size(output)} bytes")
