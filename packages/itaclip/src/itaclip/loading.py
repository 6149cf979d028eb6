# SPDX-License-Identifier: Apache-2.0
"""Finding a CLIP model by name, folder or hub id, and refusing what would give silently wrong numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from safetensors import SafetensorError
from torch import nn

ASSETS = Path(__file__).parent / "assets"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"

# schema of open_clip's names; seconds until the hub has to answer
_HUB, _HUB_TIMEOUT = "hf-hub:", 5.0

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelNotFoundError(FileNotFoundError):
    """No model has this name, folder or hub id, or its files cannot be used."""


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return sorted(file.parent.name for file in ASSETS.glob(f"*/{WEIGHTS_FILE}"))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``"auto"`` into the CUDA device if there is one, else the CPU; check any other.

    Raises:
        ValueError: If the device is not known or not present.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda[:n]', got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not present: {torch.cuda.device_count()} CUDA devices found")
    return found


def resolve_dtype(dtype: DType | torch.dtype, device: torch.device) -> torch.dtype:
    """Turn ``"auto"`` into fp16 on CUDA, as the published code runs, and fp32 elsewhere; check a name.

    Raises:
        ValueError: If the dtype is not one that a tower runs in.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {
        "auto": torch.float16 if device.type == "cuda" else torch.float32,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if dtype not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, got {dtype!r}")
    return names[dtype]


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
        pretrained: For an architecture: tag of its weights, or a ``.safetensors`` file.
        device: ``"auto"`` takes CUDA if there is any.
        dtype: ``"auto"`` is fp16 on CUDA, else fp32.

    Raises:
        ModelNotFoundError: If there is no such model or its files cannot be used.
        ValueError: If the device or dtype is unknown, or activation and weights do not belong together.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    name, weights, quick_gelu = _find(backbone, pretrained)
    if name.startswith(_HUB):
        _check_hub(name.removeprefix(_HUB))
    try:
        model = open_clip.create_model(
            name, pretrained=weights, force_quick_gelu=quick_gelu, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(name)
    # open_clip asserts where sizes of weights differ
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AssertionError, SafetensorError) as error:
        raise ModelNotFoundError(f"{backbone} cannot be loaded: {_reason(error)}") from error
    return model.to(device=place, dtype=precision).eval(), tokenizer


def _find(backbone: str | Path, pretrained: str | None) -> tuple[str, str | None, bool]:
    """Return what open_clip is asked for: name with schema, weights, whether QuickGELU is forced."""
    name = str(backbone)
    folder = ASSETS / name if name in shipped_models() else Path(backbone)
    if folder.is_dir():
        _check_folder(folder)
        return f"local-dir:{folder}", None, False
    if name.startswith(_HUB) or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        return f"{_HUB}{name.removeprefix(_HUB)}", None, False
    if open_clip.get_model_config(name) is None:
        raise ModelNotFoundError(
            f"no model {name!r}: it is neither shipped ({', '.join(shipped_models()) or 'none'}), "
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


def _check_hub(model_id: str) -> None:
    """Ask once whether the hub answers: a download would try again and again for the better part of a minute.

    Raises:
        ModelNotFoundError: If it does not, and nothing of the model was fetched before.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if isinstance(try_to_load_from_cache(model_id, CONFIG_FILE), str):
            return
        get_hf_file_metadata(hf_hub_url(model_id, CONFIG_FILE), timeout=_HUB_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return  # there is an answer: what it means is said where the files are fetched
    except Exception as error:  # of whichever HTTP library this version of the hub's client has
        raise ModelNotFoundError(
            f"{model_id} cannot be loaded: the hub does not answer ({_one_line(error)}): "
            "check the connection, or give a folder that holds the model"
        ) from error


def _check_folder(folder: Path) -> None:
    if not (folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(
            f"{folder} holds no CLIP model of open_clip: there must be {CONFIG_FILE} and {WEIGHTS_FILE} in it"
        )
    try:
        stored = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{folder} holds no CLIP model of open_clip: {_one_line(error)}") from error
    if not isinstance(stored, dict) or "model_cfg" not in stored:
        raise ModelNotFoundError(f"{folder / CONFIG_FILE} describes no CLIP model of open_clip")
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelNotFoundError(
            f"{folder} has no {WEIGHTS_FILE}; other files are pickles, which can run code when opened"
        )


def _reason(error: Exception) -> str:
    """Say in plain words what commonly goes wrong; the libraries take several lines for it."""
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
