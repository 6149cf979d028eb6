# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes probes``: ship and judge the judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from common_kernels.runtime.cli import say
from cyclopts.types import PositiveInt

from recipes.cards import read_card
from recipes.options import Debug, Flag, Processor
from recipes.probes.judging import WEIGHTS, Judge, accuracy

CARD = WEIGHTS.with_name("probe.json")


def ship(run: Path, /, *, debug: Debug = Debug()) -> None:
    """Put the trained probe where the judges look for it.

    Args:
        run: Folder of a finished run.
    """
    shutil.copyfile(run / "probe.safetensors", WEIGHTS)
    say(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


def judge(
    *,
    count: PositiveInt = 400,
    seed: int = 1000,
    training: Path | None = None,
    write: Flag = False,
    processor: Processor = Processor(),
) -> None:
    """Measure the probe on scenes it never saw.

    Args:
        count: Number of scenes of each kind.
        seed: Random seed of the scenes.
        training: JSON with how it was trained, for the card.
        write: Write the card.
    """
    torch.set_num_threads(processor.threads)
    card = read_card(CARD, training)
    card["accuracy"] = accuracy(Judge.load(), count=count, seed=seed)
    card["judged_on"] = {"count": count, "seed": seed}
    text = json.dumps(card, indent=2)
    say(text)
    if write:
        CARD.write_text(text + "\n", "utf-8")
