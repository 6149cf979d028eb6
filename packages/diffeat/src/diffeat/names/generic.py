# SPDX-License-Identifier: Apache-2.0
"""The fallback: the output of any module under its dotted path."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from diffeat.names.grammar import ActivationName
from diffeat.names.taps import Source, Tap


def module_tap(path: str) -> Tap:
    """A tap on the output of the module at ``path``, in the original shape."""
    return Tap(name=ActivationName("module", path), sources=(Source(path=path),), layout="free", is_ours=True)


def module_taps(model: nn.Module) -> Iterator[Tap]:
    """Taps on all modules below ``model`` that are called, without containers such as lists."""
    for path, module in model.named_modules():
        if path and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield module_tap(path)
