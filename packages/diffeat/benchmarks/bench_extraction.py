# SPDX-License-Identifier: Apache-2.0
"""Times and weighs extraction on a U-Net of Stable Diffusion 1.5's size with random weights.

``python bench_extraction.py --output results.json`` measures, each part alone with ``--only``:

``hooks``: what taking a set of four activations, and all that are no maps, adds to a plain forward pass.
``exit``: the share of a pass's time after which it is left, beside the share of its FLOP and the share after
which a plain pass has come that far; a batch of 8, since with a single small latent the lowest levels wait
for their weights. ``sizes``: how far shares of time and of FLOP lie apart in plain passes of other batches
and sides. ``memory``: what a pass that takes activations holds beyond a plain one, beside the size of what
is taken. ``maps``: the same for self-maps of 64x64 tokens and 10 heads, averaged over heads, beside the full
matrix. ``store``: 100 images to a zarr store with the small model inside the package, and in which share of
the time it read, computed, wrote.

Times are those of the process, so that other work on the machine disturbs little; contenders take turns.
``--small`` shows within a minute that everything runs; such figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common_kernels.bench import describe_machine
from common_kernels.testing import peak_bytes
from diffeat import ExtractionOptions, FeatureExtractor, MapOptions, capture, list_activations
from diffeat.store import FeatureStore
from diffusers import UNet2DConditionModel

MIB = 2**20
STOPS = {  # and the modules after which they are there
    "mid-repeat1-res-out": "mid_block.resnets.1",
    "up-level1-repeat1-vit-block0-cross-q": "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_q",
    "up-level1-upsampler-out": "up_blocks.1.upsamplers.0",
    "up-level2-repeat1-vit-block0-cross-q": "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q",
    "up-level2-upsampler-out": "up_blocks.2.upsamplers.0",
    "up-level3-repeat0-vit-block0-self-k": "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_k",
}
NO_MAPS = ("unet-*", "*-res-*", "*-out", "*-{self,cross}-[qkv]", "*-ffn-inner")
SIZES = ((1, 32), (4, 32), (8, 32), (4, 16), (16, 16), (1, 64))  # latents and cells of their sides
Row = dict[str, Any]


def build_unet(small: bool) -> UNet2DConditionModel:
    """Return the U-Net of SD1.5 with random weights, or one of its topology."""
    config: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    if small:
        config |= {"block_out_channels": (8, 16, 16, 16), "norm_num_groups": 4, "attention_head_dim": 2}
    torch.manual_seed(0)
    return UNet2DConditionModel(**config).eval()


def inputs_of(unet: UNet2DConditionModel, side: int, batch: int = 1) -> dict[str, Any]:
    """Return the arguments of a call with ``batch`` latents of ``side`` cells."""
    generator = torch.Generator().manual_seed(1)
    width = unet.config["cross_attention_dim"]
    return {
        "sample": torch.randn(batch, unet.config["in_channels"], side, side, generator=generator),
        "timestep": torch.tensor(50),
        "encoder_hidden_states": torch.randn(batch, 77, width, generator=generator),
    }


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    with torch.no_grad():
        run()
    return time.process_time() - start


def in_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the times of all contenders, a round of all after another, the first one not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            taken = seconds(run)
            if number:
                times[name].append(taken)
    return times


def taking(
    unet: UNet2DConditionModel, inputs: dict[str, Any], names: Any, **options: Any
) -> Callable[[], object]:
    """Return a call that takes activations."""

    def run() -> object:
        with capture(unet, names, **options) as found:
            unet(**inputs)
        return found

    return run


def spread(values: Sequence[float]) -> str:
    """Median with the 20 and 80 % quantiles."""
    low, high = np.quantile(values, (0.2, 0.8))
    return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"


def measure_hooks(unet: UNet2DConditionModel, side: int, rounds: int) -> list[Row]:
    """Time with hooks over time without."""
    inputs = inputs_of(unet, side)
    sets = {"Ours-v1.5": ["Ours-v1.5"], "all but maps": list(NO_MAPS)}
    runs = {name: taking(unet, inputs, names) for name, names in sets.items()}
    times = in_turns({"plain": lambda: unet(**inputs), **runs}, rounds)
    rows: list[Row] = []
    for name in sets:
        ratios = [ours / plain for ours, plain in zip(times[name], times["plain"], strict=True)]
        added = statistics.median(ratios) - 1
        rows.append(
            {"taken": name, "plain_s": spread(times["plain"]), "ratio": spread(ratios), "added": added}
        )
    return rows


def passing(
    unet: UNet2DConditionModel, inputs: dict[str, Any], marks: dict[str, list[float]]
) -> Callable[[], object]:
    """Return a plain call that notes when it has passed each of the stops."""

    def run() -> object:
        start = time.process_time()
        handles = [
            unet.get_submodule(path).register_forward_hook(
                lambda *_, name=name: marks[name].append(time.process_time() - start)
            )
            for name, path in STOPS.items()
        ]
        try:
            return unet(**inputs)
        finally:
            for handle in handles:
                handle.remove()

    return run


def measure_exit(unet: UNet2DConditionModel, side: int, batch: int, rounds: int) -> list[Row]:
    """Share of a pass's time, beside that at which a plain pass gets there and beside that of its FLOP."""
    inputs = inputs_of(unet, side, batch)
    marks: dict[str, list[float]] = {name: [] for name in STOPS}
    runs = {name: taking(unet, inputs, [name], stop_after=0) for name in STOPS}
    times = in_turns({"plain": passing(unet, inputs, marks), **runs}, rounds)
    listed = flop_shares(unet, side)
    rows: list[Row] = []
    for name in STOPS:
        passed = marks[name][1:]  # of the first round nothing counts
        plain, ours = times["plain"], times[name]
        share = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
        rows.append(
            {
                "up_to": name,
                "batch": batch,
                "time_share": share,
                "flop_share": listed[name],
                "over_flop": share / listed[name],
                "ideal_share": statistics.median(a / b for a, b in zip(passed, plain, strict=True)),
                "over_ideal": statistics.median(a / b for a, b in zip(ours, passed, strict=True)),
            }
        )
    return rows


