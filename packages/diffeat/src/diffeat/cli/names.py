# SPDX-License-Identifier: Apache-2.0
"""``diffeat names``: what a model computes, and what it costs to take it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from diffeat.cli.options import Debug, Json, Size, parse_size
from diffeat.cli.output import show, user_errors
from diffeat.presets import PRESETS, preset

if TYPE_CHECKING:
    from diffeat.names import Activation

_MIB = 2**20


def names(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or hub name of a pipeline or model, or a config.json. No weights are read.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    globs: Annotated[
        list[str] | None,
        typer.Argument(help="Names, quoted globs or presets; all if left out.", metavar="GLOB"),
    ] = None,
    size: Size = None,
    text: Annotated[bool, typer.Option("--text", help="Also keys and values of the text.")] = False,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Work out shapes, memory and FLOP shares.")
    ] = True,
    bytes_per_value: Annotated[int, typer.Option(min=1, help="Of the dtype to store in; fp16 has 2.")] = 2,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""List the activations of a model in the order in which it computes them.

    A name says where: [bold]up-level1-repeat0-vit-block0-cross-q[/bold] are the queries to
    the text in the first block of the first attention module at the second
    resolution of the up stage. Level 0 of the up stage is the lowest resolution.

    FLOP is the share of a whole pass that is done when the activation is there:
    an extraction that asks for nothing later stops then.

    Flags: noisy (down and middle stage), local (looks like the pixel grid),
    high-frequency, map, text, ours (the authors' code does not have it).

    [bold]Examples[/bold]

      diffeat names path/to/pipeline

      diffeat names path/to/pipeline "up-level1-*-cross-{q,map}" --size 768

      diffeat names path/to/unet/config.json Ours-v1.5 --json

      diffeat names some/transformer "vit-block1?-out" --no-cost
    """
    with user_errors(debug):
        from diffeat.names import list_activations

        wanted = list(_expanded(globs or ["*"]))
        pixels = (parse_size(size) or "native") if cost else None
        found = list_activations(
            model, size=pixels, glob=wanted, bytes_per_value=bytes_per_value, with_text=text
        )
        if json_output:
            typer.echo(json.dumps([activation.to_dict() for activation in found], indent=1))
            return
        show(_table(found))


def _expanded(globs: Iterable[str]) -> Iterable[str]:
    known = {name.lower() for name in PRESETS}
    for text in globs:
        yield from preset(text).names if text.lower() in known else [text]


def _table(found: list[Activation]) -> Table:
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
