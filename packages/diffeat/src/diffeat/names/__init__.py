# SPDX-License-Identifier: Apache-2.0
"""Names of activations: their grammar, and which of them a model has."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from diffeat.names.grammar import ActivationName
from diffeat.names.matching import matching

if TYPE_CHECKING:
    from diffeat.names.listing import Activation, list_activations

__all__ = ["Activation", "ActivationName", "list_activations", "matching"]


def __getattr__(name: str) -> object:
    if name in {"Activation", "list_activations"}:  # on first use: they load torch
        return getattr(import_module("diffeat.names.listing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
