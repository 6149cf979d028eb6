# SPDX-License-Identifier: Apache-2.0
"""Denoisers without weights: from a model, a config, a folder or a hub id."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from common_kernels.runtime.hub import read_config
from torch import nn

from diffeat.shipped import SHIPPED

DENOISERS = ("unet", "transformer")
# pixels per latent cell and side, where a denoiser's own config does not go with the usual 8
_FACTORS = {"SanaTransformer2DModel": 32}
_LONGEST_TEXT = 1024


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A denoiser on the meta device, and properties of its pipeline.

    Attributes:
        model: The denoiser, without weights.
        factor: Pixels per latent cell and side.
        text_length: Text tokens of its CLIP encoders, if known.
    """

    model: nn.Module
    factor: int
    text_length: int | None = None


def denoiser_of(pipeline: object) -> nn.Module:
    """Return the denoiser of a pipeline, or the model itself; for a compiled one, the module inside.

    Raises:
        TypeError: If there is none.
    """
    candidates = [pipeline] if isinstance(pipeline, nn.Module) else []
    candidates += [getattr(pipeline, name, None) for name in DENOISERS]
    for found in candidates:
        if isinstance(found, nn.Module):
            return getattr(found, "_orig_mod", found)
    raise TypeError(
        f"a model or a pipeline with a unet or a transformer is needed, got {type(pipeline).__name__}"
    )


def blueprint(source: object) -> Blueprint:
    """Build a denoiser on the meta device.

    Args:
        source: A diffusers model or pipeline, a config with ``"_class_name"``, or the path or hub id of a
            model or pipeline.

    Raises:
        TypeError: If ``source`` is none of these.
        ValueError: If a config names no diffusers model.
    """
    if isinstance(source, Mapping):
        return _bare(_from_config(cast("Mapping[str, Any]", source)))
    if isinstance(source, str | Path):
        return _from_folder(source)
    model = denoiser_of(source)
    config = getattr(model, "config", None)
    if config is None:
        raise TypeError(f"a diffusers model with a config is needed, got {type(model).__name__}")
    factor = _bare(model).factor if isinstance(source, nn.Module) else vae_factor(source)
    length = getattr(getattr(source, "tokenizer", None), "model_max_length", None)
    # tokenizers without a limit report an astronomical one
    known = isinstance(length, int) and length <= _LONGEST_TEXT
    return Blueprint(_build(type(model), dict(config)), factor, length if known else None)


def vae_factor(pipeline: object) -> int:
    """Pixels per latent cell and side of a pipeline, 1 without an autoencoder."""
    if getattr(pipeline, "vae", None) is None:
        return 1
    for name in ("vae_scale_factor", "vae_scale_factor_spatial"):
        value = getattr(pipeline, name, None)
        if isinstance(value, int):
            return value
    return 8


def _from_file(path: Path) -> nn.Module:
    config = read_config(path.parent, path.name)
    if "_class_name" not in config:
        raise ValueError(f'{path} names no diffusers model: it has no "_class_name"')
    return _from_config(config)


def _from_config(config: Mapping[str, Any]) -> nn.Module:
    import diffusers

    name = config.get("_class_name")
    model_class = getattr(diffusers, str(name), None)
    if not isinstance(model_class, type) or not issubclass(model_class, nn.Module):
        raise ValueError(f"'_class_name' of a config must name a diffusers model, got {name!r}")
    return _build(model_class, dict(config))


def _bare(model: nn.Module) -> Blueprint:
    """A denoiser whose autoencoder is not known."""
    return Blueprint(model, _FACTORS.get(type(model).__name__, 8))


def _build(model_class: type[nn.Module], config: dict[str, Any]) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings about outdated configs
        model = cast("Any", model_class).from_config(config)
    return model.eval()


def _from_folder(source: str | Path) -> Blueprint:
    folder = SHIPPED.folder(str(source)) if str(source) in SHIPPED.names() else Path(source)
    if not folder.is_dir():
        if folder.suffix == ".json" and folder.is_file():
            return _bare(_from_file(folder))
        return _from_hub(str(source))
    if (folder / "config.json").is_file():
        return _bare(_from_file(folder / "config.json"))
    for name in DENOISERS:
        if (folder / name / "config.json").is_file():
            model = _from_file(folder / name / "config.json")
            parts = {
                part: read_config(folder / part)
                for part in ("vae", "text_encoder")
                if (folder / part / "config.json").is_file()
            }
            factor = _factor(parts["vae"]) if "vae" in parts else 1
            return Blueprint(model, factor, parts.get("text_encoder", {}).get("max_position_embeddings"))
    raise ValueError(
        f"a folder must hold config.json, unet/config.json or transformer/config.json, {source} holds none"
    )


def _from_hub(name: str) -> Blueprint:
    import diffusers

    load = cast("Any", diffusers).ConfigMixin.load_config
    for folder in (*DENOISERS, None):
        try:
            model = _from_config(load(name, subfolder=folder))
        except (OSError, ValueError):
            continue
        return _bare(model)
    raise ValueError(f"{name!r} is neither a folder nor a reachable model or pipeline on the hub")


def _factor(vae: Mapping[str, Any]) -> int:
    """Pixels per latent cell of an autoencoder's config."""
    for key in ("scale_factor_spatial", "spatial_compression_ratio"):
        if isinstance(vae.get(key), int):
            return int(vae[key])
    for key in ("block_out_channels", "encoder_block_out_channels"):
        if key in vae:
            return 2 ** (len(vae[key]) - 1)
    return 2 ** len(vae["temperal_downsample"]) if "temperal_downsample" in vae else 8
