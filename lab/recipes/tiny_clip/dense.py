# SPDX-License-Identifier: Apache-2.0
"""Labels for every pixel from a model trained on whole images: which last block finds the things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from shapeworld.vocabulary import Attribute
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_clip.network import first_tokens, queries_keys_values

Map = Literal["qk", "qq", "kk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBlock:
    """What the last block does instead of its own forward.

    Attributes:
        maps: Attention maps that are summed; without any, each token keeps its own value.
        middle: Blocks, counted from 1, whose maps make up half of the mixture.
        residual: Whether the block's input is added.
        ffn: Whether the feed-forward half runs.
    """

    maps: tuple[Map, ...]
    middle: tuple[int, ...] = ()
    residual: bool = True
    ffn: bool = False


VARIANTS = {
    "vanilla": LastBlock(maps=("qk",), ffn=True),
    "q-k": LastBlock(maps=("qk",)),
    "q-q + k-k, FFN": LastBlock(maps=("qq", "kk"), ffn=True),
    "q-q + k-k": LastBlock(maps=("qq", "kk")),
    "q-q + k-k, middle 3 4 5": LastBlock(maps=("qq", "kk"), middle=(3, 4, 5)),
    "q-k, no residual": LastBlock(maps=("qk",), residual=False),
    "q-q, no residual": LastBlock(maps=("qq",), residual=False),
    "q-q + k-k, no residual": LastBlock(maps=("qq", "kk"), residual=False),
    "q-q + k-k, middle 3 4 5, no residual": LastBlock(maps=("qq", "kk"), middle=(3, 4, 5), residual=False),
    "value, residual": LastBlock(maps=()),
    "value, no residual": LastBlock(maps=(), residual=False),
}


def dense_embeddings(
    visual: VisionTransformer, images: Tensor, variants: Mapping[str, LastBlock] = VARIANTS
) -> dict[str, Tensor]:
    """Return the tokens of all patches in the space of the text, for each variant of the last block.

    Args:
        visual: The visual tower, read only.
        images: ``(B, 3, H, W)`` of the tower's own size.
        variants: Variants by name.

    Returns:
        For each name ``(B, patches, embed_dim)`` of unit norm.
    """
    blocks = list(visual.transformer.resblocks)
    inputs = [first_tokens(visual, images)]
    for block in blocks[:-1]:
        inputs.append(block(inputs[-1]))
    out: dict[str, Tensor] = {}
    for name, variant in variants.items():
        tokens = visual.ln_post(_last_block(blocks, inputs, variant)[:, 1:]) @ visual.proj
        out[name] = F.normalize(tokens, dim=-1)
    return out


def _last_block(blocks: list[ResidualAttentionBlock], inputs: list[Tensor], variant: LastBlock) -> Tensor:
    block, x = blocks[-1], inputs[-1]
    q, k, value = queries_keys_values(block, x)
    if variant.maps:
        mixed = _attend(q, k, value, variant.maps)
        if variant.middle:
            parts = [
                _attend(*queries_keys_values(blocks[m - 1], inputs[m - 1])[:2], value, variant.maps)
                for m in variant.middle
            ]
            mixed = 0.5 * mixed + 0.5 * torch.stack(parts).mean(dim=0)
    else:
        mixed = value
    y = block.attn.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, N, width)
    y = x + y if variant.residual else y
    return y + block.mlp(block.ln_2(y)) if variant.ffn else y


def _attend(q: Tensor, k: Tensor, value: Tensor, maps: tuple[Map, ...]) -> Tensor:
    """Return the sum over maps of the attention on the values, ``(B, heads, N, head_dim)``."""
    pairs = {"qk": (q, k), "qq": (q, q), "kk": (k, k)}
    return sum(
        (F.scaled_dot_product_attention(*pairs[kind], value) for kind in maps), torch.zeros_like(value)
    )


def segment(tokens: Tensor, names: Tensor, ground: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return labels, and labels among the names only, each ``(B, side, side)`` int64.

    Args:
        tokens: Unit-norm patch tokens, ``(B, patches, embed_dim)``, of a square grid.
        names: Unit-norm text embeddings of the classes 1, 2, ..., ``(classes, embed_dim)``.
        ground: The same of words for the ground, class 0; the best of them counts.
        side: Pixels.
    """
    grid = int(tokens.shape[1] ** 0.5)
    scores = (tokens @ torch.cat([ground, names]).T).transpose(1, 2).unflatten(-1, (grid, grid))
    scores = F.interpolate(scores, size=(side, side), mode="bilinear")  # (B, words, side, side)
    best_ground, things = scores[:, : len(ground)].amax(dim=1, keepdim=True), scores[:, len(ground) :]
    return torch.cat([best_ground, things], dim=1).argmax(dim=1), things.argmax(dim=1) + 1


def mean_iou(labels: Tensor, truth: Tensor, num_classes: int) -> float:
    """Return the mean over the classes that occur of intersection over union, over all pixels together."""
    pairs = torch.bincount((truth * num_classes + labels).flatten(), minlength=num_classes**2)
    confusion = pairs.view(num_classes, num_classes).double()
    both = confusion.diagonal()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - both
    return (both / union)[union > 0].mean().item()


def dense_figures(
    tokens: Mapping[str, Tensor],
    words: Mapping[Attribute, Tensor],
    ground: Tensor,
    truth: Mapping[Attribute, Tensor],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return for each attribute and variant the mIoU and the accuracy on the things' pixels, in percent.

    Args:
        tokens: Result of :func:`dense_embeddings`.
        words: Text embeddings of the names of each attribute.
        ground: Text embeddings of the backgrounds.
        truth: ``(B, side, side)`` int64, 0 ground.
    """
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for attribute, names in words.items():
        wanted = truth[attribute]
        rows: dict[str, dict[str, float]] = {}
        for variant, patches in tokens.items():
            labels, among_things = segment(patches, names, ground, wanted.shape[-1])
            hits = (among_things == wanted)[wanted > 0].double().mean().item()
            rows[variant] = {
                "miou": round(100 * mean_iou(labels, wanted, len(names) + 1), 2),
                "accuracy_on_things": round(100 * hits, 2),
            }
        figures[attribute] = rows
    return figures
