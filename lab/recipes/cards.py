# SPDX-License-Identifier: Apache-2.0
"""Model cards: where they are, and what every recipe writes into one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

CARDS = Path(__file__).parents[1] / "cards"


def read_card(card: Path, training: Path | None = None) -> dict[str, Any]:
    """Return a card, or the start of one; ``training`` is a JSON file with how the model was trained."""
    facts = json.loads(card.read_text("utf-8")) if card.exists() else {"name": card.stem}
    return facts if training is None else facts | {"training": json.loads(training.read_text("utf-8"))}


def folder_size(folder: Path) -> int:
    """Return the number of bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def weights_of(folder: Path) -> dict[str, Any]:
    """Return the size of a model's folder, and the SHA-256 of each file of weights."""
    files = sorted(folder.rglob("*.safetensors"))
    digests = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    return {"bytes": folder_size(folder), "sha256": digests}
