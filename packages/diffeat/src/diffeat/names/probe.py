# SPDX-License-Identifier: Apache-2.0
"""Inputs of the right shape for one dry call of a denoiser on the meta device."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from diffeat.hooks.geometry import Geometry

# text tokens that each family's pipeline passes by default
TEXT_LENGTHS = {
    "PixArtTransformer2DModel": 300,
    "SD3Transformer2DModel": 333,
    "FluxTransformer2DModel": 512,
    "Flux2Transformer2DModel": 512,
    "QwenImageTransformer2DModel": 64,
    "WanTransformer3DModel": 512,
    "SanaTransformer2DModel": 300,
    "Lumina2Transformer2DModel": 256,
    "ZImageTransformer2DModel": 512,
    "HunyuanVideoTransformer3DModel": 256,
}


def dry_inputs(
    model: nn.Module, height: int, width: int, *, text_length: int | None = None
) -> tuple[dict[str, Any], Geometry | None]:
    """Return keyword arguments for one call with one image.

    Args:
        model: A denoiser on the meta device.
        height: Rows of the latent.
        width: Columns of the latent.
        text_length: Text tokens of a U-Net; CLIP's 77 if ``None``. Transformers get the default of their
            pipelines.

    Returns:
        The arguments and, if they do not determine it without values, the token grid.

    Raises:
        NotImplementedError: If the call of this class of model is not known.
    """
    name = type(model).__name__
    config: Any = model.config
    if name == "Lumina2Transformer2DModel":
        cast("Any", model).rope_embedder.register_forward_pre_hook(_whole_mask)
    if hasattr(model, "conv_in") and hasattr(model, "up_blocks"):
        return _unet(config, height, width, text_length or 77), None
    if name not in _MAKERS:
        raise NotImplementedError(
            f"shapes and costs of {name} need an example call, which is not known; list its names with "
            "size=None"
        )
    inputs = _MAKERS[name](config, height, width)
    if "x" not in inputs:  # all but Z-Image call them so
        inputs.setdefault("hidden_states", _zeros(1, config.in_channels, height, width))
        inputs["timestep"] = torch.ones(1, device="meta")
    if getattr(config, "guidance_embeds", False):
        inputs["guidance"] = torch.ones(1, device="meta")
    return inputs, Geometry.of(height // 2, width // 2) if "img_ids" in inputs else None


def _zeros(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def _unet(config: Any, height: int, width: int, text_length: int) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "sample": _zeros(1, config.in_channels, height, width),
        "timestep": torch.ones((), device="meta"),
    }
    cross = getattr(config, "cross_attention_dim", None)
    if cross is not None:
        hidden = getattr(config, "encoder_hid_dim", None)
        width_of_text = hidden or (cross if isinstance(cross, int) else cross[0])
        inputs["encoder_hidden_states"] = _zeros(1, text_length, width_of_text)
    if getattr(config, "class_embed_type", None) == "projection":
        inputs["class_labels"] = _zeros(1, config.projection_class_embeddings_input_dim)
    elif getattr(config, "class_embed_type", None) is not None or getattr(config, "num_class_embeds", None):
        inputs["class_labels"] = torch.ones(1, dtype=torch.long, device="meta")
    if added := _added(config):
        inputs["added_cond_kwargs"] = added
    return inputs


def _added(config: Any) -> dict[str, Tensor]:
    """Added conditions of a U-Net."""
    kind = getattr(config, "addition_embed_type", None)
    added: dict[str, Tensor] = {}
    if kind == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": _zeros(1, pooled), "time_ids": _zeros(1, 6)}
    elif kind in {"text_image", "image", "image_hint"}:
        width = config.encoder_hid_dim or config.cross_attention_dim
        added = {
            "text_embeds": _zeros(1, width),
            "image_embeds": _zeros(1, width),
            "hint": _zeros(1, 3, 8, 8),
        }
    if getattr(config, "encoder_hid_dim_type", None) in {"image_proj", "text_image_proj"}:
        added.setdefault("image_embeds", _zeros(1, config.encoder_hid_dim))
    return added


def _pixart(config: Any, height: int, width: int) -> dict[str, Any]:
    length = TEXT_LENGTHS["PixArtTransformer2DModel"]
    conditions = {"resolution": _zeros(1, 2), "aspect_ratio": _zeros(1, 1)}
    has_none = not config.use_additional_conditions and config.sample_size != 128
    return {
        "encoder_hidden_states": _zeros(1, length, config.caption_channels or config.cross_attention_dim),
        "added_cond_kwargs": dict.fromkeys(conditions) if has_none else conditions,
    }


def _hunyuan(config: Any, height: int, width: int) -> dict[str, Any]:
    h, w = height // config.patch_size, width // config.patch_size
    rotary = _zeros(h * w, config.attention_head_dim)
    return {
        "encoder_hidden_states": _zeros(1, config.text_len, config.cross_attention_dim),
        "text_embedding_mask": torch.ones(1, config.text_len, dtype=torch.bool, device="meta"),
        "encoder_hidden_states_t5": _zeros(1, config.text_len_t5, config.cross_attention_dim_t5),
        "text_embedding_mask_t5": torch.ones(1, config.text_len_t5, dtype=torch.bool, device="meta"),
        "image_meta_size": torch.ones(1, 6, device="meta"),
        "style": torch.zeros(1, dtype=torch.long, device="meta"),
        "image_rotary_emb": (rotary, rotary),
    }


def _sd3(config: Any, height: int, width: int) -> dict[str, Any]:
    length = TEXT_LENGTHS["SD3Transformer2DModel"]
    return {
        "encoder_hidden_states": _zeros(1, length, config.joint_attention_dim),
        "pooled_projections": _zeros(1, config.pooled_projection_dim),
    }


def _flux(config: Any, height: int, width: int) -> dict[str, Any]:
    # the pipelines fold 2x2 latent cells into a token, ignoring the config's patch size
    tokens, length = (height // 2) * (width // 2), TEXT_LENGTHS["FluxTransformer2DModel"]
    axes = len(getattr(config, "axes_dims_rope", (0, 0, 0)))
    inputs: dict[str, Any] = {
        "hidden_states": _zeros(1, tokens, config.in_channels),
        "encoder_hidden_states": _zeros(1, length, config.joint_attention_dim),
        "img_ids": _zeros(tokens, axes),
        "txt_ids": _zeros(length, axes),
    }
    if hasattr(config, "pooled_projection_dim"):
        inputs["pooled_projections"] = _zeros(1, config.pooled_projection_dim)
    return inputs


def _qwen(config: Any, height: int, width: int) -> dict[str, Any]:
    h, w = height // 2, width // 2
    length = TEXT_LENGTHS["QwenImageTransformer2DModel"]
    return {
        "hidden_states": _zeros(1, h * w, config.in_channels),
        "encoder_hidden_states": _zeros(1, length, config.joint_attention_dim),
        "img_shapes": [[(1, h, w)]],
    }


def _wan(config: Any, height: int, width: int) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "hidden_states": _zeros(1, config.in_channels, 1, height, width),
        "encoder_hidden_states": _zeros(1, TEXT_LENGTHS["WanTransformer3DModel"], config.text_dim),
    }
    if config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = _zeros(1, 257, config.image_dim)
    return inputs


def _sana(config: Any, height: int, width: int) -> dict[str, Any]:
    length = TEXT_LENGTHS["SanaTransformer2DModel"]
    return {"encoder_hidden_states": _zeros(1, length, config.caption_channels)}


def _whole_mask(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give positions a mask with values: their module reads the length of the text from them."""
    latent, mask = args
    return latent, torch.ones(mask.shape, dtype=torch.bool)


