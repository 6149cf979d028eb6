# SPDX-License-Identifier: Apache-2.0
"""A folder of features: a zarr array per activation, a row per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from common_kernels.runtime.processes import Processes, join_processes
from numpy.typing import NDArray
from torch import Tensor

from diffeat.features import Features, FeaturesMeta
from diffeat.images import ImageLike
from diffeat.names.globs import matching
from diffeat.names.grammar import ActivationName, Names
from diffeat.options import ExtractionOptions
from diffeat.presets import expand_presets
from diffeat.store.arrays import FOLDER, FeatureArrays
from diffeat.store.errors import StoreError, disk_errors
from diffeat.store.filling import Filling, Job
from diffeat.store.ledger import Item, Ledger, content_key
from diffeat.store.options import StoreOptions
from diffeat.store.parts import Parts
from diffeat.store.place import Place
from diffeat.store.reduction import decode
from diffeat.store.report import FillReport, OnBatch, OnItem
from diffeat.store.settings import Settings

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor


class FeatureStore:
    """Features of many images of one model at one setting, on disk or any file system of fsspec.

    ``features.zarr`` is a zarr group of format 3 with a sharded array ``(images, C, h, w)`` per activation,
    at the activation's own size. Beside it is the ledger: image and prompt of every row, and what is written.
    Batches are kept in files of their own until their shard is full; reading finds them there. Adding the
    same images again computes only what is missing; a run that was killed loses at most the batch at work,
    resumes, and ends with the same content, value for value. One run writes a store at a time, others wait.

    Args:
        url: Folder, or address such as ``"s3://bucket/features"``.
        options: Options of the file system, as fsspec takes them.

    Raises:
        StoreError: If the address holds something else, or a store of another version.

    Examples:
        >>> store = FeatureStore("features")  # doctest: +SKIP
        >>> store.add(extractor, images, "Ours-XL")  # doctest: +SKIP
        >>> store.read("up-level1-repeat0-vit-block0-cross-q").shape  # doctest: +SKIP
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        self.url = str(url)
        self._options = dict(options or {})
        self.place = Place(self.url, self._options)
        self.ledger = Ledger(self.place)
        self.arrays = FeatureArrays(self.place)
        self._parts = Parts(self.place, self.ledger, self.arrays)

    @classmethod
    def cached(
        cls,
        root: str,
        extractor: FeatureExtractor,
        extraction: ExtractionOptions | None = None,
        *,
        storage: StoreOptions | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The store below ``root`` that belongs to a model and the options of an extraction.

        Args:
            root: Folder of many stores, or address.
            extractor: The model.
            extraction: Options of the extraction; its prompt makes no difference.
            storage: What is kept of the features; half precision if ``None``.
            options: Options of the file system.
        """
        settings = Settings.of(extractor, extraction or ExtractionOptions(), storage)
        return cls(f"{str(root).rstrip('/')}/{settings.digest}", options=options)

    @classmethod
    def at(
        cls,
        url: str,
        extractor: FeatureExtractor,
        extraction: ExtractionOptions | None = None,
        *,
        storage: StoreOptions | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The store at ``url``, or one inside it if features of other settings are there.

        Args:
            url: Folder, or address.
            extractor: The model.
            extraction: Options of the extraction; its prompt makes no difference.
            storage: What is kept of the features; half precision if ``None``.
            options: Options of the file system.
        """
        store = cls(url, options=options)
        settings = Settings.of(extractor, extraction or ExtractionOptions(), storage)
        if not store.ledger.names or store.settings == settings:
            return store
        return cls(f"{store.url.rstrip('/')}/{settings.digest}", options=options)

    @staticmethod
    def is_at(url: str | Path) -> bool:
        """Whether a local folder holds a store."""
        return (Path(url) / FOLDER).is_dir()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, state["url"], options=state["options"])

    def add(
        self,
        extractor: FeatureExtractor,
        images: Sequence[ImageLike],
        names: Names,
        options: ExtractionOptions | None = None,
        *,
        storage: StoreOptions | None = None,
        batch_size: int = 8,
        overwrite: bool = False,
        on_batch: OnBatch | None = None,
        on_item: OnItem | None = None,
        processes: Processes | None = None,
    ) -> FillReport:
        """Compute and write what is missing; every process calls it with the same arguments.

        Args:
            extractor: The model.
            images: Paths, Pillow images, arrays or tensors.
            names: Names, globs, presets, means of maps or module paths.
            options: Options of the extraction.
            storage: What is kept of the features; half precision if ``None``.
            batch_size: Images per pass.
            overwrite: Whether to discard the content of the store.
            on_batch: Called after each computed batch with batches done and batches of this process.
            on_item: Called with each image that was done, skipped or failed; if ``None`` the first image that
                cannot be read ends the work.
            processes: The processes that share the work; those of the launcher if ``None``.

        Raises:
            LookupError: If a name is unknown.
            StoreError: If the store is of another model or of other options.
            StoreFullError: If the disk is full; finished batches are kept.
            ValueError: If an image or the number of prompts does not fit.
        """
        job = Job(
            images=images,
            names=names,
            options=options or ExtractionOptions(),
            storage=storage or StoreOptions(),
            batch_size=batch_size,
            overwrite=overwrite,
        )
        filling = Filling(self.place, self.ledger, self.arrays, extractor, job, on_item)
        return filling.run(processes or join_processes(extractor.device.type), on_batch)

    def compact(self) -> None:
        """Move all features to the arrays, for readers that know zarr and not this class.

        Raises:
            StoreFullError: If the disk is full; nothing is lost.
        """
        with disk_errors(self.url):
            self.refresh()
            self._parts.move(everything=True)
            self.ledger.copy()

    def refresh(self) -> None:
        """See what other processes have written since this object was made."""
        self.ledger.refresh()
        self.arrays.refresh()

    @property
    def settings(self) -> Settings | None:
        """Settings of the features; ``None`` while there is no store."""
        return self.arrays.settings

    @property
    def names(self) -> tuple[str, ...]:
        """Activations, in execution order; with several timesteps each ends in ``@`` and the timestep."""
        return tuple(sorted(self.ledger.names, key=_order))

    def items(self, names: Iterable[str | ActivationName] | None = None) -> list[Item]:
        """Images that have all of these activations, by row.

        Args:
            names: Names of activations; all of the store's if ``None``.
        """
        wanted = self.names if names is None else list(map(str, names))
        return self.ledger.complete(wanted) if wanted else []

    def __len__(self) -> int:
        return len(self.ledger.complete_rows(self.names)) if self.names else 0

    def find(self, images: Sequence[ImageLike], prompt: str | Sequence[str] = "") -> list[int]:
        """Rows of images.

        Args:
            images: Images as they were added.
            prompt: Prompt of all images, or one per image.

        Raises:
            LookupError: If an image was never added with this prompt.
        """
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        rows: list[int] = []
        for image, text in zip(images, prompts, strict=True):
            key, source = content_key(image)
            item = self.ledger.find(key, text)
            if item is None:
                raise LookupError(
                    f"the store at {self.url} has no image {source or key[:12]!r} with prompt {text!r}"
                )
            rows.append(item.row)
        return rows

    def match(self, names: Names | None = None) -> list[str]:
        """Names of the store that match names or globs; all if ``None``.

        Raises:
            LookupError: If a pattern matches nothing.
            StoreError: If nothing has been written.
        """
        known = self.names
        if not known and self.settings is None:
            raise StoreError(f"there is no store at {self.url}: diffeat extract makes one")
        if not known:
            raise StoreError(f"the store at {self.url} holds no features: no run wrote any, extract again")
        if names is None:
            return list(known)
        return [str(name) for name in matching(cast("Any", known), expand_presets(names))]

    def shape(self, name: str | ActivationName) -> tuple[int, ...]:
        """Shape of one image's activation.

        Raises:
            LookupError: If the store does not have it.
        """
        self._check(str(name))
        return self.ledger.shape(str(name))

    def read(self, name: str | ActivationName, rows: int | Sequence[int] | None = None) -> Tensor:
        """Read one activation.

        Args:
            name: Name of the activation.
            rows: Rows of the images, one or several; all that have it if ``None``.

        Returns:
            ``(B, C, h, w)`` in the dtype of the store; without ``B`` for a single row.

        Raises:
            LookupError: If the store does not have the activation, or not for these images.
            StoreError: If values are lost.
        """
        name = str(name)
        if isinstance(rows, int):
            return torch.from_numpy(self._row(name, rows))
        if rows is None:
            self._check(name)
            rows = self.ledger.complete_rows([name])
        if not len(rows):
            return torch.empty((0, *self.shape(name)), dtype=getattr(torch, self._storage.dtype))
        first = self._row(name, rows[0])
        out = np.empty((len(rows), *first.shape), first.dtype)
        out[0] = first
        for place, row in enumerate(rows[1:], 1):
            out[place] = self._row(name, row)
        return torch.from_numpy(out)

    def _row(self, name: str, row: int) -> NDArray[Any]:
        if name not in self.ledger.has(row):
            self._check(name)
            raise LookupError(f"{name} is not there for row {row} of the store at {self.url}")

        def stored(tensor: str) -> NDArray[Any]:
            waiting = self._parts.read(name, tensor, row)
            return self.arrays.read(tensor, row) if waiting is None else waiting

        try:
            value = decode(name, stored, self._storage)
        except KeyError:  # there is no array of this name
            value = None
        if value is None:
            item = self.ledger.item(row)
            source = item.source if item is not None and item.source else f"row {row}"
            raise StoreError(
                f"{name} of {source} is lost from the store at {self.url}, or was no number when it was "
                "computed"
            )
        return value

    @property
    def _storage(self) -> StoreOptions:
        if self.arrays.settings is None:  # another process has made the store since
            self.arrays.refresh()
        if self.arrays.settings is None:
            raise StoreError(f"{FOLDER} is lost from the store at {self.url}: extract again")
        return self.arrays.options

    def features(self, rows: Sequence[int] | None = None, names: Names | None = None) -> Features:
        """Read several activations of several images.

        Args:
            rows: Rows of the images; all that have the activations if ``None``.
            names: Names or globs; all if ``None``.

        Raises:
            StoreError: If there is no store, or values are lost.
        """
        settings = self.settings
        if settings is None:
            raise StoreError(f"there is no store at {self.url}")
        chosen = self.match(names)
        wanted = self.ledger.complete_rows(chosen) if rows is None else list(rows)
        tensors = {name: self.read(name, wanted) for name in chosen}
        items = [item for row in wanted if (item := self.ledger.item(row)) is not None]
        meta = FeaturesMeta(
            options=replace(settings.options, prompt=tuple(item.prompt for item in items)),
            noise_levels=settings.noise_levels,
            image_hashes=tuple(item.key for item in items),
            model=settings.model,
            revision=settings.revision,
            dtype=settings.compute_dtype,
        )
        return Features(tensors, meta)

    def _check(self, name: str) -> None:
        """Refuse a name that the store does not have, with the nearest names."""
        if name not in self.ledger.names:
            self.match([name])


def _order(text: str) -> tuple[int, ActivationName, str]:
    """Execution order of names, timesteps together."""
    plain, _, timestep = text.partition("@")
    return (int(timestep) if timestep else 0, ActivationName.parse(plain), text)
