# SPDX-License-Identifier: Apache-2.0
"""Layers and stages: one dictionary per stage, shared by its layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from common_kernels import Backend, KNNDictionary, knn_dictionary
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semanir.functional import window_partition, window_regions, window_reverse
from semanir.modules.attention import KeySemanticAttention


class Layer(nn.Module):
    """Attention and MLP, each a residual branch.

    Args:
        dim: Channels ``C``.
        attention: The attention of this layer.
        mlp_ratio: Hidden width of the MLP over ``dim``.
        norm: ``"post"``: ``x + LN(f(x))``; ``"pre"``: ``x + f(LN(x))``.

    Shape:
        - x and output: ``(windows, N, C)``

    Source: SemanIR, arXiv 2405.20008, framework figure; the paper does not show the norms.
    """

    def __init__(
        self, dim: int, attention: KeySemanticAttention, *, mlp_ratio: float, norm: Literal["post", "pre"]
    ) -> None:
        super().__init__()
        hidden_dim = int(dim * mlp_ratio)
        self.is_post_norm = norm == "post"
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor, dictionary: KNNDictionary, *, backend: Backend = "auto") -> Tensor:  # noqa: D102
        if self.is_post_norm:
            x = x + self.norm1(self.attn(x, dictionary, backend=backend))
            return x + self.norm2(self.mlp(x))
        x = x + self.attn(self.norm1(x), dictionary, backend=backend)
        return x + self.mlp(self.norm2(x))


class ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions.

    Args:
        dim: Channels ``C``.

    Shape:
        - x and output: ``(B, C, H, W)``
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.body(x)


@dataclass(frozen=True, slots=True)
class DictionaryOptions:
    """How a stage builds its dictionary.

    Attributes:
        similarity: How tokens are compared.
        force_self: Whether every token lists itself.
    """

    similarity: Literal["dot", "cosine", "l2"] = "dot"
    force_self: bool = True


class Stage(nn.Module):
    """Convolution blocks, dictionary, layers that share it, a 3x3 convolution, and the way around.

    Args:
        layers: The layers, in order.
        dim: Channels ``C``.
        window_size: Side ``M`` of a window.
        shifts: Roll of each layer in tokens. Layers of equal shift share one dictionary.
        num_conv_blocks: Residual convolution blocks in front of the dictionary.
        options: How the dictionary is built.

    Shape:
        - x and output: ``(B, C, H, W)``; both sides multiples of ``M``

    Attributes:
        gradient_checkpointing: Whether layers keep no activations for the gradient and compute them again.

    Source: SemanIR, arXiv 2405.20008, framework figure; shifts and convolution blocks are ours.
    """

    def __init__(
        self,
        layers: list[Layer],
        *,
        dim: int,
        window_size: int,
        shifts: list[int],
        num_conv_blocks: int = 0,
        options: DictionaryOptions | None = None,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shifts = shifts
        self.options = options or DictionaryOptions()
        self.gradient_checkpointing = False
        self.local = nn.Sequential(*(ConvBlock(dim) for _ in range(num_conv_blocks)))
        self.layers = nn.ModuleList(layers)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, *, k: int, backend: Backend = "auto") -> Tensor:  # noqa: D102
        x = self.local(x)
        H, W = x.shape[-2:]
        # every dictionary comes from the stage input, so that no layer searches again
        dictionaries = {shift: self.build_dictionary(x, shift, k) for shift in dict.fromkeys(self.shifts)}
        shift = self.shifts[0]
        tokens = window_partition(_roll(x, -shift), self.window_size)  # (B * windows, N, C)
        run = partial(checkpoint, use_reentrant=False) if self.gradient_checkpointing else _call
        for layer, wanted in zip(self.layers, self.shifts, strict=True):
            if wanted != shift:
                y = window_reverse(tokens, self.window_size, H, W)
                tokens = window_partition(_roll(y, shift - wanted), self.window_size)
                shift = wanted
            tokens = run(layer, tokens, dictionaries[shift], backend=backend)
        y = _roll(window_reverse(tokens, self.window_size, H, W), shift)
        return x + self.conv(y)

    def build_dictionary(self, x: Tensor, shift: int, k: int) -> KNNDictionary:
        """Return the dictionary of the windows of ``x`` rolled by ``shift`` tokens.

        Args:
            x: Stage input, ``(B, C, H, W)``.
            shift: Roll up and left, in tokens; 0 for none.
            k: Keys per token.
        """
        H, W = x.shape[-2:]
        regions = window_regions(H, W, self.window_size, shift, x.device) if shift else None
        tokens = window_partition(_roll(x.detach(), -shift), self.window_size)
        return knn_dictionary(
            tokens,
            k,
            similarity=self.options.similarity,
            force_self=self.options.force_self,
            regions=regions,
        )


def _call(layer: nn.Module, *inputs: object, **options: object) -> Tensor:
    return layer(*inputs, **options)


def _roll(x: Tensor, amount: int) -> Tensor:
    return torch.roll(x, (amount, amount), dims=(-2, -1)) if amount else x
