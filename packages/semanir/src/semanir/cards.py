# SPDX-License-Identifier: Apache-2.0
"""What is known of a model beside its weights: ``card.json``; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common_kernels.runtime.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

from semanir.config import SemanIRConfig

EQUAL_DB = 100.0
"""PSNR that stands for the infinite one of equal images, which JSON cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number of a model, beside the input and the best classical method.

    Attributes:
        images: What it was measured on, such as ``"5 colour photographs of scikit-image"``.
        setting: Level of the degradation, such as ``"sigma 25"`` or ``"quality 10"``.
        value: Figure of the model.
        metric: Metric; PSNR in dB if not named.
        input: The same figure of the input; ``None`` if it has none.
        baseline: The same figure of the best classical method; ``None`` if none was run.
        baseline_name: Name of that method, such as ``"BM3D, told sigma"``.
    """

    images: str
    setting: str
    value: float
    metric: str = "psnr"
    input: float | None = None
    baseline: float | None = None
    baseline_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Card of a model.

    Attributes:
        task: What the model does, as a phrase.
        tasks: Tasks of ``semanir evaluate`` that it is made for.
        license: SPDX identifier of the licence of its weights.
        parameters: Number of weights.
        figures: What was measured.
        statement: What a user has to know: training data, what is not covered.
    """

    task: str = ""
    tasks: tuple[str, ...] = ()
    license: str = ""
    parameters: int = 0
    figures: tuple[Figure, ...] = ()
    statement: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read what a card holds; further entries are left aside.

        Raises:
            ValueError: If an entry of ``figures`` is none.
        """
        known: dict[str, Any] = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        try:
            figures = tuple(Figure(**figure) for figure in values.get("figures", ()))
        except TypeError as error:
            raise ValueError(f"a figure of the card is not one: {error}") from error
        known |= {"tasks": tuple(values.get("tasks", ())), "figures": figures}
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """Model in a folder: its card, and what its files say.

    Attributes:
        name: Name, or the folder.
        card: What is known of it.
        num_bytes: Size of the weights.
        channels: Channels of its images: 3 for colour, 1 for grey.
        upscale: Output over input side.
        window_size: Side of its attention windows in tokens.
        k: Keys per token, unless another number is asked for.
    """

    name: str
    card: ModelCard
    num_bytes: int
    channels: int
    upscale: int
    window_size: int
    k: int


def summarise(name: str, folder: Path) -> ModelSummary:
    """Return what is known of the model in a folder; a card may be missing.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If card or configuration are damaged.
    """
    file = folder / CARD_FILE
    card = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    config = SemanIRConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text("utf-8")))
    return ModelSummary(
        name=name,
        card=ModelCard.from_dict(card),
        num_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        channels=config.in_channels,
        upscale=config.upscale,
        window_size=config.window_size,
        k=config.k,
    )
