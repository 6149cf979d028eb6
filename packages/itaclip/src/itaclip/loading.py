# SPDX-License-Identifier: Apache-2.0
"""Loading a CLIP model by name, folder or hub id; combinations with silently wrong features are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from common_kernels.runtime.hub import (
    DType,
    ModelNotFoundError,
    find_model,
    is_hub_id,
    read_config,
    resolve_device,
    resolve_dtype,
)
from open_clip.pretrained import get_pretrained_cfg
from safetensors import SafetensorError
from torch import nn

from itaclip.shipped import CONFIG_FILE, SHIPPED, WEIGHTS_FILE

_HUB = "hf-hub:"  # schema of open_clip's names


def needs_quick_gelu(name: str, pretrained: str | None) -> bool:
    """Return whether a model must be built with QuickGELU although its name says GELU.

    The weights of OpenAI and some others were trained with QuickGELU. open_clip only warns when the name of
    the architecture says otherwise, and then gives wrong features.

    Args:
        name: open_clip's name of the architecture, such as ``"ViT-B-16"``.
        pretrained: Tag of the weights, or a file.

    Raises:
        ValueError: If the name asks for QuickGELU and the weights were trained with GELU.
    """
    config = open_clip.get_model_config(name)
    if config is None or not pretrained or "timm_model_name" in config.get("vision_cfg", {}):
        return False
    built = bool(config.get("quick_gelu", False))
    tag: dict[str, Any] = get_pretrained_cfg(name, pretrained)
    # a file has no tag; those of OpenAI carry the name
    trained = bool(tag.get("quick_gelu", False)) if tag else ("openai" in pretrained.lower() or built)
    if built and not trained:
        raise ValueError(
            f"{name} uses QuickGELU but the weights {pretrained!r} were trained with GELU: "
            f"take {name.removesuffix('-quickgelu')}"
        )
    return trained and not built


def load_clip(
    backbone: str | Path,
    *,
    pretrained: str | None = None,
    device: str | torch.device = "auto",
    dtype: DType | torch.dtype = "auto",
) -> tuple[nn.Module, Any]:
    """Load an open_clip model and its tokenizer, in evaluation mode.

    Args:
        backbone: A shipped name such as ``"tiny-shapes"``, a folder with ``open_clip_config.json`` and
            ``open_clip_model.safetensors``, open_clip's name of an architecture, or a hub id such as
            ``"timm/vit_base_patch16_clip_224.openai"``.
        pretrained: Weights of an architecture: a tag, or a ``.safetensors`` file.
        device: ``"auto"`` takes CUDA if there is any.
        dtype: Compute dtype; ``"auto"`` is fp16 on CUDA, as the published code runs, else fp32.

    Raises:
        ModelNotFoundError: If there is no such model or its files cannot be used.
        ValueError: If the device or dtype is unknown, or activation and weights do not match.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place, cuda_default="float16")
    name, weights, quick_gelu = _find(backbone, pretrained)
    try:
        model = open_clip.create_model(
            name, pretrained=weights, force_quick_gelu=quick_gelu, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(name)
    # open_clip asserts where sizes of weights differ
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AssertionError, SafetensorError) as error:
        raise ModelNotFoundError(f"{backbone} cannot be loaded: {_reason(error)}") from error
    return model.to(device=place, dtype=precision).eval(), tokenizer


def load_tokenizer(backbone: str) -> Any:
    """Load the tokenizer of a model without its weights.

    Args:
        backbone: As for :func:`load_clip`.

    Raises:
        ModelNotFoundError: If there is no such model.
    """
    if open_clip.get_model_config(backbone) is not None and not Path(backbone).is_dir():
        return open_clip.get_tokenizer(backbone)
    found = find_model(_plain(backbone), shipped=SHIPPED, index_file=CONFIG_FILE)
    return open_clip.get_tokenizer(_schema(found))


def _find(backbone: str | Path, pretrained: str | None) -> tuple[str, str | None, bool]:
    """Return the arguments for open_clip: name with schema, weights, whether QuickGELU is forced."""
    name = _plain(str(backbone))
    if name in SHIPPED.names() or Path(name).is_dir() or is_hub_id(name):
        found = find_model(name, shipped=SHIPPED, index_file=CONFIG_FILE)
        if isinstance(found, Path):
            _check_folder(found)
        return _schema(found), None, False
    if open_clip.get_model_config(name) is None:
        raise ModelNotFoundError(
            f"no model {name!r}: it is neither shipped ({', '.join(SHIPPED.names())}), "
            "nor a folder, nor a hub id, nor an architecture of open_clip"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise ModelNotFoundError(
            f"{name} needs weights: name them by pretrained (on the command line --pretrained), "
            f"as one of {', '.join(tags)}, or a file"
        )
    if pretrained not in tags and Path(pretrained).suffix != ".safetensors":
        raise ModelNotFoundError(
            f"pretrained must be a .safetensors file or one of {', '.join(tags)}, got {pretrained!r}; "
            "other files are pickles, which can run code when opened"
        )
    return name, pretrained, needs_quick_gelu(name, pretrained)


def _plain(name: str) -> str:
    return name.removeprefix(_HUB)


def _schema(found: Path | str) -> str:
    return f"local-dir:{found}" if isinstance(found, Path) else f"{_HUB}{found}"


def _check_folder(folder: Path) -> None:
    if "model_cfg" not in read_config(folder, CONFIG_FILE):
        raise ModelNotFoundError(f"{folder / CONFIG_FILE} describes no CLIP model of open_clip")
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelNotFoundError(
            f"{folder} has no {WEIGHTS_FILE}; other files are pickles, which can run code when opened"
        )


def _reason(error: Exception) -> str:
    """Return in plain words what commonly goes wrong; the libraries take several lines for it."""
    text = str(error)
    if isinstance(error, SafetensorError):
        return f"its weights are damaged or cut short ({_one_line(error)}): fetch them again"
    if isinstance(error, AssertionError) or "state_dict" in text or "size mismatch" in text:
        return "the weights are those of another model: take weights of this architecture"
    if "download" in text.lower() or "connection" in text:
        return "its weights cannot be fetched: check the connection, or give a folder that holds the model"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
