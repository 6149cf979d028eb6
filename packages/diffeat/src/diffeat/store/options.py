# SPDX-License-Identifier: Apache-2.0
"""Options of stored features, checked when they are made; this module loads no torch."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of a subclass
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

__all__ = ["StoreOptions", "StoredDtype"]

StoredDtype = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """What is kept of features: pooled first, then projected, then rounded.

    Attributes:
        dtype: Dtype of the features as they are read.
        pool: Average or maximum over the image, or the number of cells per side of a grid of averages.
        pca: Number of principal components kept of the channels. They are fitted once, on images spread
            evenly over the first ones given to the store, and kept with it.
        quantize: Whether to keep 8-bit integers, with a scale for each image and channel.
    """

    dtype: StoredDtype = "float16"
    pool: Literal["mean", "max"] | int | None = None
    pca: int | None = None
    quantize: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in {"float16", "float32"}:
            raise ValueError(f"dtype of a store must be 'float16' or 'float32', got {self.dtype!r}")
        is_grid = isinstance(self.pool, int) and not isinstance(self.pool, bool) and self.pool >= 1
        if not is_grid and self.pool not in {"mean", "max", None}:
            raise ValueError(f"pool must be 'mean', 'max' or a number of cells from 1, got {self.pool!r}")
        if self.pca is not None and self.pca < 1:
            raise ValueError(f"pca must be at least 1, got {self.pca}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return options from the values of :meth:`to_dict`.

        Raises:
            ValueError: If a key is unknown or a value does not fit.
        """
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"options of a store are {', '.join(known)}, got {unknown[0]!r}")
        return cls(**values)