def flop_shares(unet: UNet2DConditionModel, side: int) -> dict[str, float]:
    """Share of a pass's FLOP that is done at each of the stops."""
    listed = list_activations(unet, size=8 * side, glob=list(STOPS))
    return {str(each.name): each.flop_share or 0.0 for each in listed}


def measure_sizes(unet: UNet2DConditionModel, sizes: Sequence[tuple[int, int]], rounds: int) -> list[Row]:
    """Share of time over share of FLOP at which a plain pass comes to the stops, by batch and side."""
    rows: list[Row] = []
    for batch, side in sizes:
        marks: dict[str, list[float]] = {name: [] for name in STOPS}
        run = passing(unet, inputs_of(unet, side, batch), marks)
        plain = in_turns({"plain": run}, rounds)["plain"]
        listed = flop_shares(unet, side)
        over = {
            name: statistics.median(a / b for a, b in zip(marks[name][1:], plain, strict=True)) / listed[name]
            for name in STOPS
        }
        rows.append({"batch": batch, "side": side, "plain_s": spread(plain), "over_flop": over})
    return rows


def measure_memory(unet: UNet2DConditionModel, side: int) -> list[Row]:
    """Peak beyond a plain pass, over the size of what is taken."""
    inputs = inputs_of(unet, side)

    def plain() -> None:
        with torch.no_grad():
            unet(**inputs)

    plain()
    base = peak_bytes(plain)
    rows: list[Row] = []
    for title, names in (("Ours-v1.5", ["Ours-v1.5"]), ("all but maps", list(NO_MAPS))):
        kept: list[Any] = []

        def run(names: list[str] = names, kept: list[Any] = kept) -> None:
            with torch.no_grad(), capture(unet, names) as found:
                unet(**inputs)
            kept.append(found)

        peak = peak_bytes(run)
        taken = sum(value.nbytes for value in kept[0].values())
        rows.append(
            {
                "taken": title,
                "plain_mib": base / MIB,
                "taken_mib": taken / MIB,
                "above": (peak - base) / taken,
            }
        )
    return rows


