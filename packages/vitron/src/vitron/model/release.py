# SPDX-License-Identifier: Apache-2.0
"""Weights of the authors' release, under the names of a LLaVA of transformers and of the region encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitron.model.hf.modeling import VitronForConditionalGeneration

__all__ = ["load_release_weights", "release_names"]

_PREFIXES = {
    "model.mm_projector.0.": "backbone.model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "backbone.model.multi_modal_projector.linear_2.",
    "lm_head.": "backbone.lm_head.",
    "model.": "backbone.model.language_model.",
}
_REGIONS = "model.region_extractor."
_TOWERS = ("model.image_tower.", "model.video_tower.")


def release_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name of each weight of the release; those of its vision towers are left out.

    The layers of the region extractor are told apart by their sizes, and by order where these are equal: the
    location code reads 4 numbers, and its hidden layer is half as wide as the language model.

    Args:
        weights: Weights by their names in the release.

    Raises:
        ValueError: If the region extractor is not that of the release.
    """
    found = dict[str, str]()
    for name in weights:
        if name.startswith((_REGIONS, *_TOWERS)):
            continue
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is not None:
            found[name] = _PREFIXES[prefix] + name.removeprefix(prefix)
    return found | _region_names(weights)


def _region_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    layers = [
        name.removesuffix("weight")
        for name, each in weights.items()
        if name.startswith(_REGIONS) and each.ndim == 2
    ]
    if not layers:
        return {}
    inlet = [name for name in layers if weights[name + "weight"].shape[1] == 4]
    outlet = [
        name for each in inlet for name in layers
        if weights[name + "weight"].shape[1] == len(weights[each + "weight"])
    ]  # fmt: skip
    features = [name for name in layers if name not in (*inlet, *outlet)]
    if (len(inlet), len(outlet), len(features)) != (1, 1, 3):
        raise ValueError(f"the region extractor has layers {', '.join(layers)}, which are not the release's")
    # the first layer alone reads the width of the tower
    features.sort(
        key=lambda name: (weights[name + "weight"].shape[0] == weights[name + "weight"].shape[1], name)
    )
    names = dict(zip(features, ("features.0.", "features.2.", "features.4."), strict=True))
    names |= {inlet[0]: "location.0.", outlet[0]: "location.2."}
    return {
        layer + kind: f"region_encoder.{ours}{kind}"
        for layer, ours in names.items()
        for kind in ("weight", "bias")
        if layer + kind in weights
    }


@torch.no_grad()
def load_release_weights(model: VitronForConditionalGeneration, weights: Mapping[str, Tensor]) -> set[str]:
    """Copy weights of the release into a model over LLaVA; rows of tokens that it lacks stay.

    Args:
        model: Model with ``region_form="published"`` or ``"published-mirrored"``, whose tower is loaded.
        weights: Weights by their names in the release, as safetensors hold them.

    Returns:
        Names of the parameters of the model that were set.

    Raises:
        ValueError: If a weight has no place in the model, or another size.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = release_names(weights)
    for name, ours in names.items():
        given, to = weights[name], parameters.get(ours)
        if to is None or given.shape[1:] != to.shape[1:] or len(given) > len(to):
            size = None if to is None else tuple(to.shape)
            raise ValueError(f"{name} of size {tuple(given.shape)} does not fit {ours} of size {size}")
        to[: len(given)] = given.to(to)
    return set(names.values())
