# SPDX-License-Identifier: Apache-2.0
"""From figures to the gate, the tables of the documentation and the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from recipes.upscaling.rows import ROWS, Row

Figures = Mapping[str, float]
COLUMNS = {
    "colour_right": "colour right, %",
    "shape_right": "shape right, %",
    "lost": "lost, %",
    "repeated": "repeated, %",
    "detail": "detail",
    "fid": "FID",
    "kid": "KID",
    "saturation": "saturation",
    "seam": "seam",
    "calls": "calls",
    "seconds": "seconds",
}
MARGIN = 5.0  # points by which loss and repetition may exceed those of Lanczos
JUDGED = "4x pixelsmith, one hop"


def missed(figures: Mapping[str, Figures], row: str = JUDGED) -> list[str]:
    """Return one sentence per missed requirement: loss and repetition against Lanczos, detail above it."""
    ours, plain = figures[row], figures["4x Lanczos"]
    result = [
        f"{name}: {ours[name]} %, Lanczos {plain[name]} %, wanted at most {MARGIN:g} points more"
        for name in ("lost", "repeated")
        if ours[name] > plain[name] + MARGIN
    ]
    if not ours["detail"] > plain["detail"]:
        result.append(f"detail: {ours['detail']}, wanted more than the {plain['detail']} of Lanczos")
    return result


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
