# SPDX-License-Identifier: Apache-2.0
"""Where in a model's modules an activation is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffeat.names.grammar import ActivationName

Port = Literal["output", "input", "map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module whose call carries the activation.

    Attributes:
        path: Dotted path of the module inside the denoiser.
        part: ``(index, count)`` of the equal slices of the last axis that is meant; ``None`` for all.
        stop: Channels kept from the front of the last axis before it is sliced, or ``None`` for all.
    """

    path: str
    part: tuple[int, int] | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """How one activation is read.

    Attributes:
        name: The activation.
        sources: Modules that may carry it. Which of them runs depends on fused projections; a module can keep
            projections that no longer run, so the one that fires counts, not the one that exists.
        port: ``"output"`` or ``"input"`` of the module, or the ``"map"`` of the attention inside it.
        item: Position of the image stream where the output is a tuple.
        frame: Dotted path of the module whose input spans the token grid; ``None`` for the model as a whole.
        layout: ``"image"``: already ``(B, C, H, W)``; ``"tokens"``: ``(B, N, C)`` with a grid; ``"text"``:
            tokens without one; ``"free"``: whatever the module returns.
        keys: Keys of a map that are kept: ``"all"``, ``"image"`` or ``"text"``.
        text_first: Whether text tokens stand in front of image tokens in a joint sequence.
        call: Number of the attention inside the module that gives a map when there are several, from 0;
            negative counts from the end.
        is_listed: Whether plain listings and globs show it.
        is_ours: Whether the authors' code has no such activation.
    """

    name: ActivationName
    sources: tuple[Source, ...]
    port: Port = "output"
    item: int = 0
    frame: str | None = None
    layout: Literal["image", "tokens", "text", "free"] = "tokens"
    keys: Literal["all", "image", "text"] = "all"
    text_first: bool = True
    call: int = 0
    is_listed: bool = True
    is_ours: bool = False
