# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters of the language model, by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from vitron.training.randomness import seeded

if TYPE_CHECKING:
    from vitron.training.stages import LoraSettings

__all__ = ["add_adapters", "has_adapters", "merge_adapters"]

_SEED = 1  # apart from the seeds of other new weights


def has_adapters(model: nn.Module) -> bool:
    """Return whether a model has adapters."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def add_adapters(model: Any, settings: LoraSettings, seed: int) -> None:
    """Add adapters to the language model, in place; a model that has some keeps them.

    Args:
        model: Model.
        settings: Rank, scale, dropout and layers.
        seed: Random seed of the new weights.
    """
    from peft import LoraConfig, inject_adapter_in_model  # an optional dependency

    if has_adapters(model):
        return
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    inside = model.get_decoder()
    if targets == "all-linear":
        head = model.get_output_embeddings()
        targets = [
            name for name, each in inside.named_modules() if isinstance(each, nn.Linear) and each is not head
        ]
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
    )
    with seeded(seed, _SEED):
        inject_adapter_in_model(config, inside)


def merge_adapters(model: Any) -> None:
    """Merge adapters into the weights, so that loading the model needs no PEFT."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, each in list(model.named_modules()):
        if isinstance(each, BaseTunerLayer):
            each.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, each.get_base_layer())
