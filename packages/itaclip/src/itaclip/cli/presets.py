# SPDX-License-Identifier: Apache-2.0
"""``itaclip presets``."""

from __future__ import annotations

import json

from common_kernels.runtime.cli import Report, emit, say, show, warn

from itaclip.cli.options import MethodOptions, apply_changes
from itaclip.config import AttentionConfig, ITACLIPConfig
from itaclip.methods import METHODS
from itaclip.presets import method_names, resolve

_STRATEGIES = {
    "value": "values only",
    "gem": "qq, kk, vv along the last blocks",
    "scclip": "kk and similarities of an earlier block",
    "proxyclip": "similarities of another tower",
    "corrclip": "similarities of another tower, in regions",
    "trident": "those of another tower, then of SAM",
}


def presets(
    name: str | None = None,
    dataset: str | None = None,
    /,
    *,
    method: MethodOptions = None,
    report: Report = Report(),
) -> None:
    """List the methods, or print the effective configuration of one as JSON.

    A method and a data set are chosen apart: sizes, scales and thresholds are those that the method's authors
    publish for the data set. Where they publish none, a note says what is taken.

    **Examples**

        itaclip presets
        itaclip presets sclip
        itaclip presets itaclip voc21 --stride 56

    Args:
        name: Method whose configuration is printed.
        dataset: Data set whose published settings are taken: voc21, context60, coco-object, coco-stuff,
            cityscapes, voc20, context59 or ade20k; by default those for any image.
    """
    if name is not None:
        settings = resolve(name, dataset)
        values = apply_changes(settings.config, method).to_dict()
        if dataset is not None and not settings.published:
            warn(settings.source)
        if report.json:
            emit(values)
        else:
            say(json.dumps(values, indent=2))
        return
    if method:
        raise ValueError("the options of the method need the name of a method")
    configs = {each: ITACLIPConfig.preset(each) for each in method_names()}
    if report.json:
        emit({each: config.to_dict() for each, config in configs.items()})
        return
    _show_methods(configs)


def _show_methods(configs: dict[str, ITACLIPConfig]) -> None:
    from rich.table import Table

    table = Table("method", "last block", "windows", "PAMR", "texts", "published for")
    for name, config in configs.items():
        known = [dataset for dataset in METHODS[name].datasets if resolve(name, dataset).published]
        versions = f", {len(config.branches)} versions" if len(config.branches) > 1 else ""
        table.add_row(
            name,
            _last_block(config.attention),
            f"{config.crop} px, stride {config.stride}{versions}",
            f"{config.pamr_steps} steps" if config.pamr_steps else "",
            "yes" if METHODS[name].texts else "",
            ", ".join(known),
        )
    show(table)
    say("The settings for a data set: itaclip presets METHOD DATASET")


def _last_block(attention: AttentionConfig) -> str:
    """Return what the last block attends to, in a few words."""
    if attention.strategy != "mixed":
        return _STRATEGIES.get(attention.strategy, attention.strategy)
    layers = [str(layer) if isinstance(layer, int) else f"{layer:.0%}" for layer in attention.mid_layers]
    middle = f", layers at {', '.join(layers)}" if layers else ""
    local = ", near patches first" if attention.locality else ""
    return " + ".join(attention.pairs) + middle + local
