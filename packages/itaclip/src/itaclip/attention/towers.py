# SPDX-License-Identifier: Apache-2.0
"""Towers beside CLIP: features of patches from timm, attention of the last layer from SAM."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.hub import ModelNotFoundError, check_hub, is_hub_id
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.pretrained import load_complete, reason_of

# of ImageNet, in [0, 1]; SAM states the same in [0, 255]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PatchTower:
    """Features of the patches of an image, from a vision transformer of timm such as DINO.

    Args:
        model: Its model, or the name, hub id or folder (``config.json``, ``model.safetensors``) of one.

    Raises:
        ModelNotFoundError: If there is no such model.
        ValueError: If it has no patches.
    """

    def __init__(self, model: str | Path | nn.Module) -> None:
        self.model: Any = model if isinstance(model, nn.Module) else _load_timm(str(model))
        self.model.eval().requires_grad_(False)
        embed = getattr(self.model, "patch_embed", None)
        if embed is None or not hasattr(self.model, "forward_intermediates"):
            found = type(self.model).__name__
            raise ValueError(f"the tower must be a vision transformer of timm, got {found}")
        self.patch_size: tuple[int, int] = tuple(embed.patch_size)
        stated = getattr(self.model, "pretrained_cfg", None) or {}
        self.mean, self.std = stated.get("mean") or MEAN, stated.get("std") or STD

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the model."""
        self.model.to(device=device, dtype=dtype)

    def query_keys(self, pixels: Tensor) -> Tensor:
        """Return the sum of queries and keys of the last block.

        Args:
            pixels: As for the normalised output.

        Returns:
            ``(B, C, height, width)``, in patches.

        Raises:
            ValueError: If the block has no joint projection of queries, keys and values.
        """
        projection = getattr(self.model.blocks[-1].attn, "qkv", None)
        if projection is None:
            raise ValueError(
                f"{type(self.model).__name__} has no joint projection of queries, keys and values"
            )
        kept: list[Tensor] = []
        handle = projection.register_forward_hook(lambda _, inputs, output: kept.append(output))
        try:
            maps = self(pixels)
        finally:
            handle.remove()
        query, key, _ = kept[0].chunk(3, dim=-1)  # (B, tokens, C)
        patches = maps.shape[-2] * maps.shape[-1]
        return (query + key)[:, -patches:].mT.unflatten(2, maps.shape[-2:])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the normalised output of the last block.

        Args:
            pixels: ``(B, 3, H, W)``, RGB in [0, 1]; enlarged where its sides are no multiples of the patch.

        Returns:
            ``(B, C, height, width)``, in patches.
        """
        pairs = zip(pixels.shape[-2:], self.patch_size, strict=True)
        sides = [-(-side // patch) * patch for side, patch in pairs]
        images = normalise(pixels, self.mean, self.std)
        if list(images.shape[-2:]) != sides:
            images = F.interpolate(images, size=sides, mode="bilinear", align_corners=False)
        dtype = next(self.model.parameters()).dtype
        (maps,) = self.model.forward_intermediates(
            images.to(dtype), indices=1, norm=True, intermediates_only=True, output_fmt="NCHW"
        )
        return maps


def _load_timm(name: str) -> nn.Module:
    import timm

    wanted = (
        f"the tower {name!r} cannot be loaded: it must be a folder, hub id or name of a vision transformer "
        "of timm"
    )
    if Path(name).is_dir():
        place = f"local-dir:{name}"
    elif "/" in name and not is_hub_id(name):
        raise ModelNotFoundError(wanted)
    else:
        place = f"hf-hub:{name}" if is_hub_id(name) else name
        check_hub(name if is_hub_id(name) else f"timm/{name}")
    try:
        return timm.create_model(place, pretrained=True, num_classes=0, dynamic_img_size=True)
    except Exception as error:
        raise ModelNotFoundError(f"{wanted} ({reason_of(error)})") from error


@dataclass(frozen=True, slots=True)
class SamAttention:
    """Attention of the last layer of SAM's image encoder, over the part that an image covers.

    Attributes:
        weights: ``(N, N)``, fp32: attention of every patch to every other, averaged over the heads, rows
            adding up to 1.
        outputs: ``(N, C)``, fp32: attended values, those of the heads side by side.
        grid: Patches along height and width.
    """

    weights: Tensor
    outputs: Tensor
    grid: tuple[int, int]


class SamTower:
    """Attention of the last layer of SAM's image encoder.

    Args:
        model: ``SamModel`` of transformers or its vision encoder, or the hub id or folder of one.

    Raises:
        ModelNotFoundError: If there is no such model.
        ValueError: If its last layer attends within windows only.
    """

    def __init__(self, model: str | Path | nn.Module) -> None:
        loaded: Any = model if isinstance(model, nn.Module) else _load_sam(str(model))
        encoder: Any = getattr(loaded, "vision_encoder", loaded)
        if not hasattr(encoder, "layers") or not hasattr(encoder.layers[-1].attn, "qkv"):
            raise ValueError(f"the SAM model must be a SamModel of transformers, got {type(loaded).__name__}")
        if encoder.layers[-1].window_size:
            raise ValueError("the last layer of the SAM model attends within windows, not over the image")
        self.encoder: Any = encoder.eval().requires_grad_(False)
        self.image_size: int = encoder.config.image_size
        self.patch: int = encoder.config.patch_size

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the encoder."""
        self.encoder.to(device=device, dtype=dtype)

    def __call__(self, pixels: Tensor) -> SamAttention:
        """Encode one image; its long side is brought to the size of the model, the rest is padded by zeros.

        Args:
            pixels: ``(3, H, W)``, RGB in [0, 1].
        """
        height, width = pixels.shape[-2:]
        factor = self.image_size / max(height, width)
        size = [max(self.patch, int(side * factor + 0.5)) for side in (height, width)]
        image = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False)
        image = normalise(image.clamp(0, 1), MEAN, STD)
        image = F.pad(image, (0, self.image_size - size[1], 0, self.image_size - size[0]))
        with _last_input(self.encoder) as kept:
            self.encoder(image.to(next(self.encoder.parameters()).dtype))
        return self._attention(kept[0], (size[0] // self.patch, size[1] // self.patch))

    def _attention(self, x: Tensor, grid: tuple[int, int]) -> SamAttention:
        """Compute map and outputs head by head, so that one map is in memory, not one per head."""
        attn = self.encoder.layers[-1].attn
        side = x.shape[1]
        heads = attn.num_attention_heads
        qkv = attn.qkv(x).reshape(side * side, 3, heads, -1).permute(1, 2, 0, 3)  # (3, heads, N, head_dim)
        covered = torch.arange(side * side, device=x.device).view(side, side)[: grid[0], : grid[1]].flatten()
        total = torch.zeros(len(covered), len(covered), device=x.device)
        outputs: list[Tensor] = []
        for query, key, value in zip(*qkv, strict=True):
            logits = (query * attn.scale) @ key.T
            if attn.use_rel_pos:
                bias = attn.get_decomposed_rel_pos(
                    query[None], attn.rel_pos_h, attn.rel_pos_w, (side, side), (side, side)
                )
                logits = logits + bias.reshape_as(logits)
            # rows and columns of the padding are left out, the rest adds up to 1 again
            weights = logits[covered][:, covered].float().softmax(dim=-1)
            total += weights
            outputs.append(weights @ value[covered].float())
        return SamAttention(total / heads, torch.cat(outputs, dim=-1), grid)


def _load_sam(name: str) -> nn.Module:
    from transformers import SamModel

    if not Path(name).is_dir():
        check_hub(name)
    try:
        return load_complete(SamModel, name)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(
            f"the SAM model {name!r} cannot be loaded: it must be a folder or hub id of a SamModel of "
            f"transformers ({reason_of(error)})"
        ) from error


@contextmanager
def _last_input(encoder: Any) -> Generator[list[Tensor]]:
    """Keep the input of the attention of the last layer while the encoder runs."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        kept.append(options["hidden_states"] if "hidden_states" in options else args[0])

    handle = encoder.layers[-1].attn.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


def normalise(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """Normalise RGB images ``(..., 3, H, W)`` in [0, 1]."""
    return (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(std).view(3, 1, 1)
