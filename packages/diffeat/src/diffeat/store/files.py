# SPDX-License-Identifier: Apache-2.0
"""Features of a small run in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, cast

import fsspec
from safetensors.torch import load, save

from diffeat.features import Features, FeaturesMeta, Noising
from diffeat.store.errors import StoreError, room_for

_MARK = "diffeat"


def save_features(features: Features, path: str) -> None:
    """Write features and how they came about.

    Args:
        features: In any dtype; it is kept.
        path: File, or address that fsspec opens.

    Raises:
        StoreFullError: If there is no room.
    """
    head = {"order": list(features), **asdict(features.meta)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in features.items()}
    data = save(tensors, {_MARK: json.dumps(head)})
    with room_for(str(path)), cast("Any", fsspec).open(str(path), "wb") as file:
        file.write(data)


def load_features(path: str) -> Features:
    """Read what :func:`save_features` wrote.

    Args:
        path: File, or address that fsspec opens.

    Raises:
        StoreError: If the file is something else.
    """
    with cast("Any", fsspec).open(str(path), "rb") as file:
        data: bytes = file.read()
    length = int.from_bytes(data[:8], "little")
    try:
        head = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_MARK])
        tensors = load(data)
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is no file of features that diffeat wrote") from error
    order: list[str] = head.pop("order")
    head["noising"] = tuple(Noising(**each) for each in head["noising"])
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in head.items()
    }
    return Features({name: tensors[name] for name in order}, FeaturesMeta(**fields))
