# SPDX-License-Identifier: Apache-2.0
"""Features of labelled images: from a model, a store, or memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor

from diffeat.features import Features
from diffeat.hooks.collector import Storage
from diffeat.images import ImageLike, image_hash, load_images
from diffeat.names.globs import matching
from diffeat.names.grammar import ActivationName, Names
from diffeat.options import ExtractionOptions
from diffeat.presets import expand_presets
from diffeat.store.settings import Settings
from diffeat.store.store import FeatureStore

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An activation and its cost.

    Attributes:
        name: Name of the activation.
        channels: Number of channels.
        bytes: Size of one image's activation in half precision.
        flop_share: Share of the denoiser's FLOP up to the activation; ``None`` if unknown.
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
        """Short key of all that the features depend on."""
        ...

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order."""
        ...

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        ...


class ModelSource:
    """Features directly from a model; nothing is stored.

    Args:
        extractor: The model.
        images: The labelled images.
        options: Options of the extraction, with a single timestep.
        batch_size: Images per pass.

    Raises:
        ValueError: If there are several timesteps.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        images: Sequence[ImageLike],
        *,
        options: ExtractionOptions | None = None,
        batch_size: int = 8,
    ) -> None:
        self.extractor = extractor
        self.images = images
        self.options = options or ExtractionOptions()
        self.batch_size = batch_size
        if len(self.options.timesteps) != 1:
            raise ValueError(f"timesteps must be a single one here, got {self.options.timesteps}")

    @property
    def digest(self) -> str:
        """Short key of all that the features depend on."""
        settings = Settings.of(self.extractor, self.options)
        return f"{settings.digest}:{_images_digest(self.images)}:{self.options.prompt}"

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        size = self.extractor.size_for(self.options.size)
        listed = self.extractor.list_activations(size=size, with_text=False)
        kept = [each for each in listed if each.shape is not None and len(each.shape) == 3]
        wanted = set(map(str, matching([each.name for each in kept], expand_presets(names))))
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
        prompts = self.options.prompts(len(self.images))
        for start in range(0, len(self.images), self.batch_size):
            part = slice(start, start + self.batch_size)
            options = replace(self.options, prompt=prompts[part])
            images = list(self.images[part])
            features = self.extractor(
                images, list(names), options, batch_size=len(images), storage=Storage(device="cpu")
            )
            yield dict(features.tensors)


class StoreSource:
    """Features from a store.

    Args:
        store: The store; it must hold all images.
        images: The labelled images.
        prompt: Prompt of all images, or one per image.
        costs: FLOP share by name, if known.
        batch_size: Images read at a time.

    Raises:
        LookupError: If an image is not in the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        images: Sequence[ImageLike],
        *,
        prompt: str | Sequence[str] = "",
        costs: dict[str, float] | None = None,
        batch_size: int = 8,
    ) -> None:
        self.store = store
        self.rows = store.find(images, prompt)
        self.costs = costs or {}
        self.batch_size = batch_size

    @property
    def digest(self) -> str:
        """Short key of all that the features depend on."""
        assert self.store.settings is not None  # rows were found
        items = [item for row in self.rows if (item := self.store.ledger.item(row)) is not None]
        return f"{self.store.settings.digest}:{hash_text(' '.join(item.key for item in items))}"

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
    """Features in memory.

    Args:
        features: Features of the labelled images, in their order.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    @property
    def digest(self) -> str:
        """Short key of all that the features depend on."""
        parts = [
            f"{name}:{image_hash(value.detach().float().cpu())}" for name, value in self.features.items()
        ]
        return hash_text("\n".join(parts))

    def candidates(self, names: Names) -> list[Candidate]:
        """The spatial activations that match, in execution order.

        Raises:
            LookupError: If a pattern matches nothing.
        """
        wanted = map(str, matching(cast("Any", list(self.features)), expand_presets(names)))
        shapes = {name: tuple(self.features[name].shape[1:]) for name in wanted}
        return [_candidate(name, shape, None) for name, shape in shapes.items() if len(shape) == 3]

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Activations ``(B, C, h, w)`` of all images in order, in batches."""
        yield {name: self.features[name] for name in names}


def _candidate(name: str, shape: tuple[int, ...], share: float | None) -> Candidate:
    family = ActivationName.parse(name.partition("@")[0]).family
    size = 2 * shape[0] * shape[1] * shape[2]
    return Candidate(name=name, channels=shape[0], bytes=size, flop_share=share, family=family)


def _images_digest(images: Sequence[ImageLike]) -> str:
    return hash_text(" ".join(map(image_hash, load_images(images))))


def hash_text(text: str) -> str:
    """Short SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
