# SPDX-License-Identifier: Apache-2.0
"""Heads for the prompt embeddings that are stored with a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitron.data.conditions import StoredConditions
from vitron.model.signals import make_condition_head
from vitron.training.randomness import seeded

__all__ = ["add_condition_heads"]

_SEED = 4  # apart from the seeds of other new weights


def add_condition_heads(model: Any, stored: Mapping[str, StoredConditions], seed: int) -> None:
    """Add a head for each module with stored conditions, unless there is one; they are saved with the model.

    Args:
        model: Model, in place.
        stored: Conditions by module.
        seed: Random seed of the new weights.

    Raises:
        ValueError: If a head of the model does not fit the conditions.
    """
    known = {name: dict(each) for name, each in (model.config.conditions or {}).items()}
    for number, (module, each) in enumerate(sorted(stored.items())):
        wanted = {"num_vectors": each.num_vectors, "width": each.width}
        if module in known:
            found = {name: known[module][name] for name in wanted}
            if found != wanted:
                raise ValueError(
                    f"the model's condition head of {module} gives {found['num_vectors']} vectors of "
                    f"{found['width']}, and {each.pipeline} has {each.num_vectors} of {each.width}"
                )
            continue
        with seeded(seed, _SEED, number):
            head = make_condition_head(int(model.config.text.hidden_size), wanted)
        reference = model.signal_norm.weight
        model.condition_heads[module] = head.to(reference.device, reference.dtype)
        known[module] = wanted
    model.config.conditions = known
