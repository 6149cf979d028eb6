# SPDX-License-Identifier: Apache-2.0
"""``diffeat names``: the activations of a model and their costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Report, emit, show
from cyclopts import Group, Parameter

from diffeat.cli.frame import ImageSize
from diffeat.presets import expand_presets

if TYPE_CHECKING:
    from rich.table import Table

    from diffeat.names.listing import Activation

_MIB = 2**20


@Parameter(name="*", group=Group("Listing", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Contents of the list.

    Attributes:
        size: Image size in pixels; by default that of the model.
        text: Whether to list keys and values of the text.
        cost: Whether to list shapes, memory and FLOP shares.
        bytes_per_value: Bytes per value of the storage dtype; float16 has 2.
    """

    size: ImageSize = None
    text: Annotated[bool, Parameter(negative="")] = False
    cost: bool = True
    bytes_per_value: int = 2


def names(
    globs: list[str] | None = None,
    /,
    *,
    model: str = "tiny-sdxl",
    listing: Listing = Listing(),
    report: Report = Report(),
) -> None:
    """List the activations of a model in execution order.

    The name up-level1-repeat0-vit-block0-cross-q means: the queries to the text in the first block of the
    first attention module at the second resolution of the up stage. Level 0 of the up stage is the lowest
    resolution.

    FLOP is the share of a whole pass that is done when the activation is computed: an extraction of nothing
    later stops there.

    Flags: noisy (down and middle stage), local (looks like the pixel grid), high-frequency, map, text, ours
    (the authors' code does not have it).

    **Examples**

        diffeat names
        diffeat names "up-level1-*-cross-{q,map}" --model path/to/pipeline --size 768
        diffeat names Ours-v1.5 --model path/to/unet/config.json --json
        diffeat names "vit-block1?-out" --model some/transformer --no-cost

    Args:
        globs: Names, quoted globs or presets; all by default.
        model: Shipped name, folder or hub id of a pipeline or model, or a config.json; no weights are read.
    """
    from common_kernels.runtime.hub import quiet_libraries

    with quiet_libraries("diffusers"):
        from diffeat.names.listing import list_activations

        found = list_activations(
            model,
            size=(listing.size or "native") if listing.cost else None,
            glob=expand_presets(globs or ["*"]),
            bytes_per_value=listing.bytes_per_value,
            with_text=listing.text,
        )
    if not report.json:
        show(_table(found))
        return
    for activation in found:
        emit(activation.to_dict())


def _table(found: list[Activation]) -> Table:
    from rich.table import Table

    total = sum(activation.bytes or 0 for activation in found)
    table = Table(show_footer=True)
    table.add_column("name", f"{len(found)} activations", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("MiB", _mib(total) if total else "", justify="right", no_wrap=True)
    table.add_column("FLOP", justify="right", no_wrap=True)
    table.add_column("family")
    table.add_column("flags")
    for activation in found:
        table.add_row(
            str(activation.name),
            "" if activation.shape is None else " x ".join(map(str, activation.shape)),
            "" if activation.bytes is None else _mib(activation.bytes),
            "" if activation.flop_share is None else f"{activation.flop_share:.1%}",
            activation.family,
            ", ".join(sorted(activation.flags)),
        )
    return table


def _mib(size: int) -> str:
    return f"{size / _MIB:.2f}" if size < 10 * _MIB else f"{size / _MIB:,.0f}"
