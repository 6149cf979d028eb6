# SPDX-License-Identifier: Apache-2.0
"""Fills a store with 100,000 tiny images and measures reading, inodes and search.

``python bench_store.py FOLDER --output results.json``; a run that was stopped goes on where it was. No model
is at work: features are random projections of 8 x 8 pixels, of the shapes that ``-p Ours-XL --pool mean``
leaves, written through the store's own writer, so the figures are those of hashing, planning, pooling and
writing. Reading takes turns with zarr on the same arrays and on arrays with a chunk for each image. Times are
those of the process, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import zarr
from common_kernels.bench import describe_machine
from diffeat import ExtractionOptions
from diffeat.features import Features
from diffeat.images import load_images
from diffeat.store import FeatureStore, NeighbourIndex, StoreOptions
from torch import Tensor, nn

CHANNELS = {"first": 1280, "second": 1280, "third": 640, "fourth": 640}
SIDE = 8
OPTIONS = StoreOptions(pool="mean")
READS = 200
Row = dict[str, Any]


class TinyImages(Sequence[Any]):
    """Images ``(8, 8, 3)`` of random bytes, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if index >= self.count:
            raise IndexError(index)
        return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


class Projections:
    """Stands in for a model: features are random projections of the pixels."""

    name, revision, dtype, device = "projections", None, torch.float32, torch.device("cpu")

    def __init__(self, channels: Mapping[str, int]) -> None:
        self.model = nn.ModuleDict({name: nn.Identity() for name in channels})
        self.pipeline = SimpleNamespace(components={})
        generator = torch.Generator().manual_seed(0)
        self.weights = {
            name: torch.randn(width, 3 * SIDE * SIDE, generator=generator) / 8
            for name, width in channels.items()
        }

    def size_for(self, size: object) -> tuple[int, int]:
        """Size of all images."""
        return SIDE, SIDE

    def noise_levels(self, options: object) -> tuple[()]:
        """No noise is added."""
        return ()

    def __call__(self, images: Any, names: Any, options: Any, **more: Any) -> Features:
        """Features ``(B, C, 1, 1)``."""
        pixels = torch.stack(list(load_images(images))).flatten(1) - 0.5
        found: dict[str, Tensor] = {name: (pixels @ self.weights[name].T)[:, :, None, None] for name in names}
        return Features(found, cast("Any", SimpleNamespace()))


def inodes(folder: Path) -> int:
    """Files and folders below a folder."""
    return sum(1 for _ in folder.rglob("*"))


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def fill(folder: Path, count: int, model: Projections) -> Row:
    """Fill the store, and fill it again: the second run only hashes."""
    store = FeatureStore(str(folder))
    images: Any = TinyImages(count)
    rows: Row = {}
    for run in ("fill", "again"):
        start, begun = time.process_time(), time.perf_counter()
        report = store.add(
            cast("Any", model),
            images,
            list(model.weights),
            ExtractionOptions(),
            storage=OPTIONS,
            batch_size=64,
            on_item=lambda result: None,
        )
        rows[run] = {
            "computed": report.computed,
            "cached": report.cached,
            "seconds": time.perf_counter() - begun,
            "process_seconds": time.process_time() - start,
        }
    store.compact()
    files = [path for path in folder.rglob("*") if path.is_file()]
    rows["inodes_per_image"] = inodes(folder) / count
    rows["bytes_per_image"] = sum(path.stat().st_size for path in files) / count
    return rows


def measure_reading(folder: Path, count: int, channels: Mapping[str, int]) -> Row:
    """Milliseconds of one image's activations, by the store and by zarr."""
    store = FeatureStore(str(folder))
    sharded = zarr.open_group(f"{folder}/features.zarr", mode="r")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        plain = zarr.create_group(place)
        for name, width in channels.items():
            array = plain.create_array(
                name,
                shape=(READS, width, 1, 1),
                chunks=(1, width, 1, 1),
                dtype="float16",
                compressors=None,
            )
            array[:] = store.read(name, range(READS)).numpy()
        arrays = {name: cast("Any", (plain[name], sharded[name])) for name in channels}
        runs: dict[str, Callable[[int], object]] = {
            "store": lambda row: [store.read(name, row) for name in channels],
            "zarr, a chunk for each image": lambda row: [arrays[name][0][row % READS] for name in channels],
            "zarr, the same shards": lambda row: [arrays[name][1][row] for name in channels],
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for row in rng.integers(0, count, READS).tolist():
            for name, run in runs.items():
                times[name].append(1e3 * seconds(lambda run=run, row=row: run(row)))
    return {name: statistics.median(values) for name, values in times.items()}


def search(index: NeighbourIndex, vectors: Sequence[Any], *, exact: bool) -> tuple[float, list[set[int]]]:
    """Median milliseconds of a search for ten neighbours, and the rows found for each vector."""
    times: list[float] = []
    found: list[set[int]] = []
    for vector in vectors:
        start = time.process_time()
        (neighbours,) = index.find(vector, 10, exact=exact)
        times.append(1e3 * (time.process_time() - start))
        found.append({each.item.row for each in neighbours})
    return statistics.median(times), found


def measure_search(folder: Path, model: Projections) -> Row:
    """Seconds to build the index, milliseconds of a search, memory, and the share of true neighbours found.

    The first 50 images of the store are looked for, slightly changed: none is in it as it is asked for.
    """
    index = NeighbourIndex(str(folder))
    built = seconds(index.update)
    noise = np.random.default_rng(1)
    vectors = [
        each + 0.02 * noise.standard_normal(each.shape, dtype=np.float32)
        for each in (index.describe(image, cast("Any", model)) for image in TinyImages(50))
    ]
    graph = cast("Any", index)._index
    own = graph.expansion_search
    exact, true = search(index, vectors, exact=True)
    kept: dict[int, Row] = {}
    for candidates in (64, 128, 256, 512):
        graph.expansion_search = candidates
        milliseconds, found = search(index, vectors, exact=False)
        hits = [len(near & wanted) / len(wanted) for near, wanted in zip(found, true, strict=True)]
        kept[candidates] = {"search_ms": milliseconds, "recall_at_10": statistics.mean(hits)}
    graph.expansion_search = own
    return {
        "images": len(index),
        "values": index.dim,
        "build_process_seconds": built,
        "memory_mib": graph.memory_usage / 2**20,
        "file_mib": sum(each.stat().st_size for each in folder.rglob("*.usearch")) / 2**20,
        "exact_search_ms": exact,
        "own_candidates": own,
        "candidates": kept,
    }


def main() -> None:
    """Run the benchmark and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--channels", type=int, help="one activation of so many channels instead of four")
    parser.add_argument("--search", action="store_true", help="also build an index and search")
    arguments = parser.parse_args()
    channels = CHANNELS if arguments.channels is None else {"first": arguments.channels}
    model = Projections(channels)
    figures: Row = {"machine": asdict(describe_machine(torch.device("cpu"))), "images": arguments.count}
    parts: dict[str, Callable[[], Row]] = {
        "store": lambda: fill(arguments.folder, arguments.count, model),
        "read_ms": lambda: measure_reading(arguments.folder, arguments.count, channels),
    }
    if arguments.search:
        parts["search"] = lambda: measure_search(arguments.folder, model)
    for name, measure in parts.items():
        figures[name] = measure()
        text = json.dumps(figures, indent=2, default=str)
        if arguments.output is not None:
            arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
