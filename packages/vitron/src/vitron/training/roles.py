# SPDX-License-Identifier: Apache-2.0
"""Parameters by their role in the model, whatever the backbone calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

__all__ = ["ROLES", "match_parameters", "parameter_roles"]

ROLES = (
    "vision_tower",
    "projector",
    "language_model",
    "embeddings",
    "lora",
    "region_encoder",
    "signal_norm",
    "mask_head",
    "condition_heads",
    "heads",
)
_HEADS = ("signal_norm", "mask_head", "condition_heads")
# what the model families of transformers call the layers between tower and language model
_PROJECTORS = (
    "multi_modal_projector",
    "projector",
    "merger",
    "deepstack_merger_list",
    "connector",
    "aligner",
    "image_newline",
)


def parameter_roles(model: Any) -> dict[str, frozenset[str]]:
    """Return the names of the parameters of each of :data:`ROLES`; a role may be empty.

    The projector is what lies between tower and language model, and may be a part of the tower's module.
    ``embeddings`` are those of input and output tokens; they belong to ``language_model`` as well, and so do
    adapters. ``region_encoder`` includes the norm of its features. ``heads`` are signal norm, mask head and
    condition heads.

    Args:
        model: Model, of any backbone.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}

    def of(*modules: nn.Module | None) -> set[str]:
        return {names[each] for module in modules if module is not None for each in module.parameters()}

    head = model.get_output_embeddings()
    embeddings = of(model.get_input_embeddings(), head)
    words = of(model.get_decoder(), head) | embeddings
    joints = {
        name
        for name in names.values()
        if name not in words and any(part in _PROJECTORS for part in name.split("."))
    }
    found = {
        "vision_tower": of(model.vision_tower) - joints,
        "projector": joints,
        "language_model": words,
        "embeddings": embeddings,
        "lora": {name for name in names.values() if ".lora_" in name},
        "region_encoder": of(model.region_encoder, model.feature_norm),
        **{role: of(getattr(model, role)) for role in _HEADS},
    }
    found["heads"] = set[str]().union(*(found[role] for role in _HEADS))
    return {role: frozenset(found[role]) for role in ROLES}


def match_parameters(
    entries: Iterable[str], names: Iterable[str], roles: Mapping[str, frozenset[str]]
) -> dict[str, set[str]]:
    """Return the parameters of each entry, a role or a glob of names.

    Args:
        entries: Roles and globs.
        names: Names of all parameters.
        roles: What :func:`parameter_roles` returns.

    Raises:
        ValueError: If an entry fits none: a typo would otherwise freeze what should be trained.
    """
    known, found = list(names), dict[str, set[str]]()
    for entry in entries:
        found[entry] = (
            set(roles[entry]) if entry in roles else {name for name in known if fnmatchcase(name, entry)}
        )
        if not found[entry]:
            what = "has no parameters" if entry in roles else "is neither a role nor the name of a parameter"
            raise ValueError(f"{entry!r} {what}; roles are {', '.join(roles) or 'unknown'}")
    return found
