# SPDX-License-Identifier: Apache-2.0
"""Loading a CLIP model by name, folder or hub id; combinations with silently wrong features are refused."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any, Unpack

import open_clip
import torch
from common_kernels.runtime.hub import (
    DType,
    HubOptions,
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
from itaclip.transformers_clip import (
    is_transformers_folder,
    load_transformers_clip,
    load_transformers_tokenizer,
)

_HUB = "hf-hub:"  # schema of open_clip's names
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_TEXTS = ("*.json", "*.txt", "*.model")  # configurations and tokenizers
# files of OpenAI are archives of TorchScript, which hold three sizes beside the weights
_CONVERSION = (
    "import sys, torch, safetensors.torch as s; d = torch.jit.load(sys.argv[1], 'cpu').state_dict(); "
    "[d.pop(k, 0) for k in ('input_resolution', 'context_length', 'vocab_size')]; "
    "s.save_file({k: v.contiguous() for k, v in d.items()}, sys.argv[2])"
)


class ActivationWarning(UserWarning):
    """It is not known whether weights were trained with QuickGELU, or a flag contradicts what is known."""


def choose_quick_gelu(name: str, pretrained: str | None, quick_gelu: bool | None = None) -> bool | None:
    """Return whether a tower is to be built with QuickGELU; ``None`` for what its architecture says.

    The weights of OpenAI and some others were trained with QuickGELU. open_clip only warns when the name of
    the architecture says otherwise, and then gives wrong features. A flag decides; without one, the tag of
    the weights or the configuration beside their file does.

    Args:
        name: open_clip's name of the architecture, such as ``"ViT-B-16"``.
        pretrained: Tag of the weights, or a file.
        quick_gelu: The flag.

    Raises:
        ValueError: If the name asks for QuickGELU and the weights are known to be trained with GELU.
    """
    config = open_clip.get_model_config(name) if pretrained else None
    if config is None or not pretrained or "timm_model_name" in config.get("vision_cfg", {}):
        return quick_gelu
    built = bool(config.get("quick_gelu", False))
    trained = _trained_with_quick_gelu(name, pretrained)
    if quick_gelu is not None:
        if trained not in (None, quick_gelu):
            named = "QuickGELU" if trained else "GELU"
            message = f"the weights {pretrained!r} were trained with {named}, but quick_gelu={quick_gelu}"
            warnings.warn(message, ActivationWarning, stacklevel=2)
        return quick_gelu
    if built and trained is False:
        raise ValueError(
            f"{name} uses QuickGELU but the weights {pretrained!r} were trained with GELU: "
            f"take {name.removesuffix('-quickgelu')}"
        )
    if trained is None and not built and f"{name}-quickgelu" in open_clip.list_models():
        message = (
            f"whether the weights {pretrained} were trained with QuickGELU is not known: {name} takes GELU; "
            "for weights of OpenAI give quick_gelu=True (on the command line --quick-gelu), for others "
            "quick_gelu=False (--no-quick-gelu)"
        )
        warnings.warn(message, ActivationWarning, stacklevel=2)
    return True if trained else None


def _trained_with_quick_gelu(name: str, pretrained: str) -> bool | None:
    """Return what the tag of weights or the configuration beside their file says; ``None`` if nothing."""
    tag: dict[str, Any] = get_pretrained_cfg(name, pretrained)
    if tag:
        return bool(tag.get("quick_gelu", False))
    if (Path(pretrained).parent / CONFIG_FILE).is_file():
        config: Any = read_config(Path(pretrained).parent, CONFIG_FILE).get("model_cfg", {})
        return bool(config.get("quick_gelu", False))
    return None


def load_clip(
    backbone: str | Path,
    *,
    pretrained: str | None = None,
    quick_gelu: bool | None = None,
    device: str | torch.device = "auto",
    dtype: DType | torch.dtype = "auto",
    **hub: Unpack[HubOptions],
) -> tuple[nn.Module, Any]:
    """Load an open_clip model and its tokenizer, in evaluation mode.

    Args:
        backbone: A shipped name such as ``"tiny-shapes"``, a folder with ``open_clip_config.json`` and
            ``open_clip_model.safetensors``, a folder with a CLIP model of transformers (``config.json`` and
            ``model.safetensors``), open_clip's name of an architecture, or a hub id such as
            ``"timm/vit_base_patch16_clip_224.openai"``.
        pretrained: Weights of an architecture: a tag, or a ``.safetensors`` file.
        quick_gelu: QuickGELU in both towers, whatever the model's own configuration says; ``None`` for what
            that says. Where nothing says it, there is an :class:`ActivationWarning`.
        device: ``"auto"`` takes the accelerator if there is one.
        dtype: Compute dtype; ``"auto"`` is fp16 on CUDA, as the published code runs, else fp32.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download`` of a model
            by hub id; of weights by tag, ``cache_dir`` alone.

    Raises:
        ModelNotFoundError: If there is no such model or its files cannot be used.
        ValueError: If the device or dtype is unknown, or activation and weights do not match.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place, cuda_default="float16")
    folder = _fetch(backbone, hub)
    if folder is not None and is_transformers_folder(folder, CONFIG_FILE):
        model = load_transformers_clip(folder, quick_gelu=quick_gelu)
        return model.to(device=place, dtype=precision).eval(), load_transformers_tokenizer(folder)
    name, weights = _find(backbone, pretrained) if folder is None else (_checked(folder), None)
    chosen = choose_quick_gelu(name, weights, quick_gelu)
    # only this order of precedence overrides a configuration that says True
    options: dict[str, Any] = {} if chosen is None else {"quick_gelu": chosen}
    try:
        model = open_clip.create_model(
            name,
            pretrained=weights,
            force_quick_gelu=bool(chosen),
            require_pretrained=True,
            cache_dir=None if hub.get("cache_dir") is None else str(hub.get("cache_dir")),
            **options,
        )
        tokenizer = _tokenizer(backbone, folder) if folder is not None else open_clip.get_tokenizer(name)
    # open_clip asserts where sizes of weights differ
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AssertionError, SafetensorError) as error:
        raise ModelNotFoundError(f"{backbone} cannot be loaded: {_reason(error)}") from error
    return model.to(device=place, dtype=precision).eval(), tokenizer


