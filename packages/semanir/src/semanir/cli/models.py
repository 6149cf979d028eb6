# SPDX-License-Identifier: Apache-2.0
"""``semanir models``."""

from __future__ import annotations

from common_kernels.runtime.cli import Report, emit, show


def models(*, report: Report = Report()) -> None:
    """List the models inside this package and what they measured.

    **Examples**

        semanir models

        semanir models --json
    """
    from rich.table import Table

    from semanir.weights import SHIPPED

    cards = {name: SHIPPED.card(name) for name in SHIPPED.names()}
    if report.json:
        emit(cards)
        return
    table = Table("model", "what it does", "parameters", "gain over the best classical method (dB)")
    for name, card in cards.items():
        gains = card.get("mean_gain_db", {})
        shown = ", ".join(f"{gain:+.2f} at sigma {sigma}" for sigma, gain in gains.items())
        table.add_row(name, card.get("task", ""), f"{card.get('parameters', 0):,}", shown)
    show(table)
