# SPDX-License-Identifier: Apache-2.0
"""Digests of files, models and settings, by which a result is known to be up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import cast

__all__ = ["digest_file", "digest_model", "digest_settings"]

_BLOCK = 1 << 20
_WHOLE = 64 << 20  # weights above this are sampled: another training changes every block of them
_SAMPLES = 16
_SIZE = 16  # bytes of a digest


def digest_settings(settings: object) -> str:
    """Return a digest of options: equal options give equal digests, in whatever order.

    Args:
        settings: Values that JSON knows, paths, sets, tuples and dataclasses, nested in any way.

    Raises:
        TypeError: If a value has no stable form.

    Example:
        >>> digest_settings({"a": 1, "b": (2, 3)}) == digest_settings({"b": [2, 3], "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_SIZE).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return a digest of the bytes of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_SIZE)).hexdigest()


def digest_model(name_or_path: str | Path) -> str:
    """Return a digest of a model: of the files in its folder, or of its name if it is no local folder.

    Files above 64 MiB are sampled at 16 places, which tells any two trained checkpoints apart.

    Raises:
        OSError: If a file cannot be read.
    """
    place = Path(name_or_path)
    if place.is_file():
        return _digest_large(place)
    if not place.is_dir():
        return digest_settings(str(name_or_path))
    files = sorted(file for file in place.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest_settings({file.relative_to(place).as_posix(): _digest_large(file) for file in files})


def _digest_large(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE:
        return digest_file(path)
    found = hashlib.blake2b(str(size).encode(), digest_size=_SIZE)
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek((size - _BLOCK) * number // (_SAMPLES - 1))
            found.update(file.read(_BLOCK))
    return found.hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, set | frozenset):
        return sorted(cast("set[str]", value))
    raise TypeError(f"settings must be plain values, got {type(value).__name__}")