def _lumina2(config: Any, height: int, width: int) -> dict[str, Any]:
    length = TEXT_LENGTHS["Lumina2Transformer2DModel"]
    return {
        "encoder_hidden_states": _zeros(1, length, config.cap_feat_dim),
        "encoder_attention_mask": torch.ones(1, length, dtype=torch.bool, device="meta"),
    }


def _z_image(config: Any, height: int, width: int) -> dict[str, Any]:
    return {
        "x": [_zeros(config.in_channels, 1, height, width)],
        "t": torch.ones(1, device="meta"),
        "cap_feats": [_zeros(TEXT_LENGTHS["ZImageTransformer2DModel"], config.cap_feat_dim)],
    }


def _hunyuan_video(config: Any, height: int, width: int) -> dict[str, Any]:
    length = TEXT_LENGTHS["HunyuanVideoTransformer3DModel"]
    return {
        "hidden_states": _zeros(1, config.in_channels, 1, height, width),
        "encoder_hidden_states": _zeros(1, length, config.text_embed_dim),
        "encoder_attention_mask": torch.ones(1, length, device="meta"),
        "pooled_projections": _zeros(1, config.pooled_projection_dim),
    }


def _cogvideox(config: Any, height: int, width: int) -> dict[str, Any]:
    frames = config.patch_size_t or 1
    h, w = height // config.patch_size, width // config.patch_size
    inputs: dict[str, Any] = {
        "hidden_states": _zeros(1, frames, config.in_channels, height, width),
        "encoder_hidden_states": _zeros(1, config.max_text_seq_length, config.text_embed_dim),
    }
    if config.use_rotary_positional_embeddings:
        rotary = _zeros(h * w, config.attention_head_dim)
        inputs["image_rotary_emb"] = (rotary, rotary)
    if config.ofs_embed_dim is not None:
        inputs["ofs"] = torch.ones(1, device="meta")
    return inputs


_MAKERS = {
    "PixArtTransformer2DModel": _pixart,
    "HunyuanDiT2DModel": _hunyuan,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "Flux2Transformer2DModel": _flux,
    "QwenImageTransformer2DModel": _qwen,
    "WanTransformer3DModel": _wan,
    "SanaTransformer2DModel": _sana,
    "Lumina2Transformer2DModel": _lumina2,
    "ZImageTransformer2DModel": _z_image,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "CogVideoXTransformer3DModel": _cogvideox,
}
