# SPDX-License-Identifier: Apache-2.0
"""The pictures that the world is made of: where they come from, what they show, and their digests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from shapeworld import Split

Kind = Literal["cutout", "photo", "pair"]

COMMITTED = Path(__file__).with_name("manifest.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One file.

    Attributes:
        package: Debian package, or the Python package that holds it.
        path: Path inside the package; the name of the image in a Python package.
        kind: Cut-out with an alpha channel, photograph, or part of a pair or video with its ground truth.
        name: English noun of what it shows; for a photograph what a thing on it is said to be on.
        licence: Licence as its package states it.
        sha256: Digest of the file; empty in a Python package, whose version is pinned.
        english: What the package itself says of a cut-out.
        colour: Colour of a cut-out, named by eye; empty if it has no one colour.
        split: Split that alone shows the object or photograph; empty for pairs, which are for testing.
    """

    package: str
    path: str
    kind: Kind
    name: str
    licence: str
    sha256: str = ""
    english: str = ""
    colour: str = ""
    split: Split | Literal[""] = ""

    @property
    def key(self) -> str:
        """Short unique name: package and path."""
        return f"{self.package}/{self.path}"

    @property
    def is_fetched(self) -> bool:
        """Whether it comes from the archive."""
        return bool(self.sha256)


@dataclass(frozen=True)
class Manifest:
    """All pictures.

    Attributes:
        pictures: In the order of the file.
    """

    pictures: tuple[Picture, ...]

    @classmethod
    def read(cls, file: Path = COMMITTED) -> Self:
        """Read a manifest.

        Args:
            file: JSON file; the committed one by default.
        """
        stored: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["pictures"]
        return cls(tuple(Picture(**each) for each in stored))

    @cached_property
    def by_key(self) -> dict[str, Picture]:
        """Pictures by their keys."""
        return {picture.key: picture for picture in self.pictures}

    @cached_property
    def _parts(self) -> dict[tuple[str, str], tuple[Picture, ...]]:
        kinds = dict.fromkeys((each.kind, each.split) for each in self.pictures)
        return {
            part: tuple(each for each in self.pictures if (each.kind, each.split) == part) for part in kinds
        }

    def of(self, kind: Kind, split: Split | Literal[""] = "") -> tuple[Picture, ...]:
        """Return the pictures of a kind in a split."""
        return self._parts.get((kind, split), ())

    def named(self, split: Split) -> dict[str, tuple[Picture, ...]]:
        """Return the cut-outs of a split by name, in alphabetical order."""
        if split not in self._named:
            found: dict[str, list[Picture]] = {}
            for picture in sorted(self.of("cutout", split), key=lambda each: each.name):
                found.setdefault(picture.name, []).append(picture)
            self._named[split] = {name: tuple(own) for name, own in found.items()}
        return self._named[split]

    @cached_property
    def _named(self) -> dict[Split, dict[str, tuple[Picture, ...]]]:
        return {}
