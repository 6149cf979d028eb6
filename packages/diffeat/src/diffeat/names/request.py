# SPDX-License-Identifier: Apache-2.0
"""From requested names to the taps of a loaded model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from diffeat.names.generic import module_tap
from diffeat.names.globs import explain, is_pattern, matching
from diffeat.names.grammar import ActivationName, Names
from diffeat.names.listing import taps_of
from diffeat.names.taps import Tap
from diffeat.presets import expand_presets


@dataclass(frozen=True, slots=True)
class Request:
    """Activations to read from a model.

    Attributes:
        taps: Taps in execution order, including those for means of maps.
        names: Names of the result, in execution order.
        means: Stage-wise means of maps, and their maps.
    """

    taps: tuple[Tap, ...]
    names: tuple[ActivationName, ...]
    means: dict[ActivationName, tuple[ActivationName, ...]]


def resolve(model: nn.Module, names: Names) -> Request:
    """Find the taps of names, globs, presets, means of maps and module paths.

    Args:
        model: The denoiser.
        names: One or several. Duplicates count once; the order does not matter, since activations are
            returned in execution order.

    Raises:
        LookupError: If a name is unknown or ambiguous, or a glob matches nothing.
        ValueError: If no activation is requested.
    """
    every = taps_of(model)
    exact = {str(tap.name): tap for tap in every}
    shown = [tap.name for tap in every if tap.is_listed]
    modules = {path for path, _ in model.named_modules() if path}
    wanted: set[ActivationName] = set()
    means: dict[ActivationName, tuple[ActivationName, ...]] = {}
    paths: dict[str, Tap] = {}
    for text in expand_presets(names):
        if text in exact:
            wanted.add(exact[text].name)
        elif is_pattern(text):
            wanted.update(matching(shown, text))
        elif (mean := _mean(text)) is not None:
            means[mean] = _members(mean, shown)
        elif text in modules:
            paths[text] = module_tap(text)
        else:
            raise LookupError(explain(text, exact))
    if not wanted and not means and not paths:
        raise ValueError("names must hold at least one activation, got none")
    needed = wanted.union(*means.values())
    taps = (*(tap for tap in every if tap.name in needed), *paths.values())
    ordered = (
        *(tap.name for tap in every if tap.name in wanted),
        *(tap.name for tap in paths.values()),
        *sorted(means),
    )
    return Request(taps, ordered, means)


def _mean(text: str) -> ActivationName | None:
    try:
        name = ActivationName.parse(text)
    except ValueError:
        return None
    return name if name.part == "attn" else None


def _members(mean: ActivationName, names: Iterable[ActivationName]) -> tuple[ActivationName, ...]:
    found = tuple(n for n in names if n.kind == f"{mean.kind}-map" and n.stage == mean.stage)
    if not found:
        raise LookupError(f"{mean} has no maps to average: this model has no {mean.kind}-attention there")
    return found
