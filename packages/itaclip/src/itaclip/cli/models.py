# SPDX-License-Identifier: Apache-2.0
"""``itaclip models``."""

from __future__ import annotations

from common_kernels.runtime.cli import Report, emit, show

from itaclip.shipped import SHIPPED


def models(*, report: Report = Report()) -> None:
    """List the models inside this package.

    Every other CLIP model of open_clip is loaded by its name or folder: --model ViT-B-16 --pretrained openai.

    **Examples**

        itaclip models
        itaclip models --json
    """
    from rich.table import Table

    cards = {name: SHIPPED.card(name) for name in SHIPPED.names()}
    if report.json:
        emit(cards)
        return
    table = Table("model", "task", "parameters")
    for name, card in cards.items():
        parameters = card.get("parameters")
        table.add_row(
            name, str(card.get("task", "")), f"{parameters:,}" if isinstance(parameters, int) else ""
        )
    show(table)
