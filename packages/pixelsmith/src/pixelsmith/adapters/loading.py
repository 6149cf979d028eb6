# SPDX-License-Identifier: Apache-2.0
"""Finding a model by name, folder or hub id, and loading it."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from pixelsmith.adapters.assets import INDEX, locate_model, shipped_models
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel

_NEEDED = ("vae", "unet", "transformer", "scheduler")
DType = Literal["auto", "float32", "bfloat16", "float16"]


def load_pipeline(
    source: str | Path, *, device: str | torch.device = "auto", dtype: DType | torch.dtype = "auto"
) -> Any:
    """Load a pipeline of diffusers as the one of ours that stands above it.

    Args:
        source: Name of a shipped model, such as ``"tiny-sdxl"``, a folder, or a hub id.
        device: Where it computes; ``"auto"`` takes CUDA if there is one.
        dtype: Of the weights; ``"auto"`` is float16 on CUDA and float32 elsewhere.

    Returns:
        One of the pipelines of :mod:`pixelsmith.pipelines`.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it is of another architecture, or device or dtype is unknown.
    """
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # loaded lazily

    from pixelsmith.pipelines import pipeline_for

    where = _pick_device(device)
    precision = _pick_dtype(dtype, where)
    place = locate_model(source)
    if "/" not in place and not Path(place).is_dir():  # no hub id either, so do not ask and wait
        raise _unknown(source)
    try:
        index: Any = DiffusionPipeline.load_config(place)
    except (OSError, ValueError) as error:
        raise _unknown(source) from error
    kind = pipeline_for(str(index.get("_class_name")))
    _check_parts(index, place)
    with warnings.catch_warnings():
        # newer releases call it dtype, the oldest that we support know torch_dtype only
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        pipe = kind.from_pretrained(place, torch_dtype=precision)
    return pipe.to(where)


def _unknown(source: str | Path) -> FileNotFoundError:
    known = ", ".join(shipped_models()) or "none"
    return FileNotFoundError(
        f"no model {str(source)!r}: it is neither shipped ({known}), nor a folder with {INDEX}, "
        "nor a hub id that can be read"
    )


def _check_parts(index: Mapping[str, Any], place: str) -> None:
    """Name the parts that a pipeline is without, which diffusers tells at length or not at all."""
    is_folder = Path(place).is_dir()
    for name in _NEEDED:
        if name not in index:  # networks have other names in other families
            continue
        if not index[name][0] or (is_folder and not (Path(place) / name).is_dir()):
            raise FileNotFoundError(f"the model {place} has no {name}; get the whole of it, or another one")


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
        source: As by :func:`load_pipeline`.
        prompt: As by :func:`pixelsmith.adapters.from_pipeline`.
        device: As by :func:`load_pipeline`.
        dtype: As by :func:`load_pipeline`.
        settings: Fields of :class:`pixelsmith.adapters.ModelOptions`.

    Raises:
        FileNotFoundError: If there is no such model.
        TypeError: If a setting is unknown.
        ValueError: If the model, its scheduler or a setting does not fit.
    """
    with _without_bars():
        pipe = load_pipeline(source, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return from_pipeline(pipe, prompt, **{"name": str(source), **settings})


@contextmanager
def _without_bars() -> Generator[None]:
    """Keep the libraries from drawing bars: a job has its own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [each for each in (of_diffusers, of_transformers) if each.is_progress_bar_enabled()]
    try:
        for each in shown:
            each.disable_progress_bar()
        yield
    finally:
        for each in shown:
            each.enable_progress_bar()


def _pick_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda[:n]', got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not present: {torch.cuda.device_count()} CUDA devices found")
    return found


def _pick_dtype(dtype: DType | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {
        "auto": torch.float16 if device.type == "cuda" else torch.float32,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if dtype not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, got {dtype!r}")
    return names[dtype]
