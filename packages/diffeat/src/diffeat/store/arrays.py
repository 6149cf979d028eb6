# SPDX-License-Identifier: Apache-2.0
"""The values of a store: a zarr array per activation, a row per image, the settings at its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import fsspec
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import FsspecStore, LocalStore

from diffeat.store.errors import StoreError, disk_errors
from diffeat.store.ledger import Item
from diffeat.store.settings import Settings

FOLDER = "features.zarr"
_MARK = "diffeat"


class FeatureArrays:
    """A zarr group of format 3 with an array ``(images, C, h, w)`` per activation, a chunk per image.

    Args:
        url: Address of the store.
        options: Options of the file system.

    Raises:
        StoreError: If the address holds something else, or a store of another version.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url.rstrip("/")
        self.settings: Settings | None = None
        self._options = dict(options)
        self._group: Any = None
        self.refresh()

    def _zarr(self) -> Any:
        url = f"{self.url}/{FOLDER}"
        if "://" not in url or url.startswith("file://"):
            return LocalStore(url.removeprefix("file://"))
        return FsspecStore.from_url(url, storage_options=self._options)

    def refresh(self) -> None:
        """Read the settings of an existing store."""
        self.settings = self._group = None
        try:
            self._group = cast("Any", zarr).open_group(self._zarr(), mode="r+", zarr_format=3)
        except FileNotFoundError:
            return
        head = self._group.attrs.asdict().get(_MARK)
        if head is None:
            raise StoreError(
                f"{self.url} holds a zarr group that is not a store of features; use another folder"
            )
        self.settings = Settings.from_dict(cast("dict[str, Any]", head), self.url)

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
            with disk_errors(self.url), suppress(ContainsGroupError):
                self._group = cast("Any", zarr).create_group(
                    self._zarr(), zarr_format=3, attributes={_MARK: settings.to_dict()}
                )
            self.refresh()
        if self.settings is not None:
            self.settings.check(settings, self.url)

    def clear(self) -> None:
        """Discard all values and settings."""
        files, path = cast("Any", fsspec).core.url_to_fs(f"{self.url}/{FOLDER}", **self._options)
        if files.exists(path):
            files.rm(path, recursive=True)
        self.settings = self._group = None

    def __getitem__(self, name: str) -> Any:
        """The array of an activation."""
        return self._group[name]

    def write(self, name: str, items: Sequence[Item], values: Tensor, num_rows: int) -> None:
        """Write one activation of a batch.

        Args:
            name: Name of the activation.
            items: The images of the batch.
            values: ``(B, ...)``, floating.
            num_rows: Total number of planned rows.

        Raises:
            StoreError: If its shape is not that of the rows before, or a value exceeds the dtype on disk.
        """
        assert self.settings is not None  # prepared before
        kind = getattr(torch, self.settings.dtype)
        cast_down = values.to(kind)
        if bool((cast_down.isinf() & ~values.isinf()).any()):
            peak = float(values.abs().max())
            raise StoreError(
                f"{name} reaches {peak:.3g}, which {self.settings.dtype} cannot hold; store float32 instead"
            )
        array = self._grown(name, tuple(values.shape[1:]), num_rows)
        if tuple(array.shape[1:]) != tuple(values.shape[1:]):
            raise StoreError(
                f"{name} is {tuple(values.shape[1:])} here and {tuple(array.shape[1:])} in the store at "
                f"{self.url}; prompts of another length change maps"
            )
        data: NDArray[Any] = cast_down.numpy()
        rows = [item.row for item in items]
        if rows == list(range(rows[0], rows[0] + len(rows))):
            array[rows[0] : rows[0] + len(rows)] = data  # all chunks at once
            return
        for row, value in zip(rows, data, strict=True):
            array[row] = value

    def _grown(self, name: str, shape: tuple[int, ...], num_rows: int) -> Any:
        """The array of an activation, resized to every planned row."""
        assert self.settings is not None
        if name not in self._group:
            # another process may be faster; it writes the same
            with suppress(ContainsArrayError):
                self._group.create_array(
                    name,
                    shape=(num_rows, *shape),
                    chunks=(1, *shape),
                    dtype=self.settings.dtype,
                    compressors=None,  # noise-like values hardly compress
                    fill_value=float("nan"),
                )
        array = self._group[name]
        if array.shape[0] < num_rows:
            array.resize((num_rows, *array.shape[1:]))
        return array
