# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that hold what differs from a base model: adapters, heads and the rows of new tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from common_kernels.runtime.files import write_text
from common_kernels.runtime.hub import ModelNotFoundError, load_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from vitron.model.assembly import attach
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.modeling import VitronForConditionalGeneration

__all__ = ["ADAPTER_FILE", "is_adapter_folder", "load_adapters", "save_adapters", "save_model"]

ADAPTER_FILE, WEIGHTS_FILE = "adapter.json", "adapter.safetensors"
_LORA = ".lora_"
_ROWS = ".rows"
# of the configuration, what is read from the base model or found anew
_DERIVED = frozenset({"backbone_config", "model_type", "architectures", "transformers_version", "dtype"})


def is_adapter_folder(folder: Path | str) -> bool:
    """Return whether a folder holds what :func:`save_adapters` writes."""
    return (Path(folder) / ADAPTER_FILE).is_file()


def save_adapters(model: VitronForConditionalGeneration, processor: Any, folder: Path | str) -> None:
    """Write what differs from the base model, in safetensors, with a reference to it.

    Every weight is compared with the base model's, so that loading gives the same model to the bit; of
    embeddings, only the rows that differ are written. Quantised weights are those of the base model.

    Args:
        model: Model from :func:`vitron.model.assembly.attach`, with or without adapters of PEFT.
        processor: Processor of the model.
        folder: Folder.

    Raises:
        ValueError: If the configuration names no base model.
    """
    config = cast("VitronConfig", model.config)
    if config.base_model is None:
        raise ValueError("the model has no base model: save it as a whole")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    reference, _ = _attach_again(config, dtype=model.dtype)
    known = dict(reference.named_parameters())
    found = dict[str, Tensor]()
    for name, weight in model.named_parameters():
        base = known.get(name.replace(".base_layer.", "."))
        if base is None:
            found[name] = weight.detach().cpu()
        elif weight.is_floating_point():
            found |= _difference(name, weight.detach().cpu(), base.detach())
    save_file({name: each.contiguous() for name, each in found.items()}, target / WEIGHTS_FILE)
    settings = {name: each for name, each in config.to_dict().items() if name not in _DERIVED}
    described = {"base_model": config.base_model, "config": settings, "lora": _lora_settings(model)}
    write_text(target / ADAPTER_FILE, json.dumps(described, indent=2, default=str) + "\n")
    config.save_pretrained(target)
    _save_processor(processor, target)
    _share_weights(target)


def save_model(model: VitronForConditionalGeneration, processor: Any, folder: Path | str) -> None:
    """Write configuration, all weights (safetensors) and processor.

    Args:
        model: Model without adapters.
        processor: Processor of the model.
        folder: Folder.
    """
    model.save_pretrained(folder)
    _save_processor(processor, folder)
    _share_weights(Path(folder))


def _share_weights(folder: Path) -> None:
    """Give weights the permissions of the configuration: safetensors lets their owner alone read them."""
    mode = (folder / "config.json").stat().st_mode & 0o777
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def _save_processor(processor: Any, folder: Path | str) -> None:
    """Write a processor, without the padding to one length that its last batch left in the tokenizer.

    Args:
        processor: Processor of a model.
        folder: Folder.
    """
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    processor.save_pretrained(folder)


def load_adapters(
    folder: Path | str, *, base_model: Path | str | None = None, **kwargs: Any
) -> tuple[VitronForConditionalGeneration, Any]:
    """Load a model from its base model and what differs from it.

    Args:
        folder: Folder of :func:`save_adapters`.
        base_model: Base model, if it lies elsewhere than where it lay.
        **kwargs: Arguments of transformers for the base model.

    Raises:
        ModelNotFoundError: If the base model is not found.
    """
    described: dict[str, Any] = json.loads((Path(folder) / ADAPTER_FILE).read_text(encoding="utf-8"))
    config = VitronConfig.from_pretrained(folder)
    assert isinstance(config, VitronConfig)
    config.base_model = str(base_model or described["base_model"])
    try:
        model, processor = _attach_again(config, **kwargs)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"{folder} holds what differs from its base model, and {error}: put the base model there, or "
            f"write its place into {ADAPTER_FILE}"
        ) from error
    if described["lora"] is not None:
        from peft import LoraConfig, inject_adapter_in_model  # an optional dependency

        inject_adapter_in_model(LoraConfig(**described["lora"]), model.get_decoder())
    parameters = dict(model.named_parameters())
    weights = load_weights(folder, WEIGHTS_FILE)
    with torch.no_grad():
        for name, each in weights.items():
            if name.endswith(_ROWS):
                continue
            rows = weights.get(name + _ROWS)
            to = parameters[name]
            if rows is None:
                to.copy_(each)
            else:
                to[rows.to(to.device)] = each.to(to)
    return model, processor


def _attach_again(config: VitronConfig, **kwargs: Any) -> tuple[VitronForConditionalGeneration, Any]:
    settings = {name: each for name, each in config.to_dict().items() if name not in _DERIVED}
    for name in ("region_token_id", "signal_token_ids", "num_specific"):
        settings.pop(name, None)
    assert config.base_model is not None
    return attach(
        config.base_model,
        num_specific=config.num_specific,
        num_shared=config.num_signals - config.num_specific,
        settings=settings,
        **kwargs,
    )


def _difference(name: str, weight: Tensor, base: Tensor) -> Mapping[str, Tensor]:
    if torch.equal(weight, base):
        return {}
    rows = (weight != base).flatten(1).any(1).nonzero()[:, 0] if weight.ndim > 1 else torch.zeros(0)
    if weight.ndim < 2 or 2 * len(rows) > len(weight):
        return {name: weight}
    return {name: weight[rows], name + _ROWS: rows}


def _lora_settings(model: nn.Module) -> dict[str, Any] | None:
    """Return the settings of the adapters of a model; ``None`` without any."""
    if not any(_LORA in name for name, _ in model.named_parameters()):
        return None
    decoder: Any = cast("Any", model).get_decoder()
    settings = next(iter(decoder.peft_config.values())).to_dict()
    keep = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "bias")
    found = {key: settings[key] for key in keep}
    modules = found["target_modules"]
    return found | {"target_modules": modules if isinstance(modules, str) else sorted(modules)}
