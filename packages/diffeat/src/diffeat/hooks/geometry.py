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

# Z-Image fills the image's tokens up to a multiple of this
_Z_IMAGE_STEP = 32


@dataclass(frozen=True, slots=True)
class Geometry:
    """Layout of image tokens.

    Attributes:
        grid: Sides of the latent in tokens, ``(h, w)`` or ``(frames, h, w)``; a single frame has no axis.
        tokens: Image tokens of the sequence, at least ``prod(grid)``: editing models append reference images
            to the latent, others fill it up.
        starts: First image token of each image of the batch, where texts of different lengths precede them.
    """

    grid: tuple[int, ...]
    tokens: int
    starts: tuple[int, ...] = ()

    @classmethod
    def of(cls, *grid: int) -> Geometry:
        """A grid without reference images."""
        return cls(grid[1:] if len(grid) == 3 and grid[0] == 1 else grid, prod(grid))

    def rows(self, length: int, tap: Tap) -> slice:
        """Return the slice of the latent's tokens in a sequence of ``length`` image and text tokens.

        Raises:
            ValueError: If the sequence does not hold the grid, or not at a known place.
        """
        self._check(length, tap)
        if length > self.tokens and len(set(self.starts)) > 1:
            raise ValueError(
                f"{tap.name} of several images needs texts of one length, got {sorted(set(self.starts))} "
                "tokens; take the images one by one"
            )
        start = length - self.tokens if tap.text_first else 0
        return slice(start, start + prod(self.grid))

    def text(self, length: int, tap: Tap) -> slice:
        """Return the slice of the text tokens in a sequence of ``length`` image and text tokens."""
        return slice(0, length - self.tokens) if tap.text_first else slice(self.tokens, length)

    def spread(self, tokens: Tensor, tap: Tap) -> Tensor:
        """Arrange tokens on the grid.

        Args:
            tokens: ``(B, N, C)``; text tokens and reference images are dropped.
            tap: Tap of the tokens.

        Returns:
            ``(B, C, *grid)``, a copy. The channels of a cell are adjacent in memory, as in the model:
            another layout takes longer than the copy itself.

        Raises:
            ValueError: If the tokens are not those of the grid, or not at a known place.
        """
        if tokens.ndim != 3:
            raise ValueError(
                f"{tap.name} must be (batch, tokens, channels), got {tuple(tokens.shape)}; take it by its "
                "module path if it is not spatial"
            )
        N = tokens.shape[1]
        if self.tokens < N and len(set(self.starts)) > 1:
            self._check(N, tap)
            each = [tokens[i, start : start + prod(self.grid)] for i, start in enumerate(self.starts)]
            own = torch.stack(each)
        else:
            own = tokens[:, self.rows(N, tap)].clone(memory_format=torch.contiguous_format)  # (B, N, C)
        return own.transpose(1, 2).unflatten(2, self.grid)  # (B, C, *grid)

    def _check(self, length: int, tap: Tap) -> None:
        if length < self.tokens or (length > self.tokens and tap.text_first is None):
            rule = "exactly" if tap.text_first is None else "at least"
            raise ValueError(
                f"{tap.name} must have {rule} {self.tokens} tokens for a grid of "
                f"{' x '.join(map(str, self.grid))}, got {length}; take it by its module path if it is not "
                "spatial, or if the order of text and image is not known for this model"
            )


def arguments(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``model`` by name."""
    # the method of the class: offloading replaces the bound method of the instance
    signature = inspect.signature(type(model).forward)
    return dict(signature.bind_partial(model, *args, **kwargs).arguments)


def stream_of_call(named: Mapping[str, Any]) -> Tensor | None:
    """The latents of a call, ``(B, ...)``; those of a list of equal ones have no values but their shape."""
    stream = named.get("hidden_states", named.get("sample", named.get("x")))
    if isinstance(stream, list) and stream and isinstance(stream[0], Tensor):
        latents = cast("list[Tensor]", stream)
        return latents[0].expand(len(latents), *latents[0].shape) if _is_same_shape(latents) else None
    return stream if isinstance(stream, Tensor) else None


def _is_same_shape(latents: Sequence[Tensor]) -> bool:
    return len({latent.shape for latent in latents}) == 1


def geometry_of_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Geometry | None:
    """Read the token grid from a call of a denoiser.

    The number of tokens is not used: a grid need not be square.

    Returns:
        The grid, or ``None`` if the call does not determine it.
    """
    named = arguments(model, args, kwargs)
    stream = stream_of_call(named)
    if stream is None:
        return None
    if isinstance(named.get("img_ids"), Tensor):
        return _from_ids(named["img_ids"], stream.shape[1])
    if named.get("img_shapes"):
        return _from_shapes(named["img_shapes"], stream.shape[1])
    if stream.ndim < 4:
        return _from_sides(named, stream)
    config = getattr(model, "config", None)
    sides, patches = _sides(stream, config), _patches(named, config, stream.ndim - 2)
    if patches is None or any(side % step for side, step in zip(sides, patches, strict=True)):
        return None
    found = Geometry.of(*(side // step for side, step in zip(sides, patches, strict=True)))
    if type(model).__name__ == "ZImageTransformer2DModel":
        return Geometry(found.grid, -(-found.tokens // _Z_IMAGE_STEP) * _Z_IMAGE_STEP)
    mask = named.get("encoder_attention_mask")
    if type(model).__name__ == "Lumina2Transformer2DModel" and isinstance(mask, Tensor) and not mask.is_meta:
        return Geometry(found.grid, found.tokens, tuple(mask.sum(dim=1).int().tolist()))
    return found


def _sides(stream: Tensor, config: Any) -> tuple[int, ...]:
    """Sides of a latent, frames first.

    Video latents are ``(B, C, T, H, W)`` or ``(B, T, C, H, W)``, which the config's channels tell apart.
    """
    if stream.ndim != 5:
        return tuple(stream.shape[2:])
    channels = getattr(config, "in_channels", None)
    is_frames_first = channels is not None and stream.shape[1] != channels and stream.shape[2] == channels
    return (stream.shape[1 if is_frames_first else 2], *stream.shape[3:])


def _patches(named: Mapping[str, Any], config: Any, count: int) -> tuple[int, ...] | None:
    """Latent cells per token and axis, or ``None`` if the config has another number of axes."""
    patch = named.get("patch_size") or getattr(config, "patch_size", None)
    if patch is None:
        every = getattr(config, "all_patch_size", None)
        patch = every[0] if every else 1
    if isinstance(patch, Sequence):
        found = tuple(map(int, cast("Sequence[int]", patch)))
        return found if len(found) == count else None
    frames = named.get("f_patch_size") or getattr(config, "patch_size_t", None) or 1
    return (int(frames), int(patch), int(patch)) if count == 3 else (int(patch),) * count


def _from_sides(named: Mapping[str, Any], stream: Tensor) -> Geometry | None:
    """Read the grid of packed tokens from sides among the arguments, as of LTX-Video."""
    sides = [named.get(name) for name in ("num_frames", "height", "width")]
    if stream.ndim != 3 or not all(isinstance(side, int) for side in sides):
        return None
    found = Geometry.of(*cast("list[int]", sides))
    return found if found.tokens == stream.shape[1] else None


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
    return Geometry(Geometry.of(*(int(side) for side in first)).grid, tokens)
