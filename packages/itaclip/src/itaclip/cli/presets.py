# SPDX-License-Identifier: Apache-2.0
"""``itaclip presets``."""

from __future__ import annotations

import json

from common_kernels.runtime.cli import Report, emit, say, show

from itaclip.cli.options import MethodOptions, apply_changes
from itaclip.config import ITACLIPConfig


def presets(name: str | None = None, /, *, method: MethodOptions = None, report: Report = Report()) -> None:
    """List the presets, or print the effective configuration of one as JSON.

    **Examples**

        itaclip presets

        itaclip presets voc21 --stride 56

    Args:
        name: Preset whose configuration is printed.
    """
    from rich.table import Table

    if name is not None:
        values = apply_changes(ITACLIPConfig.preset(name), method).to_dict()
        if report.json:
            emit(values)
        else:
            say(json.dumps(values, indent=2))
        return
    if method:
        raise ValueError("the options of the method need the name of a preset")
    configs = {each: ITACLIPConfig.preset(each) for each in ITACLIPConfig.presets()}
    if report.json:
        emit({each: config.to_dict() for each, config in configs.items()})
        return
    table = Table("preset", "attention", "mid layers", "windows", "branches", "PAMR")
    for each, config in configs.items():
        attention = config.attention
        layers = (str(layer) if isinstance(layer, int) else f"{layer:.0%}" for layer in attention.mid_layers)
        table.add_row(
            each,
            "values only" if attention.strategy == "value" else " + ".join(attention.pairs),
            ", ".join(layers),
            f"{config.crop} px, stride {config.stride}",
            str(len(config.branches)),
            f"{config.pamr_steps} steps" if config.pamr_steps else "",
        )
    show(table)
