# SPDX-License-Identifier: Apache-2.0
"""The network in open_clip's own configuration, and the heads that are thrown away after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.tiny_clip.scenes import ANY, MAX_THINGS, SIDE, Facts
from recipes.tiny_clip.tokens import CONTEXT_LENGTH, VOCABULARY

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
# classes of each head
GROUPS = {
    "shape": len(SHAPES),
    "colour": len(COLOURS),
    "material": len(MATERIALS),
    "ground": len(BACKGROUNDS),
    "colour_shape": len(COLOURS) * len(SHAPES),
    "material_shape": len(MATERIALS) * len(SHAPES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the two towers are.

    Attributes:
        embed_dim: Channels of the common space.
        layers: Blocks of the visual tower.
        width: Channels of the visual tower.
        head_width: Channels of an attention head of the visual tower.
        text_layers: Blocks of the text tower.
        text_width: Channels of the text tower.
        text_heads: Attention heads of the text tower.
    """

    embed_dim: int = 128
    layers: int = 6
    width: int = 160
    head_width: int = 32
    text_layers: int = 2
    text_width: int = 128
    text_heads: int = 4

    def model_config(self) -> dict[str, Any]:
        """Return the part ``model_cfg`` of ``open_clip_config.json``."""
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": SIDE,
                "patch_size": 8,
                "layers": self.layers,
                "width": self.width,
                "head_width": self.head_width,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": len(VOCABULARY),
                "hf_tokenizer_name": "tiny-shapes",
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
            },
        }

    def build(self) -> CLIP:
        """Return the untrained network."""
        config = self.model_config()
        return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


class Heads(nn.Module):
    """Linear classifiers of the class token, one for each group of names.

    Args:
        width: Channels of the class token.

    Shape:
        - pooled: ``(B, width)``
        - output: for each group ``(B, classes)``
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linears = nn.ModuleDict({name: nn.Linear(width, size) for name, size in GROUPS.items()})

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Return the scores of every head."""
        return {name: linear(pooled) for name, linear in self.linears.items()}


def to_input(images: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device | str = "cpu") -> Tensor:
    """Return ``(B, 3, H, W)`` normalised fp32 from ``(B, H, W, 3)`` uint8."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def pooled_token(model: CLIP, images: Tensor) -> Tensor:
    """Return the class token after the last normalisation, before the projection, ``(B, width)``.

    The tower's own forward, but for two savings: attention is written out, because the fused one is slow in
    bf16 on CPUs, and the last block is computed for the class token alone.
    """
    visual = model.visual
    x = first_tokens(visual, images)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = _run_block(block, x, x)
    return visual.ln_post(_run_block(last, x[:, :1], x)[:, 0])


def _run_block(block: ResidualAttentionBlock, x: Tensor, everything: Tensor) -> Tensor:
    """Return a block's output for its first tokens ``x``, ``(B, n, width)``."""
    attention = block.attn
    q, k, v = queries_keys_values(block, everything)
    q = q[:, :, : x.shape[1]]  # the first tokens
    B, heads, n, head_dim = q.shape
    q, k, v = (y.reshape(B * heads, -1, head_dim) for y in (q, k, v))
    mixed = torch.softmax(torch.bmm(q * head_dim**-0.5, k.transpose(1, 2)), dim=-1).bmm(v)
    x = x + attention.out_proj(mixed.view(B, heads, n, head_dim).transpose(1, 2).flatten(2))
    return x + block.mlp(block.ln_2(x))


def queries_keys_values(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the attention of a block makes of its input, each ``(B, heads, N, head_dim)``."""
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def text_embedding(model: CLIP, tokens: Tensor) -> Tensor:
    """Return unit-norm embeddings of sentences, ``(B, embed_dim)``; no time is spent on common padding.

    Args:
        model: Its text tower is run.
        tokens: ``(B, CONTEXT_LENGTH)`` int64.
    """
    ends = tokens.argmax(dim=1)
    longest = int(ends.max()) + 1
    x = model.token_embedding(tokens[:, :longest]) + model.positional_embedding[:longest]
    x = model.transformer(x, attn_mask=model.attn_mask[:longest, :longest])
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    return F.normalize(x @ model.text_projection, dim=-1)


def first_tokens(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return what the first block gets, ``(B, 1 + patches, width)``, class token first."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, patches, width)
    start = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    return visual.ln_pre(torch.cat([start, patches], dim=1) + visual.positional_embedding.to(patches.dtype))


def targets(facts: Facts) -> dict[str, Tensor]:
    """Return for each head the share of things of each class, ``(B, classes)``; zeros for bare grounds."""
    shape, colour, material = (facts.things[..., i] for i in range(3))  # (B, MAX_THINGS)
    unnamed = shape == ANY
    labels = {
        "shape": shape,
        "colour": colour,
        "material": material,
        "ground": np.repeat(facts.ground[:, None], MAX_THINGS, axis=1),
        "colour_shape": np.where(unnamed | (colour == ANY), ANY, colour * len(SHAPES) + shape),
        "material_shape": np.where(unnamed | (material == ANY), ANY, material * len(SHAPES) + shape),
    }
    out: dict[str, Tensor] = {}
    for name, values in labels.items():
        one_hot = np.eye(GROUPS[name] + 1, GROUPS[name], dtype=np.float32)[values].sum(axis=1)
        out[name] = torch.from_numpy(one_hot / np.maximum(one_hot.sum(axis=1, keepdims=True), 1))
    return out


def classification_losses(logits: dict[str, Tensor], facts: Facts) -> dict[str, Tensor]:
    """Return for each head the cross-entropy over the images that show anything of its group, scalars."""
    losses: dict[str, Tensor] = {}
    wanted = targets(facts)
    for name, scores in logits.items():
        share = wanted[name].to(scores.device)
        losses[name] = -(share * F.log_softmax(scores.float(), dim=-1)).sum() / share.sum().clamp(min=1)
    return losses


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric contrastive loss and its value at chance, scalars.

    Args:
        image: Unit-norm embeddings, ``(B, embed_dim)``.
        text: The same of the captions.
        scale: Factor on the cosines.
        left_out: ``(B texts, B images)`` bool, pairs that are not to be pushed apart; the diagonal is not
            looked at.
    """
    logits = scale * image.float() @ text.float().T  # (images, texts)
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    left_out = left_out.T & ~own
    logits = logits.masked_fill(left_out, float("-inf"))
    labels = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    counts = (~left_out).float()
    chance = (counts.sum(dim=0).log().mean() + counts.sum(dim=1).log().mean()) / 2
    return loss, chance
