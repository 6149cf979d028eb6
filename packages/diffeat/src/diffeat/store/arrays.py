# SPDX-License-Identifier: Apache-2.0
"""The values of a store: sharded zarr arrays with a row per image, and the settings at their head."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ContainsGroupError
from zarr.storage import FsspecStore, LocalStore

from diffeat.store.errors import StoreError, disk_errors
from diffeat.store.options import StoreOptions
from diffeat.store.place import Place
from diffeat.store.settings import Settings

FOLDER = "features.zarr"
SHARD_ROWS = 256  # rows of the longest shard; the others have a power of two of them
_SHARD_BYTES = 2**28
_MARK = "diffeat"
_NOWHERE = 2**64 - 1  # offset of a row that a shard does not hold


class FeatureArrays:
    """A zarr group of format 3 with an array ``(images, ...)`` per stored tensor, many images to a shard.

    Args:
        place: Folder of the store.

    Raises:
        StoreError: If the address holds something else, or a store of another version.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.settings: Settings | None = None
        self._group: Any = None
        self._arrays: dict[str, Any] = {}
        self.refresh()

    @property
    def options(self) -> StoreOptions:
        """What is kept of the features."""
        assert self.settings is not None  # prepared before
        return self.settings.storage

    def _zarr(self) -> Any:
        if self._place.is_local:
            return LocalStore(self._place.path(FOLDER))
        return FsspecStore.from_url(f"{self._place.url}/{FOLDER}", storage_options=self._place.options)

    def refresh(self) -> None:
        """Read the settings of an existing store."""
        self.settings = self._group = None
        self._arrays.clear()
        if not self._place.exists(FOLDER):
            return
        try:
            self._group = cast("Any", zarr).open_group(self._zarr(), mode="r+", zarr_format=3)
        except FileNotFoundError:
            return
        head = self._group.attrs.asdict().get(_MARK)
        url = self._place.url
        if head is None:
            raise StoreError(f"{url} holds a zarr group that is not a store of features; use another folder")
        self.settings = Settings.from_dict(cast("dict[str, Any]", head), url)

    def prepare(self, settings: Settings) -> None:
        """Create the store, or refuse an existing one of other settings.

        Args:
            settings: Settings of the new features.

        Raises:
            StoreError: If features of these settings do not belong here.
            StoreFullError: If the disk is full.
        """
        if self.settings is None:
            # another process may be faster
            with disk_errors(self._place.url), suppress(ContainsGroupError):
                self._group = cast("Any", zarr).create_group(
                    self._zarr(), zarr_format=3, attributes={_MARK: settings.to_dict()}
                )
            self.refresh()
        if self.settings is not None:
            self.settings.check(settings, self._place.url)

    def clear(self) -> None:
        """Discard all values and settings."""
        self._place.remove(FOLDER)
        self.settings = self._group = None
        self._arrays.clear()

    def __getitem__(self, tensor: str) -> Any:
        """The array of a stored tensor.

        Raises:
            KeyError: If there is none.
        """
        if tensor not in self._arrays:
            self._arrays[tensor] = self._group[tensor]
        return self._arrays[tensor]

    def shard_rows(self, tensor: str) -> int:
        """Images in a shard of an array."""
        return int(self[tensor].shards[0])

    def grow(self, tensor: str, shape: tuple[int, ...], dtype: np.dtype[Any], num_rows: int) -> None:
        """Create an array, or make room for more images; only under the lock of the arrays.

        Args:
            tensor: Name of the stored tensor.
            shape: Shape of one image's.
            dtype: Its dtype.
            num_rows: Number of images.
        """
        self._arrays.pop(tensor, None)  # another process may have resized it
        if tensor not in self._group:
            fit = max(1, _SHARD_BYTES // max(1, int(np.prod(shape)) * dtype.itemsize))
            rows = min(SHARD_ROWS, 2 ** (fit.bit_length() - 1))
            self._group.create_array(
                tensor,
                shape=(num_rows, *shape),
                chunks=(1, *shape),
                shards=(rows, *shape),
                dtype=dtype,
                chunk_key_encoding={"name": "default", "separator": "."},  # a file and no folders for each
                compressors=None,  # noise-like values hardly compress
                fill_value=0 if dtype.kind == "i" else float("nan"),
            )
        array = self[tensor]
        if array.shape[0] < num_rows:
            array.resize((num_rows, *array.shape[1:]))

    def write(self, tensor: str, start: int, stop: int, values: Mapping[int, NDArray[Any]]) -> None:
        """Write a shard; only under the lock of the arrays.

        Args:
            tensor: Name of the stored tensor.
            start: First row of the shard.
            stop: Row after its last.
            values: Values by row; other rows of the shard stay.
        """
        array = self[tensor]
        block = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for row in range(start, stop):
            value = values.get(row)
            block[row - start] = self.read(tensor, row) if value is None else value
        array[start:stop] = block

    def read(self, tensor: str, row: int) -> NDArray[Any]:
        """One row of a stored tensor; rows that are not there are the fill value, NaN or 0.

        In local files a row is found by the index of its shard: zarr takes much longer for that than for the
        values.

        Raises:
            KeyError: If there is no such array.
        """
        array = self[tensor]
        if not self._place.is_local or sys.byteorder != "little":
            if row >= array.shape[0]:  # another process has made room since
                del self._arrays[tensor]
                array = self[tensor]
            return np.asarray(array[row]) if row < array.shape[0] else _filled(array)
        rows, shape = self.shard_rows(tensor), array.shape[1:]
        zeros = ".0" * len(shape)
        path = self._place.path(f"{FOLDER}/{tensor}/c.{row // rows}{zeros}")
        try:
            with Path(path).open("rb", buffering=0) as file:
                return self._from_shard(file, array, row % rows)
        except FileNotFoundError:
            return _filled(array)
        except (OSError, ValueError) as error:  # it is too short
            raise StoreError(f"{path} is damaged: the store cannot be trusted") from error

    def _from_shard(self, file: FileIO, array: Any, place: int) -> NDArray[Any]:
        # at the end: offset and length of every row, and a checksum of four bytes
        file.seek(16 * place - (16 * int(array.shards[0]) + 4), os.SEEK_END)
        offset, length = map(int, np.frombuffer(file.read(16), "<u8"))
        if offset == _NOWHERE:
            return _filled(array)
        out = np.empty(array.shape[1:], array.dtype)
        file.seek(offset)
        if length != out.nbytes or file.readinto(out.data.cast("B")) != out.nbytes:
            raise ValueError(f"row {place} has another length")
        return out


def _filled(array: Any) -> NDArray[Any]:
    return np.full(array.shape[1:], array.fill_value, array.dtype)
