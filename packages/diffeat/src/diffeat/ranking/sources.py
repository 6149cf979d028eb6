# SPDX-License-Identifier: Apache-2.0
"""Where a ranking takes its features from: a model, a store, or features in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor

from diffeat.features import Features
from diffeat.images import ImageLike, image_hash, load_images
from diffeat.names.matching import matching
from diffeat.store.settings import Recipe, Settings
from diffeat.store.store import FeatureStore, expand

if TYPE_CHECKING:
    from diffeat.capture.select import Names
    from diffeat.extractor import FeatureExtractor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An activation and what it costs.

    Attributes:
        name: Its name.
        channels: Channels.
        bytes: Of one image in half precision.
        flop_share: Part of the denoiser's work done when it is there; ``None`` if unknown.
        family: Family in the paper's taxonomy.
    """

    name: str
    channels: int
    bytes: int
    flop_share: float | None = None
    family: str = ""


class Source(Protocol):
    """Features of the labelled images, by name."""

    @property
    def digest(self) -> str:
        """What the features depend on, in short."""
        ...

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order."""
        ...

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        ...


class ModelSource:
    """Features straight from a model; nothing is stored.

    Args:
        extractor: The model.
        images: The labelled images.
        recipe: Timestep, seed and size; one timestep.
        prompt: For all images.
        batch_size: Images per pass.

    Raises:
        ValueError: If the recipe has several timesteps.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        images: Sequence[ImageLike],
        *,
        recipe: Recipe | None = None,
        prompt: str = "",
        batch_size: int = 8,
    ) -> None:
        self.extractor = extractor
        self.images = images
        self.recipe = recipe or Recipe()
        self.prompt = prompt
        self.batch_size = batch_size
        if len(self.recipe.t) != 1:
            raise ValueError(f"a ranking takes one timestep, got t={self.recipe.t}")

    @property
    def digest(self) -> str:
        """What the features depend on, in short."""
        settings = Settings.of(self.extractor, self.recipe)
        return f"{settings.digest}:{_images_digest(self.images)}:{self.prompt}"

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        settings = Settings.of(self.extractor, self.recipe)
        listed = self.extractor.list_activations(size=settings.size, with_text=False)
        kept = [each for each in listed if each.shape is not None and len(each.shape) == 3]
        wanted = set(map(str, matching([each.name for each in kept], expand(names))))
        return [
            Candidate(
                name=str(each.name),
                channels=each.shape[0],
                bytes=each.bytes or 0,
                flop_share=each.flop_share,
                family=each.family,
            )
            for each in kept
            if str(each.name) in wanted and each.shape is not None
        ]

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        arguments: dict[str, Any] = {**self.recipe.arguments(), "t": self.recipe.t[0]}
        for start in range(0, len(self.images), self.batch_size):
            part = list(self.images[start : start + self.batch_size])
            features = self.extractor(
                part, list(names), prompt=self.prompt, batch_size=len(part), **arguments
            )
            yield dict(features.tensors)


class StoreSource:
    """Features from a store.

    Args:
        store: The store; it must hold all images.
        images: The labelled images.
        prompt: For all images.
        costs: FLOP share by name, if known.

    Raises:
        LookupError: If an image is not in the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        images: Sequence[ImageLike],
        *,
        prompt: str = "",
        costs: dict[str, float] | None = None,
        batch_size: int = 8,
    ) -> None:
        self.store = store
        self.rows = store.find(images, prompt)
        self.costs = costs or {}
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """What the features depend on, in short."""
        assert self.store.settings is not None  # rows were found
        keys = {item.row: item.key for item in self.store.ledger.rows.values()}
        return f"{self.store.settings.digest}:{hash_text(' '.join(keys[row] for row in self.rows))}"

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        found: list[Candidate] = []
        for name in self.store.match(names):
            shape = self.store.shape(name)
            if len(shape) == 3:
                found.append(_candidate(name, shape, self.costs.get(name)))
        return found

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        for start in range(0, len(self.rows), self.batch_size):
            part = self.rows[start : start + self.batch_size]
            yield {name: self.store.read(name, part) for name in names}


class MemorySource:
    """Features that are there already.

    Args:
        features: Of the labelled images, in their order.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    @property
    def digest(self) -> str:
        """What the features depend on, in short."""
        parts = [
            f"{name}:{tuple(value.shape)}:{value.double().sum().item()}"
            for name, value in self.features.items()
        ]
        return hash_text("\n".join(parts))

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        wanted = map(str, matching(cast("Any", list(self.features)), expand(names)))
        shapes = {name: tuple(self.features[name].shape[1:]) for name in wanted}
        return [_candidate(name, shape, None) for name, shape in shapes.items() if len(shape) == 3]

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        yield {name: self.features[name] for name in names}


def _candidate(name: str, shape: tuple[int, ...], share: float | None) -> Candidate:
    from diffeat.names.grammar import ActivationName

    family = ActivationName.parse(name.partition("@")[0]).family
    size = 2 * shape[0] * shape[1] * shape[2]
    return Candidate(name=name, channels=shape[0], bytes=size, flop_share=share, family=family)


def _images_digest(images: Sequence[ImageLike]) -> str:
    return hash_text(" ".join(image_hash(load_images(image)[0]) for image in images))


def hash_text(text: str) -> str:
    """Short SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
