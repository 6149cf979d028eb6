# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours among the images of a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diffeat.hooks.collector import Storage
from diffeat.images import ImageLike
from diffeat.names.grammar import Names
from diffeat.store.errors import StoreError, disk_errors
from diffeat.store.ledger import Item, content_key
from diffeat.store.reduction import Reduction, decode
from diffeat.store.settings import Settings
from diffeat.store.store import FeatureStore

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

FOLDER = "search"
_SAVED = 10_000  # images after which the index is saved
_READ = 256
# candidates that a search keeps: more find more of the true neighbours and take longer, see the benchmarks
_CANDIDATES = 256
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image that was found.

    Attributes:
        item: The image and its row.
        similarity: Cosine similarity, in [-1, 1].
    """

    item: Item
    similarity: float


class NeighbourIndex:
    """Finds the images of a store whose features are most similar.

    An image is described by the averages of its activations over the image; those of each activation have
    length 1, so that all weigh the same. The vectors are kept in a graph (HNSW of usearch, half precision)
    beside the features: images that were added to the store since are added to it, and a build that was
    killed resumes.

    Args:
        store: The store, or its address.
        names: Names or globs; all if ``None``.

    Raises:
        ImportError: If usearch is not installed.
        LookupError: If a pattern matches nothing.
        StoreError: If the store is empty or not on a local disk.
        ValueError: If an activation has no channels on the image.

    Examples:
        >>> index = NeighbourIndex("features", "*-cross-q")  # doctest: +SKIP
        >>> index.update()  # doctest: +SKIP
        >>> index.find(index.describe("cat.jpg", extractor), 5)  # doctest: +SKIP
    """

    def __init__(self, store: FeatureStore | str, names: Names | None = None) -> None:
        self.store = FeatureStore(store) if isinstance(store, str) else store
        if not self.store.place.is_local:
            raise StoreError(f"search needs a store on a local disk, got {self.store.url}")
        self.names = self.store.match(names)
        for name in self.names:
            shape = self.store.shape(name)
            if len(shape) != 3:
                raise ValueError(f"{name} must be (channels, height, width) to be searched, got {shape}")
        assert self.store.settings is not None  # there are names
        text = json.dumps([self.store.settings.digest, self.names])
        self._name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._index = self._load()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return sum(self.store.shape(name)[0] for name in self.names)

    def __len__(self) -> int:
        return len(self._index)

    def _load(self) -> Any:
        try:
            from usearch.index import Index
        except ImportError as error:
            raise ImportError("search needs usearch: pip install 'diffeat[search]'") from error
        index = Index(ndim=self.dim, metric="cos", dtype="f16", expansion_search=_CANDIDATES)
        place = self.store.place
        try:
            head = json.loads(place.read(f"{FOLDER}/{self._name}.json"))
            data = place.read(f"{FOLDER}/{self._name}.usearch")
        except (FileNotFoundError, ValueError):
            return index
        keys = [item.key for item in self.store.items(self.names)[: head["images"]]]
        if head == _head(keys, data):  # else rows have other images since, or the files are of two runs
            index.load(data)
            index.expansion_search = _CANDIDATES
        return index

    def _save(self, keys: Sequence[str]) -> None:
        data = bytes(self._index.save())
        with disk_errors(self.store.url):
            self.store.place.write(f"{FOLDER}/{self._name}.usearch", data)
            self.store.place.write(f"{FOLDER}/{self._name}.json", json.dumps(_head(keys, data)).encode())

    def update(self, on_image: Callable[[int, int], None] | None = None) -> int:
        """Add the images that are not in the index.

        Args:
            on_image: Called with images done and all images.

        Returns:
            Number of images added.

        Raises:
            StoreError: If values are lost.
        """
        items = self.store.items(self.names)
        begun = len(self._index)
        for start in range(begun, len(items), _READ):
            rows = [item.row for item in items[start : start + _READ]]
            self._index.add(np.array(rows, np.uint64), self._vectors(rows), threads=0)
            done = start + len(rows)
            if done // _SAVED > start // _SAVED or done == len(items):
                self._save([item.key for item in items[:done]])
            if on_image is not None:
                on_image(done, len(items))
        return len(items) - begun

    def _vectors(self, rows: Sequence[int]) -> Vectors:
        return _join([self.store.read(name, rows) for name in self.names])

    def describe(
        self, image: ImageLike, extractor: Callable[[], FeatureExtractor] | FeatureExtractor, prompt: str = ""
    ) -> Vectors:
        """Vector of an image: from the store if it is there, else computed as the store's were.

        Args:
            image: Path, Pillow image, array or tensor.
            extractor: The model of the store, or a function that loads it if it is needed.
            prompt: Prompt of the image.

        Returns:
            ``(1, dim)``.

        Raises:
            StoreError: If the model or its compute dtype is another one than the store's.
        """
        key, _ = content_key(image)
        known = self.store.ledger.find(key, prompt)
        if known is not None and set(self.names) <= self.store.ledger.has(known.row):
            return self._vectors([known.row])
        settings = self.store.settings
        assert settings is not None
        model: Any = extractor if hasattr(extractor, "pipeline") else cast("Any", extractor)()
        settings.check(Settings.of(model, settings.options, settings.storage), self.store.url)
        plain = list(dict.fromkeys(name.partition("@")[0] for name in self.names))
        found = model(
            [image], plain, replace(settings.options, prompt=(prompt,)), storage=Storage(device="cpu")
        )
        reduction = Reduction(self.store.place, settings.storage)
        values: list[Tensor] = []
        for name in self.names:
            stored = reduction.encode(name, found[name])
            value = decode(name, lambda tensor, stored=stored: stored[tensor][0], settings.storage)
            if value is None:
                raise StoreError(f"{name} of {image} is no number")
            values.append(torch.from_numpy(value)[None])
        return _join(values)

    def find(self, vectors: Vectors, count: int = 10, *, exact: bool = False) -> list[list[Neighbour]]:
        """Find the most similar images.

        Args:
            vectors: ``(queries, dim)``.
            count: Images for each query.
            exact: Whether to compare with every image instead of following the graph.

        Returns:
            Images of each query, the most similar first.

        Raises:
            ValueError: If ``count`` is below 1 or the length does not fit.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"vectors must be (queries, {self.dim}), got {vectors.shape}")
        if not len(self._index):
            return [[] for _ in vectors]
        found: list[list[Neighbour]] = []
        for vector in vectors:
            matches = self._index.search(vector, min(count, len(self._index)), exact=exact)
            pairs = zip(matches.keys.tolist(), matches.distances.tolist(), strict=True)
            items = [(self.store.ledger.item(row), 1 - distance) for row, distance in pairs]
            found.append([Neighbour(item, similarity) for item, similarity in items if item is not None])
        return found


def _join(values: Sequence[Tensor]) -> Vectors:
    """Averages of ``(B, C, h, w)``, each of length 1, beside each other."""
    return torch.cat([F.normalize(value.float().mean((2, 3)), dim=1) for value in values], dim=1).numpy()


def _head(keys: Sequence[str], data: bytes) -> dict[str, object]:
    return {
        "images": len(keys),
        "keys": hashlib.sha256("".join(keys).encode()).hexdigest(),
        "index": hashlib.sha256(data).hexdigest(),
    }
