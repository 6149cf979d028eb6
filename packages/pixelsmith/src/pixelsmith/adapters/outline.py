# SPDX-License-Identifier: Apache-2.0
"""A model without its weights, read from its configuration, so that mistakes are told before it is loaded."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common_kernels.runtime.hub import find_model, quiet_libraries

from pixelsmith.adapters.assets import INDEX, SHIPPED
from pixelsmith.adapters.choosing import ensure_closed_form, set_scheduler
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.options import ModelOptions
from pixelsmith.adapters.weights import check_beside, check_weights, refuse_pickle
from pixelsmith.config import LoadingConfig

_PARTS = ("unet", "transformer", "vae")


def read_outline(source: str | Path, loading: LoadingConfig, **settings: object) -> PipelineModel | None:
    """Read what is known of a model without its weights: sizes, steps, and whether the settings fit.

    Args:
        source: Name of a shipped model, folder, file or hub id.
        loading: What is loaded besides the model.
        settings: Fields of :class:`pixelsmith.adapters.ModelOptions`.

    Returns:
        A model that plans a job and cannot run it; ``None`` for a file or a hub id, whose configuration is
        not at hand.

    Raises:
        ModelNotFoundError: If there is no such model, or only pickles of it, which can run code.
        ValueError: If a setting does not fit, or the scheduler has no closed form.
    """
    check_beside(loading)
    if Path(source).is_file():
        refuse_pickle(Path(source))
        return None
    found = find_model(source, shipped=SHIPPED, index_file=INDEX)
    if not isinstance(found, Path):
        return None
    check_weights(found, loading.variant)
    index: dict[str, Any] = _read(found / INDEX)
    try:
        with quiet_libraries("diffusers", "transformers"):
            from pixelsmith.pipelines import pipeline_for

            kind = pipeline_for(str(index.get("_class_name")))
            pipe = _outline(kind, found, index)
            if loading.scheduler is None:
                ensure_closed_form(pipe, lambda sentence: None)
            else:
                set_scheduler(pipe, loading.scheduler)
    except (OSError, KeyError, AttributeError, TypeError):
        return None  # an incomplete folder, of which loading tells more
    known = {field.name for field in fields(ModelOptions)}
    return from_pipeline(pipe, "", **{name: value for name, value in settings.items() if name in known})


def _outline(kind: type[Any], folder: Path, index: Mapping[str, Any]) -> Any:
    """Return an object of a class with the name of the pipeline's, and configurations for parts."""
    import diffusers

    parts: dict[str, Any] = {}
    for name in _PARTS:
        if name in index:
            network = getattr(diffusers, index[name][1])
            parts[name] = SimpleNamespace(config=_filled(network, _read(folder / name / "config.json")))
    scheduler = getattr(diffusers, index["scheduler"][1])
    parts["scheduler"] = scheduler.from_config(_read(folder / "scheduler" / "scheduler_config.json"))
    made = type(kind.__mro__[2].__name__, (SimpleNamespace,), {})
    return made(**parts, default_sample_size=128, name_or_path=str(folder))


def _filled(network: type[Any], config: Mapping[str, Any]) -> Any:
    """Return a configuration with the defaults of its class."""
    from diffusers.configuration_utils import FrozenDict

    signature = inspect.signature(network.__init__).parameters
    defaults = {
        name: each.default for name, each in signature.items() if each.default is not inspect.Parameter.empty
    }
    return FrozenDict({**defaults, **config})


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))
