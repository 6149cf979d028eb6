# SPDX-License-Identifier: Apache-2.0
"""The token grid of a denoiser's call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffeat.names.taps import Tap


@dataclass(frozen=True, slots=True)
class Geometry:
    """Layout of image tokens.

    Attributes:
        grid: Sides of the latent in tokens, ``(h, w)`` or ``(frames, h, w)``.
        tokens: Image tokens of the sequence, at least ``prod(grid)``: editing models append reference images
            to the latent.
    """

    grid: tuple[int, ...]
    tokens: int

    @classmethod
    def of(cls, *grid: int) -> Geometry:
        """A grid without reference images."""
        return cls(grid, prod(grid))

    def rows(self, length: int, *, text_first: bool) -> slice:
        """Return the slice of the latent's tokens in a sequence of ``length`` image and text tokens."""
        start = length - self.tokens if text_first else 0
        return slice(start, start + prod(self.grid))

    def text(self, length: int, *, text_first: bool) -> slice:
        """Return the slice of the text tokens in a sequence of ``length`` image and text tokens."""
        return slice(0, length - self.tokens) if text_first else slice(self.tokens, length)

    def spread(self, tokens: Tensor, tap: Tap) -> Tensor:
        """Arrange tokens on the grid.

        Args:
            tokens: ``(B, N, C)``; text tokens and reference images are dropped.
            tap: Tap of the tokens.

        Returns:
            ``(B, C, *grid)``, a copy. The channels of a cell are adjacent in memory, as in the model:
            another layout takes longer than the copy itself.

        Raises:
            ValueError: If there are fewer tokens than the grid has.
        """
        if tokens.ndim != 3 or tokens.shape[1] < self.tokens:
            raise ValueError(
                f"{tap.name} must carry (batch, at least {self.tokens} tokens, channels) for a grid of "
                f"{self.grid}, got {tuple(tokens.shape)}; take it by its module path if it is not spatial"
            )
        rows = self.rows(tokens.shape[1], text_first=tap.text_first)
        own = tokens[:, rows].clone(memory_format=torch.contiguous_format)  # (B, N, C)
        return own.transpose(1, 2).unflatten(2, self.grid)  # (B, C, *grid)


def arguments(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``model`` by name."""
    # the method of the class: offloading replaces the bound method of the instance
    signature = inspect.signature(type(model).forward)
    return dict(signature.bind_partial(model, *args, **kwargs).arguments)


def geometry_of_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Geometry | None:
    """Read the token grid from a call of a denoiser.

    The number of tokens is not used: a grid need not be square.

    Returns:
        The grid, or ``None`` if the call does not determine it.
    """
    named = arguments(model, args, kwargs)
    stream = named.get("hidden_states", named.get("sample"))
    if not isinstance(stream, Tensor):
        return None
    if isinstance(named.get("img_ids"), Tensor):
        return _from_ids(named["img_ids"], stream.shape[1])
    if named.get("img_shapes"):
        return _from_shapes(named["img_shapes"], stream.shape[1])
    if stream.ndim < 4:
        return None
    patch = getattr(getattr(model, "config", None), "patch_size", None) or 1
    sides = stream.shape[2:]
    patches = (
        tuple(cast("Sequence[int]", patch)) if isinstance(patch, Sequence) else (int(patch),) * len(sides)
    )
    if len(patches) != len(sides):
        return None
    return Geometry.of(*(side // step for side, step in zip(sides, patches, strict=True)))


def _from_ids(ids: Tensor, tokens: int) -> Geometry | None:
    """Read the grid from position ids, ``(N, 3)`` or ``(B, N, 4)``: image, row, column and more."""
    if ids.is_meta:
        return None
    ids = ids if ids.ndim == 2 else ids[0]
    latent = ids[ids[:, 0] == ids[0, 0]]  # reference images carry another first id
    h, w = (int(latent[:, axis].max() - latent[:, axis].min()) + 1 for axis in (1, 2))
    return Geometry((h, w), tokens) if h * w == len(latent) else None


def _from_shapes(shapes: Any, tokens: int) -> Geometry:
    first = shapes[0]
    first = first if isinstance(first[0], int) else first[0]
    frames, h, w = (int(side) for side in first)
    return Geometry((h, w) if frames == 1 else (frames, h, w), tokens)