def measure_maps(small: bool) -> list[Row]:
    """Peak of averaged self-maps over the full matrix."""
    tokens_side, heads = (16 if small else 64), 10
    width = 40 if small else 640
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=tokens_side,
        block_out_channels=(width,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
        attention_head_dim=heads,
        cross_attention_dim=64,
        norm_num_groups=10,
    ).eval()
    inputs = inputs_of(unet, tokens_side)
    name = "down-level0-repeat0-vit-block0-self-map"

    def plain() -> None:
        with torch.no_grad():
            unet(**inputs)

    plain()
    base = peak_bytes(plain)
    full = heads * tokens_side**4 * 4
    rows: list[Row] = []
    for title, options in (
        ("mean over heads", MapOptions(heads="mean")),
        ("mean over heads, 16 keys", MapOptions(heads="mean", tokens=tuple(range(16)))),
    ):
        kept: list[torch.Tensor] = []

        def run(options: MapOptions = options, kept: list[torch.Tensor] = kept) -> None:
            with torch.no_grad(), capture(unet, name, maps=options) as found:
                unet(**inputs)
            kept.append(found[name])

        peak = peak_bytes(run)
        rows.append(
            {
                "kept": title,
                "result_mib": kept[0].nbytes / MIB,
                "full_matrix_mib": full / MIB,
                "above_plain_mib": (peak - base) / MIB,
            }
        )
    return rows


def measure_store(small: bool) -> Row:
    """Images per second into a store, and how busy each stage was."""
    extractor = FeatureExtractor.from_pretrained("tiny-sdxl", device="cpu")
    count = 8 if small else 100
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(count)]
    names = ["up-level1-*-out", "up-level0-repeat?-vit-out"]
    with tempfile.TemporaryDirectory() as folder:
        report = FeatureStore(folder).add(extractor, images, names, ExtractionOptions(size=128), batch_size=8)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {
        "images": report.computed,
        "seconds": report.seconds,
        "images_per_second": report.computed / report.seconds,
        "written_mib": written / MIB,
        "shares": report.shares,
    }


def main() -> None:
    """Measure and print."""
    parts = ("hooks", "exit", "sizes", "memory", "maps", "store")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds in turns")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--side", type=int, default=32, help="cells of the latent's side, 64 is native")
    parser.add_argument("--batch", type=int, default=8, help="latents of the part exit")
    parser.add_argument("--small", action="store_true", help="a toy U-Net, to see that everything runs")
    parser.add_argument("--only", choices=parts, action="append", help="measure some of the parts")
    parser.add_argument("--output", type=Path, help="file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = arguments.only or parts
    side, rounds = (16, 2) if arguments.small else (arguments.side, arguments.rounds)
    results: dict[str, Any] = {
        "machine": asdict(describe_machine(torch.device("cpu"))),
        "side": side,
        "rounds": rounds,
    }
    if {"hooks", "exit", "sizes", "memory"} & set(chosen):
        unet = build_unet(arguments.small)
        if "hooks" in chosen:
            results["hooks"] = measure_hooks(unet, side, rounds)
        if "exit" in chosen:
            results["exit"] = measure_exit(unet, side, arguments.batch, rounds)
        if "sizes" in chosen:
            sizes = ((1, 16), (2, 16)) if arguments.small else SIZES
            results["sizes"] = measure_sizes(unet, sizes, rounds)
        if "memory" in chosen:
            results["memory"] = measure_memory(unet, side)
        del unet
    if "maps" in chosen:
        results["maps"] = measure_maps(arguments.small)
    if "store" in chosen:
        results["store"] = measure_store(arguments.small)
    print(json.dumps(results, indent=1, default=str))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
