# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the engine against the serial algorithm, with a ViT-B/16 of random weights.

``python bench_predict.py --output results.json`` measures, each part alone with ``--only``:

``memory``: the peak memory of an image of 640x480 pixels at the preset ``coco-stuff`` (183 names of 171
classes). ``speed``: the time of an image of 500x375 at ``voc21`` (80 names) and ``fast``, in turns with the
serial version at ``voc21``, which the engine has to agree with; a round takes minutes, as the serial version
goes through the tower 225 times. ``text``: the time to embed the 183 names and from then on to find them in
the cache, the fingerprint of the model's weights included.

Times are those of the process, so that other work on the machine disturbs little; those of several threads
add up. On a machine that does nothing else ``--wall`` takes the time that passes instead. ``--scale 4``
divides all sizes and shows within a minute that everything runs; such figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import open_clip
import torch
from common_kernels.bench import describe_machine
from common_kernels.testing import peak_bytes
from itaclip import ITACLIP, ITACLIPConfig, Segmentation
from itaclip.text import ClassList, TextEmbedder
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F

# the yardstick of the tests
REFERENCE = Path(__file__).parents[1] / "tests" / "reference.py"
SEGMENT_SERIALLY = runpy.run_path(str(REFERENCE))["segment"]
TOLERANCE = 1e-4
SERIAL_COLUMNS = 150  # chunk of the published configuration for COCO-Stuff
Times = dict[str, list[float]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        name: Name of the measurement.
        engine: Seconds or bytes of the engine.
        serial: Seconds or bytes of the serial version.
        ratio: ``serial / engine``; the median over rounds, for times.
        error: Largest difference of a probability; ``None`` where the two do not compute the same.
    """

    name: str
    engine: float
    serial: float
    ratio: float
    error: float | None = None


def build_tower() -> CLIP:
    """Return a ViT-B/16 of random weights with a text tower of next to nothing."""
    torch.manual_seed(0)
    vision = {"image_size": 224, "patch_size": 16, "layers": 12, "width": 768}
    return CLIP(512, vision, {"width": 64, "heads": 1, "layers": 1}).eval()


def smooth_noise(height: int, width: int) -> Tensor:
    """Return smooth noise in [0, 1], ``(3, height, width)``."""
    coarse = torch.rand(1, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]


def build_engine(tower: CLIP, config: ITACLIPConfig, classes: ClassList) -> ITACLIP:
    """Return the engine with random text features of unit norm."""
    features = torch.randn(len(classes.names), 512, generator=torch.Generator().manual_seed(2))
    return ITACLIP(tower, None, config).set_text_features(F.normalize(features, dim=1), classes)


def serial_run(
    engine: ITACLIP, image: Tensor, classes: ClassList, config: ITACLIPConfig
) -> tuple[Tensor, Tensor]:
    """Return labels and probabilities of the serial version."""
    return SEGMENT_SERIALLY(
        engine.model,
        image,
        engine.text_features,
        classes.owner,
        config.to_dict(),
        background=classes.background,
        columns=SERIAL_COLUMNS,
    )


def timed(run: Callable[[], object], clock: Clock = time.process_time) -> tuple[float, object]:
    """Return the time of a run in seconds, and its result."""
    start = clock()
    result = run()
    return clock() - start, result


def scaled(config: ITACLIPConfig, scale: int) -> ITACLIPConfig:
    """Return the configuration for images whose sides are divided by ``scale``."""
    return replace(config, resize_short=config.resize_short // scale)


def measure_speed(tower: CLIP, rounds: int, scale: int, clock: Clock) -> list[Row]:
    """Time ``voc21`` and ``fast`` and the serial ``voc21`` in turns."""
    classes = ClassList.shipped("voc21")
    height, width = 375 // scale, 500 // scale
    image = smooth_noise(height, width)
    config = scaled(ITACLIPConfig.preset("itaclip", dataset="voc21"), scale)
    engines = {
        "voc21": build_engine(tower, config, classes),
        "fast": build_engine(tower, scaled(ITACLIPConfig.preset("fast"), scale), classes),
    }
    for engine in engines.values():  # what is built once
        engine.predict(image[:, :64, :64])
    times: Times = {"serial": [], **{name: [] for name in engines}}
    error = 0.0
    for _ in range(rounds):
        seconds, expected = timed(lambda: serial_run(engines["voc21"], image, classes, config), clock)
        times["serial"].append(seconds)
        for name, engine in engines.items():
            seconds, found = timed(lambda engine=engine: engine.predict(image, return_scores=True), clock)
            times[name].append(seconds)
            if name == "voc21" and isinstance(found, Segmentation) and isinstance(expected, tuple):
                error = max(error, float((found.scores - expected[1]).abs().max()))
    if error > TOLERANCE:
        raise SystemExit(f"the engine is off by {error:.2e}, more than {TOLERANCE}: no times are given")
    return [
        Row(
            f"seconds, {name}, {width}x{height}, 80 names",
            statistics.median(times[name]),
            statistics.median(times["serial"]),
            statistics.median(s / e for s, e in zip(times["serial"], times[name], strict=True)),
            error if name == "voc21" else None,
        )
        for name in engines
    ]


def measure_memory(tower: CLIP, scale: int) -> Row:
    """Compare the peak memory of one image at ``coco-stuff``, beyond weights and inputs.

    Memory depends neither on the number of windows nor on the steps of refinement, so both have few.
    """
    classes = ClassList.shipped("coco-stuff")
    image = smooth_noise(480 // scale, 640 // scale)
    config = replace(
        scaled(ITACLIPConfig.preset("itaclip", dataset="coco-stuff"), scale), stride=224, pamr_steps=1
    )
    engine = build_engine(tower, config, classes)
    mine = peak_bytes(lambda: engine.predict(image))
    theirs = peak_bytes(lambda: serial_run(engine, image, classes, config))
    name = f"bytes, coco-stuff, {640 // scale}x{480 // scale}, {len(classes.names)} names"
    return Row(name, mine, theirs, theirs / mine)


def measure_text(scale: int) -> Row:
    """Time the embedding of all names of COCO-Stuff, then the same from the cache by a fresh embedder."""
    names = ClassList.shipped("coco-stuff").names
    names = names[: max(1, len(names) // scale**2)]
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu").eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-16-quickgelu")
    with tempfile.TemporaryDirectory() as cache:
        cold, _ = timed(lambda: TextEmbedder(model, tokenizer, cache=cache).embed(names))
        warm, _ = timed(lambda: TextEmbedder(model, tokenizer, cache=cache).embed(names))
    return Row(f"seconds, {len(names)} names from the cache, and computed", warm, cold, cold / warm)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="rounds in turns")
    parser.add_argument("--wall", action="store_true", help="time that passes, for several threads")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--scale", type=int, default=1, help="divide all sizes; 1 takes about 10 GB")
    parser.add_argument("--only", choices=["memory", "speed", "text"], help="measure one of the three")
    parser.add_argument("--output", type=Path, help="file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe_machine(torch.device("cpu"))
    tower = build_tower()
    rows: list[Row] = []
    if arguments.only in (None, "memory"):
        rows.append(measure_memory(tower, arguments.scale))
    if arguments.only in (None, "speed"):
        clock = time.perf_counter if arguments.wall else time.process_time
        rows += measure_speed(tower, arguments.rounds, arguments.scale, clock)
    if arguments.only in (None, "text"):
        rows.append(measure_text(arguments.scale))
    for row in rows:
        unit = 1e9 if row.name.startswith("bytes") else 1
        print(
            f"{row.name:45} engine {row.engine / unit:8.3f} serial {row.serial / unit:8.3f} {row.ratio:6.1f}x"
        )
    if arguments.output is not None:
        results = {"machine": asdict(machine), "rows": [asdict(row) for row in rows]}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
