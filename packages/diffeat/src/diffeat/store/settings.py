# SPDX-License-Identifier: Apache-2.0
"""Everything that stored features depend on besides image and prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from diffeat.options import ExtractionOptions
from diffeat.schedule import NoiseLevel
from diffeat.store.errors import StoreError
from diffeat.store.options import StoreOptions

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

FORMAT = 2
# values of each weight that go into the fingerprint
_PROBES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a store holds, as written at its head.

    Attributes:
        model: Name that the model was loaded by, or its class.
        revision: Revision asked for.
        fingerprint: Digest of names, shapes and some values of all weights.
        compute_dtype: Compute dtype of the denoiser.
        options: Options of the extraction with the size in pixels; prompts are kept for each row instead.
        noise_levels: Noise of the denoiser's input, one entry per timestep.
        storage: What is kept of the features.
    """

    model: str
    revision: str | None
    fingerprint: str
    compute_dtype: str
    options: ExtractionOptions
    noise_levels: tuple[NoiseLevel, ...]
    storage: StoreOptions

    @classmethod
    def of(
        cls, extractor: FeatureExtractor, options: ExtractionOptions, storage: StoreOptions | None = None
    ) -> Self:
        """Settings of an extractor's features.

        Raises:
            ValueError: If the model cannot take the size or a timestep: before there is a store of them.
        """
        if options.keep_aspect:
            raise ValueError("a store holds features of one size: extract into it without keep_aspect")
        return cls(
            model=extractor.name,
            revision=extractor.revision,
            fingerprint=fingerprint(extractor.pipeline),
            compute_dtype=str(extractor.dtype).removeprefix("torch."),
            options=replace(options, prompt="", size=extractor.size_for(options.size)),
            noise_levels=extractor.noise_levels(options),
            storage=storage or StoreOptions(),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the images before the model."""
        assert isinstance(self.options.size, tuple)  # resolved by of()
        return self.options.size

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the versions of the format and of the libraries at work."""
        versions = {name: version(name) for name in ("diffeat", "diffusers", "torch")}
        return {"format": FORMAT, "settings": asdict(self), "versions": versions}

    @classmethod
    def from_dict(cls, head: Mapping[str, Any], url: str) -> Self:
        """Read the head of a store.

        Args:
            head: Values that :meth:`to_dict` gave.
            url: Address of the store, for errors.

        Raises:
            StoreError: If another version of the format wrote it.
        """
        if head.get("format") != FORMAT:
            raise StoreError(
                f"the store at {url} has format {head.get('format')!r}, this version of diffeat reads "
                f"{FORMAT}: extract again into another folder"
            )
        values: dict[str, Any] = dict(head["settings"])
        values["options"] = ExtractionOptions.from_dict(values["options"])
        values["noise_levels"] = tuple(NoiseLevel(**each) for each in values["noise_levels"])
        values["storage"] = StoreOptions.from_dict(values["storage"])
        return cls(**values)

    def check(self, wanted: Settings, url: str) -> None:
        """Refuse features of other settings.

        Args:
            wanted: Settings of the new features.
            url: Address of this store, for the error.

        Raises:
            StoreError: If any setting differs, naming the first.
        """
        for (name, has), (_, want) in zip(self._values(), wanted._values(), strict=True):
            if has != want:
                raise StoreError(
                    f"the store at {url} holds features of {name} {has!r}, got {want!r}; use another "
                    "folder, or FeatureStore.cached, which has one for each setting"
                )

    def _values(self) -> Iterator[tuple[str, object]]:
        """All settings by name, those of the extraction and of what is kept among them."""
        for owner in (self, self.options, self.storage):
            for each in fields(owner):
                if each.name not in {"options", "storage"}:
                    yield each.name, getattr(owner, each.name)

    @property
    def digest(self) -> str:
        """Short name of these settings."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def fingerprint(pipeline: object) -> str:
    """Digest of a pipeline's weights: all names and shapes, and a few evenly spaced values of each.

    Reading gigabytes for every run would cost more than the features; weights that were trained, merged or
    replaced differ nearly everywhere, so that a few values are enough.

    Args:
        pipeline: A pipeline or a model.
    """
    parts: Mapping[str, object] = getattr(pipeline, "components", {"model": pipeline})
    digest = hashlib.sha256()
    for part, module in sorted(parts.items()):
        if isinstance(module, nn.Module):
            for name, value in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name}:{tuple(value.shape)}".encode())
                digest.update(_probes(value))
    return digest.hexdigest()[:32]


def _probes(value: Tensor) -> bytes:
    if value.is_meta or not value.is_floating_point() or not value.numel():
        return b""
    flat = value.detach().flatten()
    step = max(1, flat.numel() // _PROBES)
    return flat[::step][:_PROBES].to(device="cpu", dtype=torch.float32).numpy().tobytes()
