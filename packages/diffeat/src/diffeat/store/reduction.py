# SPDX-License-Identifier: Apache-2.0
"""What is kept of features: pooling, principal components, 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from diffeat.store.errors import StoreError
from diffeat.store.options import StoreOptions
from diffeat.store.place import Place

FOLDER = "pca"
_LEVELS = 127
_SCALE = ".scale"


def tensors_of(name: str, *, quantized: bool) -> tuple[str, ...]:
    """Names of the stored tensors of an activation."""
    return (name, name + _SCALE) if quantized else (name,)


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal components of an activation.

    Attributes:
        mean: ``(C,)``, fp32.
        components: ``(K, C)``, fp32, orthonormal, the first of the largest variance.
    """

    mean: Tensor
    components: Tensor

    def project(self, value: Tensor) -> Tensor:
        """Project ``(B, C, ...)`` to ``(B, K, ...)``."""
        moved = value.float().movedim(1, -1) - self.mean
        return (moved @ self.components.T).movedim(-1, 1)

    @classmethod
    def fit(cls, name: str, value: Tensor, num_components: int) -> Basis:
        """Fit components to ``(B, C, ...)``.

        Raises:
            ValueError: If there are fewer samples or channels than components.
        """
        samples = value.float().movedim(1, -1).flatten(0, -2).numpy()
        most = min(samples.shape)
        if num_components > most:
            raise ValueError(
                f"pca must be at most {most} for {name}, with {samples.shape[1]} channels and "
                f"{samples.shape[0]} samples from {len(value)} images, got {num_components}"
            )
        found = cast("Any", PCA(num_components, svd_solver="full")).fit(samples)
        return cls(
            torch.from_numpy(np.ascontiguousarray(found.mean_)),
            torch.from_numpy(np.ascontiguousarray(found.components_)),
        )


class Reduction:
    """Turns activations into stored tensors.

    Args:
        place: Folder of the store, which keeps the principal components.
        options: What is kept.
    """

    def __init__(self, place: Place, options: StoreOptions) -> None:
        self._place = place
        self.options = options
        self._bases: dict[str, Basis] = {}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Activations whose principal components are wanted and not there."""
        if self.options.pca is None:
            return []
        return [name for name in names if not self._place.exists(f"{FOLDER}/{name}.safetensors")]

    def fit(self, values: Mapping[str, Sequence[Tensor]]) -> None:
        """Fit and write principal components.

        Args:
            values: Batches of pooled activations ``(B, C, h, w)`` by name.
        """
        assert self.options.pca is not None
        for name, batches in values.items():
            basis = Basis.fit(name, torch.cat(list(batches)), self.options.pca)
            data = {"mean": basis.mean.numpy(), "components": basis.components.numpy()}
            self._place.write(f"{FOLDER}/{name}.safetensors", save(data))

    def clear(self) -> None:
        """Discard the principal components."""
        self._bases.clear()
        self._place.remove(FOLDER)

    def basis(self, name: str) -> Basis:
        """Principal components of an activation, as they are in the store."""
        if name not in self._bases:
            found = load(self._place.read(f"{FOLDER}/{name}.safetensors"))
            self._bases[name] = Basis(torch.from_numpy(found["mean"]), torch.from_numpy(found["components"]))
        return self._bases[name]

    def encode(self, name: str, value: Tensor) -> dict[str, NDArray[Any]]:
        """Stored tensors of a batch.

        Args:
            name: Name of the activation.
            value: ``(B, ...)``, floating; ``(B, C, h, w)`` if it is pooled or projected.

        Raises:
            StoreError: If a value exceeds the dtype.
            ValueError: If an activation has no channels on the image and is to be pooled or projected.
        """
        value = self.pooled(name, value)
        if self.options.pca is not None:
            value = self.basis(name).project(value)
        kind = getattr(torch, self.options.dtype)
        cast_down = value.to(kind)
        if bool((cast_down.isinf() & ~value.isinf()).any()):
            peak = float(value.abs().max())
            raise StoreError(
                f"{name} reaches {peak:.3g}, which {self.options.dtype} cannot hold; store float32 instead"
            )
        if not self.options.quantize:
            return {name: np.ascontiguousarray(cast_down.numpy())}
        scale = value.float().flatten(2).abs().amax(2) / _LEVELS  # (B, C)
        whole = value.float() / scale.clamp_min(1e-30).reshape(*scale.shape, *(1,) * (value.ndim - 2))
        rounded = whole.round().nan_to_num().clamp(-_LEVELS, _LEVELS).to(torch.int8)
        return {name: np.ascontiguousarray(rounded.numpy()), name + _SCALE: scale.numpy()}

    def pooled(self, name: str, value: Tensor) -> Tensor:
        """Pool activations ``(B, C, h, w)``, or return any as they are if nothing is pooled or projected.

        Raises:
            ValueError: If an activation has no channels on the image.
        """
        pool = self.options.pool
        if pool is None and self.options.pca is None:
            return value
        if value.ndim != 4:
            raise ValueError(
                f"{name} must be (channels, height, width) to be pooled or projected, got "
                f"{tuple(value.shape[1:])}"
            )
        if pool is None:
            return value
        if pool == "max":
            return value.float().amax((2, 3), keepdim=True)
        return F.adaptive_avg_pool2d(value.float(), 1 if pool == "mean" else pool)


def decode(name: str, read: Callable[[str], NDArray[Any]], options: StoreOptions) -> NDArray[Any] | None:
    """One image's activation from its stored tensors; ``None`` if it is lost.

    Args:
        name: Name of the activation.
        read: Reads one of its stored tensors.
        options: What is kept.
    """
    value = read(name)
    if not options.quantize:
        # all of a lost row are NaN; looking at one value is enough for nearly every other row
        return None if np.isnan(value.flat[0]) and np.isnan(value).all() else value
    scale = read(name + _SCALE)
    if np.isnan(scale).all():
        return None
    return (value * scale.reshape(-1, *(1,) * (value.ndim - 1))).astype(options.dtype)
