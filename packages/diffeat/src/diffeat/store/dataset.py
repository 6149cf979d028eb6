# SPDX-License-Identifier: Apache-2.0
"""Stored features for training loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from diffeat.names.grammar import Names
from diffeat.store.store import FeatureStore


class FeatureDataset(Dataset[Any]):
    """Stored features, an image at a time; loaders may read it with several workers.

    Args:
        store: The store, or its address.
        names: Names or globs; all if ``None``.
        rows: Rows of the images, in order; all that have the activations if ``None``.
        targets: Target of each row, such as a class or a mask; items are pairs then.
        transform: Function of the mapping from name to ``(C, h, w)`` of each image.

    Raises:
        ValueError: If there are not as many targets as rows.

    Examples:
        >>> data = FeatureDataset("features", "*-cross-q", targets=masks)  # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=4)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: FeatureStore | str,
        names: Names | None = None,
        *,
        rows: Sequence[int] | None = None,
        targets: Sequence[Any] | None = None,
        transform: Callable[[dict[str, Tensor]], Any] | None = None,
    ) -> None:
        self.store = FeatureStore(store) if isinstance(store, str) else store
        self.names = self.store.match(names)
        self.rows = self.store.ledger.complete_rows(self.names) if rows is None else list(rows)
        if targets is not None and len(targets) != len(self.rows):
            raise ValueError(f"targets must be one per row, got {len(targets)} for {len(self.rows)} rows")
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        """The activations of one image by name, with its target if there are any."""
        row = self.rows[index]
        features: Any = {name: self.store.read(name, row) for name in self.names}
        if self.transform is not None:
            features = self.transform(features)
        return features if self.targets is None else (features, self.targets[index])