def load_tokenizer(backbone: str, **hub: Unpack[HubOptions]) -> Any:
    """Load the tokenizer of a model without its weights.

    Args:
        backbone: As for :func:`load_clip`.
        **hub: As for :func:`load_clip`.

    Raises:
        ModelNotFoundError: If there is no such model.
    """
    if open_clip.get_model_config(backbone) is not None and not Path(backbone).is_dir():
        return open_clip.get_tokenizer(backbone)
    folder = _fetch(backbone, hub, weights=False)
    if folder is None:
        folder = Path(find_model(backbone, shipped=SHIPPED, index_file=CONFIG_FILE))  # which there is not
    if is_transformers_folder(folder, CONFIG_FILE):
        return load_transformers_tokenizer(folder)
    return _tokenizer(backbone, folder)


def _fetch(backbone: str | Path, hub: HubOptions, *, weights: bool = True) -> Path | None:
    """Return the folder of a model, fetched from the hub if it is there; ``None`` for an architecture."""
    name = _plain(str(backbone))
    if name in SHIPPED.names():
        return SHIPPED.folder(name)
    if Path(name).is_dir():
        return Path(name)
    if Path(name).suffix in _PICKLES or not is_hub_id(name):
        return None
    folder = Path(find_model(name, index_file=CONFIG_FILE, download=_TEXTS, **hub))
    if not weights:
        return folder
    # a repository may hold the same weights in several formats
    wanted = WEIGHTS_FILE if (folder / CONFIG_FILE).is_file() else "model*.safetensors"
    return Path(find_model(name, index_file=CONFIG_FILE, download=[wanted], **hub))


def _tokenizer(backbone: str | Path, folder: Path) -> Any:
    """Return the tokenizer of a folder of open_clip; one from the hub may name that of another repository."""
    name = _plain(str(backbone))
    is_own = not is_hub_id(name) or Path(name).is_dir() or any(folder.glob("*tokenizer*"))
    return open_clip.get_tokenizer(f"local-dir:{folder}" if is_own else f"{_HUB}{name}")


def _pickle_advice(name: str) -> str:
    target = Path(name).with_suffix(".safetensors").name
    return (
        "which can run code when opened: take the same model as a folder with safetensors, or from the hub "
        "(those of OpenAI: timm/vit_base_patch16_clip_224.openai), or convert a file of OpenAI by\n\n"
        f'python -c "{_CONVERSION}" {shlex.quote(name)} {shlex.quote(target)}\n\n'
        f"and give the name of its architecture, such as ViT-B-16, with --pretrained {target} --quick-gelu"
    )


def _find(backbone: str | Path, pretrained: str | None) -> tuple[str, str | None]:
    """Return the arguments for open_clip: name of an architecture, weights."""
    name = _plain(str(backbone))
    for each in (name, pretrained or ""):
        if Path(each).suffix in _PICKLES:
            raise ModelNotFoundError(f"{each} is a pickle, {_pickle_advice(each)}")
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
    return name, pretrained


def _plain(name: str) -> str:
    return name.removeprefix(_HUB)


def _checked(folder: Path) -> str:
    """Return the name by which open_clip loads a folder."""
    if not (folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(f"{folder} has no {CONFIG_FILE}, so it is not the folder of a model")
    if "model_cfg" not in read_config(folder, CONFIG_FILE):
        raise ModelNotFoundError(f"{folder / CONFIG_FILE} describes no CLIP model of open_clip")
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelNotFoundError(
            f"{folder} has no {WEIGHTS_FILE}; other files are pickles, which can run code when opened"
        )
    return f"local-dir:{folder}"


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
