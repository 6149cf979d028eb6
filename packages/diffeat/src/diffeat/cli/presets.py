# SPDX-License-Identifier: Apache-2.0
"""``diffeat presets``: the named selections."""

from __future__ import annotations

from common_kernels.runtime.cli import Report, emit, show

from diffeat.presets import PRESETS


def presets(*, report: Report = Report()) -> None:
    """List the selections of the paper and of its authors' configurations.

    A preset that spans several models is used part by part, by its names.

    **Examples**

        diffeat presets
        diffeat presets --json
    """
    if report.json:
        for name, preset in PRESETS.items():
            parts = [
                {"model": part.model, "names": list(part.names), "channels": part.channels}
                for part in preset.parts
            ]
            emit({"preset": name, "parts": parts, "source": preset.source})
        return
    from rich.table import Table

    table = Table("preset", "model", "channels", "names", "source", show_lines=True)
    for name, preset in PRESETS.items():
        for part in preset.parts:
            table.add_row(name, part.model, str(part.channels), "\n".join(part.names), preset.source)
    show(table)
