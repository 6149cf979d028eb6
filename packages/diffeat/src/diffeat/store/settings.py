# SPDX-License-Identifier: Apache-2.0
"""Everything that stored features depend on besides image and prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from diffeat.capture.collect import Storage
from diffeat.capture.maps import MapOptions
from diffeat.features import Noising
from diffeat.schedule import noising
from diffeat.store.errors import StoreError

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

FORMAT = 1
StoredDtype = Literal["float16", "float32"]
# values of each weight that go into the fingerprint
_PROBES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the features of a store are made.

    Attributes:
        t: Timesteps.
        seed: Of noise and posterior samples.
        num_noises: Noises averaged.
        size: Height and width in pixels, a side, or ``None`` for the model's own size.
        posterior: ``"mode"`` or ``"sample"``.
        maps: Reduction of attention maps.
        dtype: In which features lie on disk, ``"float16"`` or ``"float32"``.
    """

    t: tuple[int, ...] = (50,)
    seed: int = 0
    num_noises: int = 1
    size: int | tuple[int, int] | None = None
    posterior: Literal["mode", "sample"] = "mode"
    maps: MapOptions = field(default_factory=MapOptions)
    dtype: StoredDtype = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in {"float16", "float32"}:
            raise ValueError(f"dtype of a store must be 'float16' or 'float32', got {self.dtype!r}")
        if not self.t:
            raise ValueError("t must hold at least one timestep, got none")

    def arguments(self) -> dict[str, Any]:
        """The recipe as arguments of the extractor.

        The extractor does not cast: what does not fit the dtype on disk is an error of the store.
        """
        return {
            "t": list(self.t),
            "seed": self.seed,
            "num_noises": self.num_noises,
            "size": self.size,
            "posterior": self.posterior,
            "maps": self.maps,
            "storage": Storage(device="cpu"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a store holds, as written at its head.

    Attributes:
        model: Where the model came from, or its class.
        revision: Revision asked for.
        fingerprint: Digest of names, shapes and some values of all weights.
        compute_dtype: Of the denoiser.
        t: Timesteps asked for.
        noise_levels: Effective timestep, factor of the signal, factor of the noise, for each ``t``.
        seed: Of noise and posterior samples.
        num_noises: Noises averaged.
        posterior: ``"mode"`` or ``"sample"``.
        size: Height and width in pixels.
        heads: Heads kept of attention maps.
        tokens: Tokens kept of attention maps.
        dtype: On disk.
    """

    model: str
    revision: str | None
    fingerprint: str
    compute_dtype: str
    t: tuple[int, ...]
    noise_levels: tuple[tuple[float, float, float], ...]
    seed: int
    num_noises: int
    posterior: str
    size: tuple[int, int]
    heads: str | tuple[int, ...]
    tokens: tuple[int, ...] | None
    dtype: StoredDtype

    @classmethod
    def of(cls, extractor: FeatureExtractor, recipe: Recipe) -> Self:
        """Settings of an extractor's features.

        Raises:
            ValueError: If the model cannot take the size or a timestep: before there is a store of them.
        """
        size = extractor.size_for(recipe.size)
        tokens = prod(size) // (2 * extractor.factor) ** 2
        levels = [noising(extractor.pipeline.scheduler, t, num_tokens=tokens)[0] for t in recipe.t]
        return cls(
            model=extractor.name,
            revision=extractor.revision,
            fingerprint=fingerprint(extractor.pipeline),
            compute_dtype=str(extractor.dtype).removeprefix("torch."),
            t=recipe.t,
            noise_levels=tuple((level.effective, level.signal, level.noise) for level in levels),
            seed=recipe.seed,
            num_noises=recipe.num_noises,
            posterior=recipe.posterior,
            size=size,
            heads=recipe.maps.heads,
            tokens=recipe.maps.tokens,
            dtype=recipe.dtype,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the versions of the format and of the libraries at work."""
        versions = {name: version(name) for name in ("diffeat", "diffusers", "torch")}
        return {"format": FORMAT, "settings": asdict(self), "versions": versions}

    @classmethod
    def from_dict(cls, head: Mapping[str, Any], url: str) -> Self:
        """Read the head of a store.

        Args:
            head: As :meth:`to_dict` gives it.
            url: Of the store, for errors.

        Raises:
            StoreError: If another version of the format wrote it.
        """
        if head.get("format") != FORMAT:
            raise StoreError(
                f"the store at {url} has format {head.get('format')!r}, this version of diffeat reads "
                f"{FORMAT}"
            )
        return cls(**{name: _frozen(value) for name, value in head["settings"].items()})

    def check(self, wanted: Settings, url: str, *, is_empty: bool = False) -> None:
        """Refuse features that do not belong here.

        Args:
            wanted: Settings of the features to come.
            url: Of this store, for the error.
            is_empty: Whether it holds nothing yet, as after a first run that went wrong; for the error.

        Raises:
            StoreError: If any setting differs, naming the first.
        """
        for name in self.__dataclass_fields__:
            has, want = getattr(self, name), getattr(wanted, name)
            if has != want:
                if is_empty:
                    raise StoreError(
                        f"the store at {url} is empty but was begun with {name} {has!r}, got {want!r}; "
                        "delete the folder or take another"
                    )
                raise StoreError(
                    f"the store at {url} holds features of {name} {has!r}, got {want!r}; take another "
                    "folder, or FeatureStore.cached, which has one for each setting"
                )

    @property
    def digest(self) -> str:
        """Short name of these settings."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def noising(self) -> tuple[Noising, ...]:
        """The timesteps as features describe them."""
        return tuple(
            Noising(requested=t, effective=effective, signal=signal, noise=noise)
            for t, (effective, signal, noise) in zip(self.t, self.noise_levels, strict=True)
        )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


def fingerprint(pipeline: object) -> str:
    """Digest of a pipeline's weights: all names and shapes, and a few evenly spaced values of each.

    Reading gigabytes for every run would cost more than the features; weights that were trained, merged or
    replaced differ nearly everywhere, so that a few values tell.

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
