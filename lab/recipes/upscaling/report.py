# SPDX-License-Identifier: Apache-2.0
"""From figures to the gate, the tables of the documentation and the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from recipes.gates import Requirement
from recipes.upscaling.rows import ROWS, Row

Figures = Mapping[str, float]
COLUMNS = {
    "colour_right": "colour right, %",
    "shape_right": "shape right, %",
    "lost": "lost, %",
    "repeated": "repeated, %",
    "copied": "copied, %",
    "detail": "detail",
    "detail_things": "on things",
    "detail_ground": "on ground",
    "fid": "FID",
    "kid": "KID",
    "saturation": "saturation",
    "seam": "seam",
    "calls": "calls",
    "seconds": "seconds",
}
JUDGED = "4x pixelsmith, one hop"
"""What a user gets who sets nothing."""

REQUIREMENTS = (
    *(Requirement(figure=f"{name}_more", at_most=5) for name in ("lost", "repeated", "copied")),  # points
    Requirement(figure="detail_gain", at_least=1),
    Requirement(figure="grain", at_most=1.2),
    Requirement(figure="line", at_most=1.2),
)
"""Requirements on :func:`gate_figures`, at their 95 % bounds, and on the lines in all images."""


def gate_figures(figures: Mapping[str, Figures], row: str = JUDGED) -> dict[str, float]:
    """Return what the gate reads of one seed: loss and copies beside Lanczos, detail on things, grain.

    Args:
        figures: Figures by row, those of the drawn scenes and of Lanczos among them.
        row: Row that is judged.
    """
    ours, plain, truth = figures[row], figures["4x Lanczos"], figures["4x drawn scene"]
    more = {f"{name}_more": ours[name] - plain[name] for name in ("lost", "repeated", "copied")}
    return more | {
        "detail_gain": ours["detail_things"] / plain["detail_things"],
        "grain": ours["detail_ground"] / truth["detail_ground"],
    }


def table(figures: Mapping[str, Figures], scale: int, rows: Sequence[Row] = ROWS) -> str:
    """Return the rows of one enlargement as a Markdown table."""
    lines = [f"| {scale}x | {' | '.join(COLUMNS.values())} |", "| --- |" + " --- |" * len(COLUMNS)]
    for row in rows:
        if row.scale == scale and row.key in figures:
            cells = " | ".join(f"{figures[row.key][name]:.4g}" for name in COLUMNS)
            lines.append(f"| {row.name} | {cells} |")
    return "\n".join(lines)


def gallery(images: Mapping[str, NDArray[np.uint8]], prompts: Sequence[str], path: Path, side: int) -> None:
    """Draw one column per prompt and one row per method, all at one size.

    Args:
        images: Images by name of the row, ``(B, H, W, 3)`` uint8.
        prompts: Prompt of each column.
        path: PNG file to write.
        side: Side of an image in pixels.
    """
    columns = len(prompts)
    figure = Figure(figsize=(2.1 * columns + 1.6, 2.1 * len(images) + 0.4), dpi=110, layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for line, (name, examples) in zip(axes, images.items(), strict=True):
        for axis, image in zip(line, examples, strict=False):
            shown = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
            axis.imshow(np.asarray(shown), interpolation="none")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=8)
    for axis, prompt in zip(axes[0], prompts, strict=True):
        axis.set_title(prompt, fontsize=8)
    figure.savefig(path)
