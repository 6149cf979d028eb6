# SPDX-License-Identifier: Apache-2.0
"""Taps: the modules at which activations are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffeat.names.grammar import ActivationName

Port = Literal["output", "input", "map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module whose input or output holds the activation.

    Attributes:
        path: Dotted path of the module inside the denoiser.
        part: ``(index, count)`` of an equal slice of the last axis; ``None`` for all.
        stop: Channels kept from the front of the last axis before it is sliced, or ``None`` for all.
    """

    path: str
    part: tuple[int, int] | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """Rule for reading one activation.

    Attributes:
        name: The activation.
        sources: Modules that may hold it. Fused projections decide which of them runs; a module can keep
            projections that no longer run, so the one that is called counts, not the one that exists.
        port: ``"output"`` or ``"input"`` of the module, or the ``"map"`` of the attention inside it.
        item: Position of the image stream in an output tuple; ``None`` finds it by its number of tokens.
        frame: Dotted path of the module whose input spans the token grid; ``None`` for the model as a whole.
        layout: ``"image"``: already ``(B, C, H, W)``; ``"tokens"``: ``(B, N, C)`` with a grid; ``"text"``:
            tokens without one; ``"free"``: the unchanged output of the module.
        keys: Kept keys of a map: ``"all"``, ``"image"`` or ``"text"``.
        text_first: Whether text tokens precede image tokens in a joint sequence; ``None`` if the model's
            order is not known, so that joint sequences are refused.
        call: Number of the attention inside the module that gives a map when there are several, from 0;
            negative counts from the end.
        is_listed: Whether listings and globs include it.
        is_ours: Whether the authors' code lacks this activation.
    """

    name: ActivationName
    sources: tuple[Source, ...]
    port: Port = "output"
    item: int | None = 0
    frame: str | None = None
    layout: Literal["image", "tokens", "text", "free"] = "tokens"
    keys: Literal["all", "image", "text"] = "all"
    text_first: bool | None = True
    call: int = 0
    is_listed: bool = True
    is_ours: bool = False
