# SPDX-License-Identifier: Apache-2.0
"""Features of a small run in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, BinaryIO, cast

import fsspec
from common_kernels.runtime.files import write_bytes
from safetensors.torch import load, save

from diffeat.features import Features, FeaturesMeta
from diffeat.options import ExtractionOptions
from diffeat.schedule import NoiseLevel
from diffeat.store.errors import StoreError, disk_errors

_MARK = "diffeat"
_LONGEST_HEAD = 100_000_000  # the limit of the format


def save_features(features: Features, path: str, *, digest: str = "") -> None:
    """Write features and their origin.

    Args:
        features: Features of any dtype; it is kept.
        path: File, or address that fsspec opens.
        digest: Digest of the inputs, see :func:`read_digest`.

    Raises:
        StoreFullError: If the disk is full.
    """
    head = {"order": list(features), "digest": digest, **asdict(features.meta)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in features.items()}
    data = save(tensors, {_MARK: json.dumps(head)})
    with disk_errors(str(path)):
        if "://" not in str(path):
            write_bytes(path, data)
            return
        with cast("Any", fsspec).open(str(path), "wb") as file:  # object stores write files atomically
            file.write(data)


def load_features(path: str) -> Features:
    """Read a file of :func:`save_features`.

    Args:
        path: File, or address that fsspec opens.

    Raises:
        StoreError: If the file has another format.
    """
    with cast("Any", fsspec).open(str(path), "rb") as file:
        head = _read_head(file, path)
        file.seek(0)
        tensors = load(file.read())
    order: list[str] = head.pop("order")
    head.pop("digest")
    head["options"] = ExtractionOptions.from_dict(head["options"])
    head["noise_levels"] = tuple(NoiseLevel(**each) for each in head["noise_levels"])
    head["image_hashes"] = tuple(head["image_hashes"])
    return Features({name: tensors[name] for name in order}, FeaturesMeta(**head))


def read_digest(path: str) -> str | None:
    """Digest with which features were written; ``None`` if there is no such file.

    Args:
        path: File, or address that fsspec opens.

    Raises:
        StoreError: If the file has another format.
    """
    try:
        with cast("Any", fsspec).open(str(path), "rb") as file:
            return _read_head(file, path)["digest"]
    except FileNotFoundError:
        return None


def _read_head(file: BinaryIO, path: str) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    try:
        if length > _LONGEST_HEAD:
            raise ValueError("no header of safetensors is as long")
        return json.loads(json.loads(file.read(length))["__metadata__"][_MARK])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a file of features written by diffeat") from error
