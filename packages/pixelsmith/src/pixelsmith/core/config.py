# SPDX-License-Identifier: Apache-2.0
"""The configuration of a job: everything that decides its result, besides model and prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

__all__ = ["JobConfig", "Slider"]

PlanKind = Literal["cover", "jitter", "grid"]
Mode = Literal["parallel", "official"]
Start = Literal["guidance", "noise"]
Fusion = Literal["auto", "guarded", "official", "off"]
Wrap = Literal["none", "vertical", "horizontal", "both"]
SliderMap = tuple[tuple[float, ...], ...]
Slider = int | float | Literal["auto"] | SliderMap

_CHOICES: dict[str, tuple[str, ...]] = {
    "plan": get_args(PlanKind),
    "mode": get_args(Mode),
    "start": get_args(Start),
    "fusion": get_args(Fusion),
    "wrap": get_args(Wrap),
}
# how the work is cut, not what comes out of it
_FREE = {"batch_size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Settings of the loop.

    Attributes:
        patch: Side of a patch in latents; the side that the model was trained for.
        seed: Decides noise, patches and coins, in [0, 2**64).
        slider: Guided steps: a whole number, a fraction of all steps (a ``float`` in [0, 1]), ``"auto"`` by
            the enlargement of the stage, or a map of fractions or of whole numbers, given as rows, which is
            stretched over the canvas.
        plan: ``"cover"`` draws patches at random until all is covered, as published; ``"jitter"`` is a grid
            at a random offset in every step, with fewer patches on large canvases; ``"grid"`` never moves.
        overlap: Latents that neighbours of a grid share at least; a cover overlaps anyway.
        mode: ``"parallel"`` fuses what the step began with, so that the order of patches cannot matter;
            ``"official"`` fuses patches that hold two noise levels, as the published code does.
        start: ``"guidance"`` starts from the noised picture (published code), ``"noise"`` from pure noise
            (paper).
        fusion: ``"guarded"`` keeps bins whose mean phase has no direction, ``"official"`` does not, ``"off"``
            leaves the phases alone, ``"auto"`` follows ``mode``.
        fusion_weight: 0 keeps the phases of the patch, 1 takes those of the guidance; 0.5 as published.
        mask: Whether half of the positions take the guidance after a guided step, as on a chess board.
        average: Whether a patch is averaged into its neighbours in a band.
        band: Width of that band in latents.
        wrap: Sides that join their opposite: ``"horizontal"`` for panoramas, ``"both"`` for textures.
        patch_multiple: Patches of canvases smaller than ``patch`` have sides that this divides.
        batch_size: Patches that go to the model together. Does not change the result.

    Example:
        >>> JobConfig(patch=128, slider=0.5).seed
        0
    """

    patch: int
    seed: int = 0
    slider: Slider = "auto"
    plan: PlanKind = "cover"
    overlap: int = 0
    mode: Mode = "parallel"
    start: Start = "guidance"
    fusion: Fusion = "auto"
    fusion_weight: float = 0.5
    mask: bool = True
    average: bool = True
    band: int = 10
    wrap: Wrap = "none"
    patch_multiple: int = 8
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("patch", "patch_multiple", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patch % self.patch_multiple:
            raise ValueError(
                f"patch_multiple must divide patch, got {self.patch_multiple} and patch={self.patch}"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in [0, 2**64), got {self.seed}")
        if not 0 <= self.overlap < self.patch:
            raise ValueError(f"overlap must lie in [0, patch), got {self.overlap} with patch={self.patch}")
        if self.band < 0:
            raise ValueError(f"band must not be negative, got {self.band}")
        if not 0 <= self.fusion_weight <= 1:
            raise ValueError(f"fusion_weight must lie in [0, 1], got {self.fusion_weight}")
        _check_slider(self.slider)
        if self.mode == "official":
            if isinstance(self.slider, tuple):
                raise ValueError("slider must be one number with mode='official'; maps need 'parallel'")
            if self.fusion_weight != 0.5:
                raise ValueError(f"fusion_weight must be 0.5 with mode='official', got {self.fusion_weight}")

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether rows (top and bottom) and columns (left and right) join."""
        return self.wrap in ("vertical", "both"), self.wrap in ("horizontal", "both")

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> JobConfig:
        """Return the configuration that :meth:`to_dict` described.

        Raises:
            ValueError: If a key is unknown or missing, or a value is out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        if "patch" not in values:
            raise ValueError("patch is missing from the settings")
        rows = values.get("slider")
        given = dict(values)
        if isinstance(rows, list):
            given["slider"] = tuple(tuple(row) for row in rows)
        return cls(**given)  # pyright: ignore[reportArgumentType]  # checked on construction

    def digest(self) -> str:
        """Return a hash of all that decides the result, 64 hexadecimal digits."""
        kept = {name: value for name, value in self.to_dict().items() if name not in _FREE}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _check_slider(slider: Slider) -> None:
    if isinstance(slider, tuple):
        if not slider or not slider[0] or len({len(row) for row in slider}) > 1:
            raise ValueError("slider map must be a rectangle with at least one value")
        for value in (value for row in slider for value in row):
            _check_amount(value)
        if len({isinstance(value, float) for row in slider for value in row}) > 1:
            raise ValueError("slider map must hold fractions only or whole numbers only")
    elif slider != "auto":
        _check_amount(slider)


def _check_amount(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"slider must be a whole number, a fraction, 'auto' or a map, got {value!r}")
    if value < 0 or (isinstance(value, float) and not value <= 1):
        raise ValueError(f"slider must be a fraction in [0, 1] or a whole number from 0, got {value!r}")
