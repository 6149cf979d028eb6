# SPDX-License-Identifier: Apache-2.0
"""The diffusion pipelines inside this package, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from common_kernels.runtime.hub import HubOptions, ShippedModels, find_model, read_config

ASSETS = Path(__file__).parent / "assets"
PIPELINE_INDEX = "model_index.json"
SHIPPED = ShippedModels(ASSETS, PIPELINE_INDEX)


def find_pipeline(name: str | Path, **hub: Unpack[HubOptions]) -> str:
    """Return the folder of a pipeline, or its hub id for diffusers to fetch.

    Args:
        name: Shipped name, folder or hub id.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.

    Raises:
        ModelNotFoundError: If there is none, or a configuration in the folder is damaged.
        ValueError: If the index names no pipeline.
    """
    place = str(find_model(name, shipped=SHIPPED, index_file=PIPELINE_INDEX, **hub))
    index = Path(place, PIPELINE_INDEX)
    if index.is_file():
        if "_class_name" not in read_config(place, PIPELINE_INDEX):
            raise ValueError(f'{index} names no pipeline: it has no "_class_name"')
        for path in sorted(Path(place).glob("*/*config.json")):
            read_config(path.parent, path.name)  # diffusers does not always name the file that is damaged
    return place
