# SPDX-License-Identifier: Apache-2.0
"""The diffusion pipelines inside this package, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Unpack, cast

from common_kernels.runtime.hub import HubOptions, ShippedModels, find_model

ASSETS = Path(__file__).parent / "assets"
PIPELINE_INDEX = "model_index.json"
SHIPPED = ShippedModels(ASSETS, PIPELINE_INDEX)


def find_pipeline(name: str | Path, **hub: Unpack[HubOptions]) -> str:
    """Return the folder of a pipeline, or its hub id for diffusers to fetch.

    Args:
        name: Shipped name, folder or hub id.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

    Raises:
        ModelNotFoundError: If there is none.
        ValueError: If a configuration in the folder is damaged or names no pipeline.
    """
    place = str(find_model(name, shipped=SHIPPED, index_file=PIPELINE_INDEX, **hub))
    index = Path(place, PIPELINE_INDEX)
    if index.is_file():
        if "_class_name" not in _read(index):
            raise ValueError(f'{index} names no pipeline: it has no "_class_name"')
        for path in sorted(Path(place).glob("*/*config.json")):
            _read(path)
    return place


def _read(path: Path) -> dict[str, object]:
    """Read a configuration; diffusers does not always name the file that is damaged."""
    try:
        content: object = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no configuration: it must be a JSON object")
    return cast("dict[str, object]", content)
