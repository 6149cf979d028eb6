# SPDX-License-Identifier: Apache-2.0
"""Extracted activations of a batch of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from diffeat.names.grammar import ActivationName
from diffeat.options import ExtractionOptions
from diffeat.schedule import NoiseLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesMeta:
    """Origin of features.

    Attributes:
        options: Options of the extraction, with the size in pixels and one prompt per image.
        noise_levels: Noise of the denoiser's input, one entry per timestep.
        image_hashes: SHA-256 of each image as the model saw it.
        model: Class of the denoiser or, if known, its name.
        revision: Requested revision, or ``None``.
        dtype: Compute dtype.
    """

    options: ExtractionOptions
    noise_levels: tuple[NoiseLevel, ...]
    image_hashes: tuple[str, ...]
    model: str
    revision: str | None = None
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, eq=False)
class Features(Mapping[str, Tensor]):
    """Activations by name, in execution order.

    Images and token streams are ``(B, C, h, w)``, maps ``(B, heads, h, w, keys)`` with one head if the heads
    were averaged, text tokens ``(B, L, C)``. With several timesteps each name ends in ``@`` and the
    requested timestep. Token streams keep the model's memory layout, channels last.

    Attributes:
        tensors: Activations by name.
        meta: Origin of the features.
    """

    tensors: dict[str, Tensor]
    meta: FeaturesMeta

    def __getitem__(self, name: str | ActivationName) -> Tensor:
        return self.tensors[str(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def at(self, timestep: int) -> Features:
        """Features of one timestep, under plain names.

        Raises:
            LookupError: If the timestep was not requested.
        """
        meta = self.meta
        kept = tuple(level for level in meta.noise_levels if level.timestep == timestep)
        if not kept:
            raise LookupError(f"timestep must be one of {list(meta.options.timesteps)}, got {timestep}")
        if len(meta.noise_levels) == 1:
            return self
        end = f"@{timestep}"
        found = {name.removesuffix(end): value for name, value in self.items() if name.endswith(end)}
        options = replace(meta.options, timesteps=(timestep,))
        return Features(found, replace(meta, options=options, noise_levels=kept))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Features:
        """Move and cast all activations."""
        return Features({n: v.to(device=device, dtype=dtype) for n, v in self.items()}, self.meta)

    def check_spatial(self) -> None:
        """Refuse activations without channels on the image.

        Raises:
            ValueError: If an activation is not ``(B, C, h, w)``.
        """
        for name, value in self.items():
            _check_spatial(name, value)

    def resize(self, side: int | tuple[int, int], *, mode: str = "bilinear") -> Features:
        """Resize all spatial activations to one size.

        Args:
            side: Cells, a side or ``(height, width)``.
            mode: ``"bilinear"``, ``"bicubic"``, ``"nearest"`` or ``"area"``.

        Raises:
            ValueError: If an activation is not ``(B, C, h, w)``.
        """
        size = (side, side) if isinstance(side, int) else side
        return Features({n: _resized(n, v, size, mode) for n, v in self.items()}, self.meta)

    def concat(
        self, names: Iterable[str | ActivationName] | None = None, *, side: int | None = None
    ) -> Tensor:
        """Concatenate activations along the channels.

        Args:
            names: Names in order; all in execution order if ``None``.
            side: Cells of the shorter side of the result; the largest among the activations if ``None``.

        Returns:
            ``(B, sum of channels, h, w)``; smaller activations are enlarged bilinearly.

        Raises:
            KeyError: If a name is missing.
            ValueError: If an activation is not ``(B, C, h, w)``.

        Source: authors' scripts, which enlarge and concatenate without normalisation.
        """
        chosen = {str(name): self[name] for name in (self if names is None else names)}
        Features(chosen, self.meta).check_spatial()
        if not chosen:
            raise ValueError("concat needs at least one activation, got none")
        largest = max((tuple(v.shape[2:]) for v in chosen.values()), key=lambda s: s[0] * s[1])
        if side is not None:
            short = min(largest)
            largest = tuple(round(side * length / short) for length in largest)
        size = (largest[0], largest[1])
        return torch.cat([_resized(n, v, size, "bilinear") for n, v in chosen.items()], dim=1)


def _check_spatial(name: str, value: Tensor) -> None:
    if value.ndim != 4:
        raise ValueError(
            f"{name} must be (batch, channels, height, width) here, got {tuple(value.shape)}: maps and text "
            "tokens have no channels on the image"
        )


def _resized(name: str, value: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    _check_spatial(name, value)
    if tuple(value.shape[2:]) == size:
        return value
    align = False if mode in {"bilinear", "bicubic"} else None
    return F.interpolate(value, size, mode=mode, align_corners=align)
