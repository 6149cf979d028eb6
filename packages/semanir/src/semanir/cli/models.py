# SPDX-License-Identifier: Apache-2.0
"""``semanir models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_kernels.runtime.cli import Report, emit, show

if TYPE_CHECKING:
    from semanir.cards import Figure, ModelSummary


def models(*, report: Report = Report()) -> None:
    """List the models inside this package: what each does, its size, licence, and what it measured.

    Figures are means over the named images, beside those of the input and of the best classical method.
    `--json` prints all that is known, one object per model. Networks of other architectures are given to
    `--model` as files; see `semanir convert`.

    **Examples**

        semanir models
        semanir models --json
    """
    from dataclasses import asdict

    from semanir.cards import summarise
    from semanir.weights import SHIPPED

    found = [summarise(name, SHIPPED.folder(name)) for name in SHIPPED.names()]
    if report.json:
        for each in found:
            emit(
                {"model": each.name, "status": "done"}
                | {k: v for k, v in asdict(each).items() if k != "name"}
            )
        return
    _show(found)


def _show(found: list[ModelSummary]) -> None:
    from rich.table import Table

    table = Table("model", "what it does", "weights", "MB", "images", "licence")
    for each in found:
        images = ("colour" if each.channels == 3 else "grey") + (
            f", x{each.upscale}" if each.upscale > 1 else ""
        )
        size = f"{each.num_bytes / 1e6:.1f}"
        table.add_row(each.name, each.card.task, f"{each.card.parameters:,}", size, images, each.card.license)
    show(table)
    figures = Table("model", "images", "setting", "input", "best classical method", "model", "gain")
    for each in found:
        for number, figure in enumerate(each.card.figures):
            figures.add_row("" if number else each.name, *_cells(figure))
    if figures.rows:
        show(figures)


def _cells(figure: Figure) -> tuple[str, ...]:
    from semanir.cards import EQUAL_DB

    unit = 2 if figure.metric.startswith("psnr") else 4
    setting = figure.setting if figure.metric == "psnr" else f"{figure.setting}, {figure.metric}"
    is_clean = figure.metric == "psnr" and figure.input == EQUAL_DB
    against = figure.input if figure.baseline is None else figure.baseline
    baseline = (
        "" if figure.baseline is None else f"{figure.baseline:.{unit}f} {figure.baseline_name}".rstrip()
    )
    return (
        figure.images,
        setting,
        "unchanged" if is_clean else "" if figure.input is None else f"{figure.input:.{unit}f}",
        baseline,
        f"{figure.value:.{unit}f}",
        "" if against is None or is_clean else f"{figure.value - against:+.{unit}f}",
    )
