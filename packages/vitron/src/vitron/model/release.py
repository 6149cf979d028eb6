# SPDX-License-Identifier: Apache-2.0
"""Weights of the authors' release, under the names of a LLaVA of transformers and of the region encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from common_kernels.runtime.hub import WEIGHTS_FILE, load_weights, read_config
from torch import Tensor

from vitron.model.hf.modeling import VitronForConditionalGeneration

__all__ = ["load_release", "load_release_weights", "release_names"]

# of the release's modules LlavaMetaModel, RegionExtractor, MLP and LocationEncoder
_PREFIXES = {
    "model.mm_projector.0.": "backbone.model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "backbone.model.multi_modal_projector.linear_2.",
    "model.region_extractor.region_linear.layers.0.": "region_encoder.features.0.",
    "model.region_extractor.region_linear.layers.1.": "region_encoder.features.2.",
    "model.region_extractor.region_linear.layers.2.": "region_encoder.features.4.",
    "model.region_extractor.loc_encoder.loc_encoder.0.": "region_encoder.location.0.",
    "model.region_extractor.loc_encoder.loc_encoder.2.": "region_encoder.location.2.",
    "model.embed_tokens.": "backbone.model.language_model.embed_tokens.",
    "model.layers.": "backbone.model.language_model.layers.",
    "model.norm.": "backbone.model.language_model.norm.",
    "lm_head.": "backbone.lm_head.",
}
_LEFT_OUT = ("model.image_tower.", "model.video_tower.")
_PEFT = "base_model.model."  # in front of every name in a folder of PEFT


def load_release(
    model: VitronForConditionalGeneration, folder: Path | str, adapter: Path | str | None = None
) -> set[str]:
    """Read the release from its folders, in safetensors, and copy it into a model over LLaVA.

    Args:
        model: Model with ``region_form="published"`` or ``"published-mirrored"``, whose tower is loaded.
        folder: Folder of the whole checkpoint, in one file or in several.
        adapter: Folder of its LoRA, as PEFT writes it, which is merged. Weights that the release keeps beside
            it (``non_lora_trainables``) take the place of those of the checkpoint.

    Returns:
        Names of the parameters of the model that were set.

    Raises:
        ModelNotFoundError: If a folder has no weights, or only pickles, which can run code.
        ValueError: If a weight has no place in the model, or another size.
    """
    weights = _read(folder)
    if adapter is not None:
        settings = read_config(adapter, "adapter_config.json")
        _merge(weights, _read(adapter), settings["lora_alpha"] / settings["r"])
    return load_release_weights(model, weights)


def _read(folder: Path | str) -> dict[str, Tensor]:
    files = [file.name for file in sorted(Path(folder).glob("*.safetensors"))] or [WEIGHTS_FILE]
    found = [load_weights(folder, file) for file in files]
    return {name.removeprefix(_PEFT): weight for weights in found for name, weight in weights.items()}


def _merge(weights: dict[str, Tensor], adapter: Mapping[str, Tensor], scale: float) -> None:
    """Add ``scale * B @ A`` of every pair of an adapter to its weight; its other weights replace theirs."""
    for name, each in adapter.items():
        layer, _, part = name.partition(".lora_")
        if not part:
            weights[name] = each
        elif part == "A.weight":
            if (to := weights.get(f"{layer}.weight")) is None:
                raise ValueError(f"the adapter changes {layer}, which the checkpoint does not have")
            change = adapter[f"{layer}.lora_B.weight"].float() @ each.float()
            weights[f"{layer}.weight"] = (to.float() + scale * change).to(to.dtype)


def release_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name of each weight of the release; those of its vision towers are left out.

    Args:
        weights: Weights by their names in the release.

    Raises:
        ValueError: If a name is not one of the release.
    """
    found = dict[str, str]()
    for name in weights:
        if name.startswith(_LEFT_OUT):
            continue
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is None:
            raise ValueError(f"{name} is no weight of the authors' release")
        found[name] = _PREFIXES[prefix] + name.removeprefix(prefix)
    return found


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
