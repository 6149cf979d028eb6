# SPDX-License-Identifier: Apache-2.0
"""The diffusion pipelines inside this package, by name."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.hub import ShippedModels, find_model

ASSETS = Path(__file__).parent / "assets"
PIPELINE_INDEX = "model_index.json"
SHIPPED = ShippedModels(ASSETS, PIPELINE_INDEX)


def find_pipeline(name: str | Path, *, revision: str | None = None) -> str:
    """Return the folder of a pipeline, or its hub id for diffusers to fetch.

    Args:
        name: Shipped name, folder or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelNotFoundError: If there is none.
    """
    return str(find_model(name, shipped=SHIPPED, index_file=PIPELINE_INDEX, revision=revision))
