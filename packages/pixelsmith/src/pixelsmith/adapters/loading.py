# SPDX-License-Identifier: Apache-2.0
"""Finding a model by name, folder or hub id, and loading it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.hub import (
    DType,
    ModelNotFoundError,
    find_model,
    quiet_libraries,
    resolve_device,
    resolve_dtype,
)

from pixelsmith.adapters.assets import INDEX, SHIPPED
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel

_NEEDED = ("vae", "unet", "transformer", "scheduler")


def load_pipeline(
    source: str | Path, *, device: str | torch.device = "auto", dtype: DType | torch.dtype = "auto"
) -> Any:
    """Load a pipeline of diffusers as its subclass in :mod:`pixelsmith.pipelines`.

    Args:
        source: Name of a shipped model, such as ``"tiny-sdxl"``, a folder, or a hub id.
        device: Device; ``"auto"`` is CUDA if available.
        dtype: Compute dtype; ``"auto"`` is float16 on CUDA and float32 elsewhere.

    Raises:
        ModelNotFoundError: If there is no such model, or only pickles of it, which can run code.
        ValueError: If it is of another architecture, or device or dtype is unknown.
    """
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # loaded lazily

    from pixelsmith.pipelines import pipeline_for

    where = resolve_device(device)
    precision = resolve_dtype(dtype, where, cuda_default="float16")
    place = str(find_model(source, shipped=SHIPPED, index_file=INDEX))
    try:
        index: Any = DiffusionPipeline.load_config(place)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"no model {str(source)!r}: its {INDEX} cannot be read") from error
    kind = pipeline_for(str(index.get("_class_name")))
    _check_parts(index, place)
    with warnings.catch_warnings():
        # newer releases call it dtype, the oldest that we support know torch_dtype only
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        pipe = kind.from_pretrained(place, torch_dtype=precision, use_safetensors=True)
    return pipe.to(where)


def _check_parts(index: Mapping[str, Any], place: str) -> None:
    """Refuse a pipeline with missing parts, which diffusers reports at length or not at all."""
    is_folder = Path(place).is_dir()
    for name in _NEEDED:
        if name not in index:  # networks have other names in other families
            continue
        if not index[name][0] or (is_folder and not (Path(place) / name).is_dir()):
            raise ModelNotFoundError(f"the model {place} has no {name}; download it again or use another one")


def load_model(
    source: str | Path,
    prompt: str | Condition = "",
    *,
    device: str | torch.device = "auto",
    dtype: DType | torch.dtype = "auto",
    **settings: object,
) -> PipelineModel:
    """Load a pipeline and make it the model of a job.

    Args:
        source: Name of a shipped model, a folder, or a hub id.
        prompt: Prompt of the whole image: text, or embeddings.
        device: Device; ``"auto"`` is CUDA if available.
        dtype: Compute dtype; ``"auto"`` is float16 on CUDA and float32 elsewhere.
        settings: Fields of :class:`pixelsmith.adapters.ModelOptions`.

    Raises:
        ModelNotFoundError: If there is no such model, or only pickles of it, which can run code.
        TypeError: If a setting is unknown.
        ValueError: If the model, its scheduler or a setting does not fit.
    """
    with quiet_libraries("diffusers", "transformers"):
        pipe = load_pipeline(source, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return from_pipeline(pipe, prompt, **{"name": str(source), **settings})
