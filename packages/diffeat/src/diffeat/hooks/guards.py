# SPDX-License-Identifier: Apache-2.0
"""Handling of caches, offloading and compilation of a denoiser."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_SKIPPING = ("cache", "pyramid_attention_broadcast", "layer_skip")


def hooks_of(model: nn.Module) -> set[str]:
    """Names of the diffusers hooks on a model and its modules."""
    found: set[str] = set()
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        found.update(getattr(registry, "hooks", {}))
    return found


def refuse_caches(model: nn.Module) -> None:
    """Refuse models whose blocks are skipped or answered from a cache.

    Raises:
        RuntimeError: If such hooks are on.
    """
    skipping = sorted(name for name in hooks_of(model) if any(word in name for word in _SKIPPING))
    if skipping or getattr(model, "is_cache_enabled", False):
        raise RuntimeError(
            f"activations need every block to run, but {type(model).__name__} answers some from a cache "
            f"({', '.join(skipping) or 'enable_cache'}); switch it off with disable_cache()"
        )


def may_stop(model: nn.Module) -> bool:
    """Whether a forward pass may be stopped early.

    It may not if inner modules load their weights for each call and unload them after it: the weights of the
    interrupted modules would stay on the device. Offloading of a whole model is no obstacle.
    """
    for module in model.modules():
        hook: Any = getattr(module, "_hf_hook", None)
        inner = getattr(hook, "hooks", (hook,))
        if any(getattr(each, "offload", False) is True for each in inner):
            return False
    return not any("group_offloading" in name for name in hooks_of(model))


@contextmanager
def uncompiled() -> Generator[None]:
    """Run compiled models eagerly: compiled graphs ignore hooks that are added later."""
    with torch.compiler.set_stance("force_eager"):
        yield
