# SPDX-License-Identifier: Apache-2.0
"""A folder of features: a zarr array per activation, a row per image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import FsspecStore, LocalStore

from diffeat.features import Features, FeaturesMeta
from diffeat.images import ImageLike
from diffeat.names.matching import matching
from diffeat.presets import PRESETS, preset
from diffeat.store.errors import StoreError, room_for
from diffeat.store.ledger import Item, Ledger, content_key
from diffeat.store.settings import Recipe, Settings

if TYPE_CHECKING:
    from diffeat.capture.select import Names
    from diffeat.extractor import FeatureExtractor
    from diffeat.names.grammar import ActivationName
    from diffeat.store.filling import FillReport, OnBroken, Processes

_MARK = "diffeat"
_ARRAYS = "features.zarr"


class FeatureStore:
    """Features of many images of one model at one setting, on disk or wherever fsspec reaches.

    ``features.zarr`` is a zarr group of format 3 with an array ``(images, C, h, w)`` per activation, a chunk
    per image, at the activation's own size. Next to it lies the ledger: image and prompt of every row, and
    which batches are finished. Whoever adds the same images again only computes what is missing; a run
    that was killed goes on and ends with the same content, value for value.

    Args:
        url: Folder, or address such as ``"s3://bucket/features"``.
        options: Of the file system, as fsspec takes them.

    Raises:
        StoreError: If something else lies there, or a store of another version.

    Examples:
        >>> store = FeatureStore("features")  # doctest: +SKIP
        >>> store.add(extractor, images, "Ours-XL")  # doctest: +SKIP
        >>> store.read("up-level1-repeat0-vit-block0-cross-q").shape  # doctest: +SKIP
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        self.url = str(url)
        self._options = dict(options or {})
        self.settings: Settings | None = None
        self.ledger = Ledger(self.url, self._options)
        self._group: Any = None
        self._open()

    @classmethod
    def cached(
        cls,
        root: str,
        extractor: FeatureExtractor,
        recipe: Recipe | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The store below ``root`` that belongs to a model and a recipe.

        Args:
            root: Folder of many stores, or address.
            extractor: The model.
            recipe: How features are made.
            options: Of the file system.
        """
        settings = Settings.of(extractor, recipe or Recipe())
        return cls(f"{str(root).rstrip('/')}/{settings.digest}", options=options)

    @staticmethod
    def is_at(url: str | Path) -> bool:
        """Whether a local folder holds a store."""
        return (Path(url) / _ARRAYS).is_dir()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, state["url"], options=state["options"])

    def _zarr(self) -> Any:
        url = f"{self.url.rstrip('/')}/{_ARRAYS}"
        if "://" not in url or url.startswith("file://"):
            return LocalStore(url.removeprefix("file://"))
        return FsspecStore.from_url(url, storage_options=self._options)

    def _open(self) -> None:
        try:
            self._group = cast("Any", zarr).open_group(self._zarr(), mode="r+", zarr_format=3)
        except FileNotFoundError:
            return
        head = self._group.attrs.asdict().get(_MARK)
        if head is None:
            raise StoreError(
                f"{self.url} holds a zarr group that is no store of features; take another folder"
            )
        self.settings = Settings.from_dict(cast("dict[str, Any]", head), self.url)

    def prepare(self, settings: Settings) -> None:
        """Make the store, or refuse one of other settings.

        Raises:
            StoreError: If features of these settings do not belong here.
            StoreFullError: If there is no room.
        """
        if self.settings is None:
            # another process may be faster
            with room_for(self.url), suppress(ContainsGroupError):
                self._group = cast("Any", zarr).create_group(
                    self._zarr(), zarr_format=3, attributes={_MARK: settings.to_dict()}
                )
            self._open()
        if self.settings is not None:
            self.settings.check(settings, self.url, is_empty=not self.ledger.names)

    # reading

    @property
    def names(self) -> tuple[str, ...]:
        """Activations, in execution order; with several timesteps each ends in ``@`` and the timestep."""
        return tuple(sorted(self.ledger.names, key=_order))

    def items(self, names: Iterable[str | ActivationName] | None = None) -> list[Item]:
        """Images that have all of these activations, by row.

        Args:
            names: All of the store's if ``None``.
        """
        wanted = self.names if names is None else list(map(str, names))
        return self.ledger.complete(wanted) if wanted else []

    def __len__(self) -> int:
        return len(self.items())

    def find(self, images: Sequence[ImageLike], prompt: str | Sequence[str] = "") -> list[int]:
        """Rows of images.

        Args:
            images: As they were added.
            prompt: For all, or one per image.

        Raises:
            LookupError: If an image was never added with this prompt.
        """
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        rows: list[int] = []
        for image, text in zip(images, prompts, strict=True):
            key, source = content_key(image)
            if (key, text) not in self.ledger.rows:
                raise LookupError(
                    f"the store at {self.url} has no image {source or key[:12]!r} with prompt {text!r}"
                )
            rows.append(self.ledger.rows[key, text].row)
        return rows

    def match(self, names: Names | None = None) -> list[str]:
        """Names of the store that match names or globs; all if ``None``.

        Raises:
            LookupError: If something matches nothing.
        """
        if names is None:
            return list(self.names)
        return [str(name) for name in matching(cast("Any", self.names), expand(names))]

    def shape(self, name: str | ActivationName) -> tuple[int, ...]:
        """Shape of one image's activation.

        Raises:
            LookupError: If the store does not have it.
        """
        return tuple(self._array(str(name)).shape[1:])

    def read(self, name: str | ActivationName, rows: int | Sequence[int] | None = None) -> Tensor:
        """Read one activation.

        Args:
            name: Its name.
            rows: Which images, one or several; all that have it if ``None``.

        Returns:
            ``(B, C, h, w)`` in the dtype on disk; without ``B`` for a single row.

        Raises:
            LookupError: If the store does not have the activation, or not for these images.
            StoreError: If values are lost.
        """
        name = str(name)
        array = self._array(name)
        have = {item.row: item for item in self.items([name])}
        several = list(have) if rows is None else [rows] if isinstance(rows, int) else list(rows)
        absent = [row for row in several if row not in have]
        if absent:
            raise LookupError(f"{name} is not there for row {absent[0]} of the store at {self.url}")
        out = np.empty((len(several), *array.shape[1:]), array.dtype)
        for place, row in enumerate(several):
            out[place] = array[row]
            if np.isnan(out[place]).all():
                raise StoreError(
                    f"{name} of {have[row].source or f'row {row}'} is lost from the store at {self.url}, "
                    "or was no number when it was computed"
                )
        found = torch.from_numpy(out)
        return found[0] if isinstance(rows, int) else found

    def features(self, rows: Sequence[int] | None = None, names: Names | None = None) -> Features:
        """Read several activations of several images.

        Args:
            rows: Which images; all that have the activations if ``None``.
            names: Names or globs; all if ``None``.
        """
        if self.settings is None:
            raise StoreError(f"there is no store at {self.url}")
        chosen = self.match(names)
        items = {item.row: item for item in self.items(chosen)}
        wanted = list(items) if rows is None else list(rows)
        tensors = {name: self.read(name, wanted) for name in chosen}
        settings = self.settings
        meta = FeaturesMeta(
            noising=settings.noising,
            prompts=tuple(items[row].prompt for row in wanted),
            image_hashes=tuple(items[row].key for row in wanted),
            seed=settings.seed,
            num_noises=settings.num_noises,
            posterior=settings.posterior,
            size=settings.size,
            model=settings.model,
            revision=settings.revision,
            dtype=settings.compute_dtype,
        )
        return Features(tensors, meta)

    def _array(self, name: str) -> Any:
        if name not in self.names:
            self.match([name])  # raises with the nearest names
        return self._group[name]

    # writing

    def add(
        self,
        extractor: FeatureExtractor,
        images: Sequence[ImageLike],
        names: Names,
        *,
        prompt: str | Sequence[str] = "",
        recipe: Recipe | None = None,
        batch_size: int = 8,
        on_batch: Callable[[int, int], None] | None = None,
        on_broken: OnBroken | None = None,
        processes: Processes | None = None,
    ) -> FillReport:
        """Compute and write what is missing; see :func:`diffeat.store.filling.fill`."""
        from diffeat.store.filling import Job, fill

        job = Job(images=images, names=names, prompt=prompt, recipe=recipe or Recipe(), batch_size=batch_size)
        return fill(self, extractor, job, on_batch=on_batch, on_broken=on_broken, processes=processes)

    def write(self, name: str, items: Sequence[Item], values: Tensor) -> None:
        """Write one activation of a batch.

        Args:
            name: Of the activation.
            items: Whose it is.
            values: ``(B, ...)``, floating.

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
        array = self._grown(name, tuple(values.shape[1:]))
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

    def _grown(self, name: str, shape: tuple[int, ...]) -> Any:
        """The array of an activation, with room for every planned row."""
        rows = self.ledger.num_rows
        assert self.settings is not None
        if name not in self._group:
            # another process may be faster; it writes the same
            with suppress(ContainsArrayError):
                self._group.create_array(
                    name,
                    shape=(rows, *shape),
                    chunks=(1, *shape),
                    dtype=self.settings.dtype,
                    compressors=None,  # noise-like values hardly compress
                    fill_value=float("nan"),
                )
        array = self._group[name]
        if array.shape[0] < rows:
            array.resize((rows, *array.shape[1:]))
        return array


def expand(names: Names) -> list[str]:
    """Write out presets among names and globs."""
    several = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    known = {each.lower() for each in PRESETS}
    return [
        text
        for name in map(str, several)
        for text in (preset(name).names if name.lower() in known else (name,))
    ]


def _order(text: str) -> tuple[int, Any, str]:
    """Execution order of names, timesteps together."""
    from diffeat.names.grammar import ActivationName

    plain, _, t = text.partition("@")
    return (int(t) if t else 0, ActivationName.parse(plain), text)
