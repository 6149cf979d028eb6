# SPDX-License-Identifier: Apache-2.0
"""CLIP models in the format of transformers, as models of open_clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.hub import ModelNotFoundError, read_config
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from itaclip.pretrained import load_complete, reason_of

TRANSFORMERS_CONFIG = "config.json"
_PREPROCESSING = "preprocessor_config.json"
# what the tokenizers of transformers are saved as
_TOKENIZERS = ("tokenizer.json", "vocab.json")
# vocabulary of CLIP, whose last word ends a text
_CLIP_WORDS = 49408
# by mistake, published configurations name 2 as the end of a text; transformers then takes the largest number
_LEGACY_END = 2

_RENAMED = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "logit_scale": "logit_scale",
}
# beginnings of names; the layers come after
_PREFIXES = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
}
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def is_transformers_folder(folder: Path, index_file: str) -> bool:
    """Return whether a folder holds a model of transformers and none of open_clip.

    Args:
        folder: The folder.
        index_file: File by which a model of open_clip is known.
    """
    return not (folder / index_file).is_file() and (folder / TRANSFORMERS_CONFIG).is_file()


def load_transformers_clip(folder: Path, *, quick_gelu: bool | None = None) -> nn.Module:
    """Load a CLIP model in the format of transformers as an open_clip model.

    Args:
        folder: With ``config.json`` and safetensors.
        quick_gelu: QuickGELU in both towers; ``None`` for what ``hidden_act`` of the configuration says.

    Returns:
        The model, in evaluation mode, fp32 on the CPU.

    Raises:
        ModelNotFoundError: If it is no CLIP model, its towers cannot be built, or its weights are missing.
    """
    from transformers import CLIPModel

    config = _read(folder)
    own = _activation(folder, config)
    try:
        source = load_complete(CLIPModel, folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(f"{folder} cannot be loaded: {reason_of(error)}") from error
    model = CLIP(**_shapes(source.config), quick_gelu=own if quick_gelu is None else quick_gelu)
    model.load_state_dict(convert_state(source.state_dict()))
    file = folder / _PREPROCESSING
    if file.is_file():
        stated = json.loads(file.read_text("utf-8"))
        mean, std = stated.get("image_mean"), stated.get("image_std")
        if mean and std:
            visual: Any = model.visual  # to pyright, attributes of modules are tensors
            visual.preprocess_cfg = vars(PreprocessCfg(mean=tuple(mean), std=tuple(std)))
    return model.float().eval()


def load_transformers_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a folder, or that of CLIP if the folder has none.

    Raises:
        ModelNotFoundError: If there is none and the vocabulary is not that of CLIP.
    """
    text = _read(folder).get("text_config", {})
    length = text.get("max_position_embeddings", 77)
    if any((folder / name).is_file() for name in _TOKENIZERS):
        return HFTokenizer(str(folder), context_length=length)
    if text.get("vocab_size", _CLIP_WORDS) != _CLIP_WORDS:
        raise ModelNotFoundError(
            f"{folder} has no {_TOKENIZERS[0]}, and its vocabulary of {text['vocab_size']} words is not "
            "that of CLIP: add it"
        )
    return SimpleTokenizer(context_length=length)


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ``CLIPModel`` as open_clip names them.

    Args:
        state: Weights by the names of transformers.

    Returns:
        Weights by the names of open_clip: queries, keys and values joined, projections transposed.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _RENAMED:
            converted[_RENAMED[name]] = tensor
        elif name in ("visual_projection.weight", "text_projection.weight"):
            target = "visual.proj" if name.startswith("visual") else "text_projection"
            converted[target] = tensor.T.contiguous()
        elif ".self_attn.q_proj." in name:
            parts = [state[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            joined = _renamed(name.replace("self_attn.q_proj.", "attn.in_proj_"))
            converted[joined] = torch.cat(parts)
        elif not any(part in name for part in (".k_proj.", ".v_proj.", "position_ids")):
            converted[_renamed(name)] = tensor
    return converted


def _renamed(name: str) -> str:
    for old, new in (*_PREFIXES.items(), *_PARTS.items()):
        name = name.replace(old, new)
    return name


def _read(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_config(folder, TRANSFORMERS_CONFIG)
    if config.get("model_type") != "clip":
        raise ModelNotFoundError(
            f"{folder / TRANSFORMERS_CONFIG} describes no CLIP model of transformers, "
            f"but one of the kind {config.get('model_type')!r}"
        )
    return config


def _activation(folder: Path, config: dict[str, Any]) -> bool:
    """Return whether the configuration asks for QuickGELU; both towers have to agree."""
    # a published configuration leaves out what is the default of transformers, which is QuickGELU
    acts = {
        config.get(tower, {}).get("hidden_act", "quick_gelu") for tower in ("vision_config", "text_config")
    }
    if len(acts) > 1 or not acts <= {"quick_gelu", "gelu"}:
        raise ModelNotFoundError(
            f"{folder / TRANSFORMERS_CONFIG}: hidden_act must be quick_gelu or gelu in both towers, "
            f"got {', '.join(sorted(acts))}"
        )
    return acts == {"quick_gelu"}


def _shapes(config: Any) -> dict[str, Any]:
    """Return the arguments of open_clip's model."""
    vision, text = config.vision_config, config.text_config
    if text.eos_token_id not in (_LEGACY_END, text.vocab_size - 1):
        raise ModelNotFoundError(
            "the end of a text must have the largest number of the vocabulary, "
            f"got {text.eos_token_id} of {text.vocab_size}"
        )
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "layers": vision.num_hidden_layers,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "norm_kwargs": {"eps": text.layer_norm_eps},
        },
    }
