# SPDX-License-Identifier: Apache-2.0
"""The paper's three properties of an activation, by its name."""

from __future__ import annotations

from typing import Literal

from diffeat.names.taps import Tap

Flag = Literal["noisy", "local", "high-frequency", "map", "text", "ours"]


def flags_of(tap: Tap) -> frozenset[Flag]:
    """Marks of one activation.

    ``"noisy"`` marks the stages in which diffusion noise shows at low frequencies too: all of the down stage
    and the middle. In the up stage it returns halfway, at a point that depends on the number of levels: see
    :func:`diffeat.presets.asymmetric_noise`. ``"local"`` marks queries and keys of
    self-attention without positional embeddings, which look like the pixel grid. ``"high-frequency"``
    marks increments.

    Source: arXiv 2410.03558, Sec. 4 and App. E.
    """
    name = tap.name
    flags: set[Flag] = set()
    if name.stage in {"down", "mid"}:
        flags.add("noisy")
    if name.stage is not None and name.kind in {"self-q", "self-k"}:
        flags.add("local")
    if name.kind in {"increment", "ffn-inner", "self-v"}:
        flags.add("high-frequency")
    if name.is_map:
        flags.add("map")
    if name.is_text:
        flags.add("text")
    if tap.is_ours:
        flags.add("ours")
    return frozenset(flags)
