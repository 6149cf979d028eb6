# SPDX-License-Identifier: Apache-2.0
"""Parts: features of one batch in a file, until the rows around it are there and all go to the arrays.

A shard of an array holds many images and can only be written as a whole. So a batch is kept in a file of its
own first, and a killed run loses at most the batch at work.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common_kernels.runtime.files import remove_temporary_files
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load, save

from diffeat.store.arrays import SHARD_ROWS, FeatureArrays
from diffeat.store.ledger import Item, Ledger, Part
from diffeat.store.place import Place
from diffeat.store.reduction import tensors_of

FOLDER = "parts"
LOCK = "arrays.lock"
Values = Mapping[str, NDArray[Any]]


class Parts:
    """Parts of a store.

    Args:
        place: Folder of the store.
        ledger: Its ledger.
        arrays: Its arrays.
    """

    def __init__(self, place: Place, ledger: Ledger, arrays: FeatureArrays) -> None:
        self._place = place
        self._ledger = ledger
        self._arrays = arrays

    def write(self, items: Sequence[Item], names: Iterable[str], values: Values) -> None:
        """Write a batch and note it.

        Args:
            items: The images of the batch.
            names: Activations.
            values: Stored tensors ``(B, ...)`` by name.
        """
        file = f"{items[0].row:08d}-{uuid.uuid4().hex[:12]}.safetensors"
        self._place.write(f"{FOLDER}/{file}", save(dict(values)))
        self._ledger.mark(file, items, {name: tuple(values[name].shape[1:]) for name in names})

    def read(self, name: str, tensor: str, row: int) -> NDArray[Any] | None:
        """One row of a stored tensor; ``None`` if no part has it.

        Args:
            name: Activation.
            tensor: Name of one of its stored tensors.
            row: Row of the image.
        """
        for part in self._ledger.parts_of(row):
            if name in part.names:
                try:
                    return self._rows(part, tensor, [part.places[row]])[0]
                except FileNotFoundError:  # another process moved it to the arrays just now
                    return None
        return None

    def _rows(self, part: Part, tensor: str, places: Sequence[int]) -> NDArray[Any]:
        path = f"{FOLDER}/{part.file}"
        if not self._place.is_local:
            return load(self._place.read(path))[tensor][list(places)]
        if not os.path.exists(self._place.path(path)):
            raise FileNotFoundError(path)
        with safe_open(self._place.path(path), framework="numpy") as file:
            values = file.get_slice(tensor)
            return np.stack([values[at] for at in places])

    def move(self, *, below: int | None = None, everything: bool = False) -> None:
        """Move rows from parts to the arrays.

        A shard is written as a whole, so rows wait until its window is full, or until no more of them come
        and those that wait are a quarter of those that would be written again.

        Args:
            below: Row below which no more rows come; ``None`` after the last batch.
            everything: Whether to move all rows.
        """
        for window, waiting, filled in self._ledger.windows(SHARD_ROWS):
            start, stop = window * SHARD_ROWS, (window + 1) * SHARD_ROWS
            is_past = below is None or stop <= below
            if everything or waiting == SHARD_ROWS or (is_past and 4 * waiting >= filled - waiting):
                with self._place.locked(LOCK):
                    self._move(start, stop)

    def _move(self, start: int, stop: int) -> None:
        parts = self._ledger.parts(start, stop)  # under the lock: another process may have moved them
        quantized = self._arrays.options.quantize
        for name in sorted(frozenset[str]().union(*(part.names for part in parts))):
            holders = [part for part in parts if name in part.names]
            for tensor in tensors_of(name, quantized=quantized):
                self._move_tensor(tensor, holders, start, stop)
        for file in self._ledger.forget(parts):
            self._place.remove(f"{FOLDER}/{file}")

    def _move_tensor(self, tensor: str, parts: Sequence[Part], start: int, stop: int) -> None:
        first = self._rows(parts[0], tensor, [next(iter(parts[0].places.values()))])
        num_rows = max(self._ledger.num_rows, max(max(part.places) for part in parts) + 1)
        self._arrays.grow(tensor, first.shape[1:], first.dtype, num_rows)
        step = self._arrays.shard_rows(tensor)
        for low in range(start, min(stop, num_rows), step):
            found: dict[int, NDArray[Any]] = {}
            for part in parts:
                rows = [row for row in part.places if low <= row < low + step]
                if rows:
                    values = self._rows(part, tensor, [part.places[row] for row in rows])
                    found.update(zip(rows, values, strict=True))
            if found:
                self._arrays.write(tensor, low, min(low + step, num_rows), found)

    def clean(self) -> None:
        """Remove what killed processes left; only while no other process writes."""
        known = self._ledger.part_files()
        for file in self._place.names(FOLDER):
            if file.endswith(".safetensors") and not file.startswith(".") and file not in known:
                self._place.remove(f"{FOLDER}/{file}")
        if self._place.is_local and Path(self._place.path(FOLDER)).is_dir():
            remove_temporary_files(self._place.path(FOLDER))

    def clear(self) -> None:
        """Discard all parts."""
        self._place.remove(FOLDER)
