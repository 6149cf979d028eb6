# SPDX-License-Identifier: Apache-2.0
"""Finding a model by name, folder, file or hub id, and loading it with what goes with it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.hub import (
    DType,
    ModelNotFoundError,
    find_model,
    quiet_libraries,
    read_config,
    resolve_device,
    resolve_dtype,
)
from common_kernels.runtime.images import read_rgb

from pixelsmith.adapters.assets import INDEX, SHIPPED
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.choosing import Announce, set_scheduler
from pixelsmith.adapters.control import Control
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.upscaler import load_upscaler
from pixelsmith.adapters.weights import check_beside, check_weights, refuse_pickle
from pixelsmith.config import LoadingConfig, parse_lora

_NEEDED = ("vae", "unet", "transformer", "scheduler")
_PLAIN = LoadingConfig()
_log = logging.getLogger(__name__)


def load_pipeline(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: DType | torch.dtype = "auto",
    loading: LoadingConfig = _PLAIN,
    announce: Announce = _log.warning,
) -> Any:
    """Load a pipeline of diffusers as its subclass in :mod:`pixelsmith.pipelines`.

    Args:
        source: Name of a shipped model, such as ``"tiny-sdxl"``, a folder, a ``.safetensors`` file with a
            whole model, or a hub id.
        device: Device; ``"auto"`` is the accelerator if there is one.
        dtype: Compute dtype; ``"auto"`` is float16 on CUDA and float32 elsewhere.
        loading: Variant, scheduler, LoRAs and offloading.
        announce: Called with one sentence if the scheduler has to be another than that of the model.

    Raises:
        ModelNotFoundError: If there is no such model, or only pickles of it, which can run code.
        ValueError: If it is of another architecture, or device, dtype or scheduler do not fit.
        ImportError: If a LoRA is given and the package peft is missing.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where, cuda_default="float16")
    check_beside(loading)
    if loading.offload != "none" and where.type == "cpu":
        raise ValueError(f"offload must be 'none' on the CPU, got {loading.offload!r}")
    with warnings.catch_warnings():
        # newer releases call it dtype, the oldest that we support know torch_dtype only
        warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
        if Path(source).is_file():
            pipe = _load_file(Path(source), precision, loading, announce)
        else:
            pipe = _load_folder(source, precision, loading, announce)
    if loading.scheduler is not None:
        set_scheduler(pipe, loading.scheduler)
    load_loras(pipe, loading.lora or ())
    if loading.offload == "model":
        pipe.enable_model_cpu_offload(device=where)
    elif loading.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=where)
    else:
        pipe.to(where)
    return pipe


def _load_folder(
    source: str | Path, precision: torch.dtype, loading: LoadingConfig, announce: Announce
) -> Any:
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  # loaded lazily

    from pixelsmith.pipelines import pipeline_for

    place = str(find_model(source, shipped=SHIPPED, index_file=INDEX))
    try:
        index: Any = DiffusionPipeline.load_config(place)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"no model {str(source)!r}: its {INDEX} cannot be read") from error
    kind = pipeline_for(str(index.get("_class_name")))
    _check_parts(index, place)
    check_weights(Path(place), loading.variant)
    own = {"announce": _quiet if loading.scheduler else announce}
    return kind.from_pretrained(place, torch_dtype=precision, variant=loading.variant, **own)


def _load_file(file: Path, precision: torch.dtype, loading: LoadingConfig, announce: Announce) -> Any:
    """Load a model that is one file in the format of its authors."""
    from pixelsmith.pipelines import pipeline_for

    refuse_pickle(file)
    own: dict[str, Any] = {"announce": _quiet if loading.scheduler else announce}
    if loading.config is not None:
        index = read_config(loading.config, INDEX)
        kind, own["config"] = pipeline_for(str(index.get("_class_name"))), loading.config
    else:
        kind = pipeline_for(_architecture(file))
    try:
        return kind.from_single_file(str(file), torch_dtype=precision, **own)
    except (OSError, KeyError) as error:
        raise ModelNotFoundError(
            f"{file} cannot be loaded ({str(error).splitlines()[0][:200]}); name the folder with the "
            "configuration of its architecture with --config"
        ) from error


def _architecture(file: Path) -> str:
    """Return the class of diffusers for the model in a file, told by the names of its weights.

    Raises:
        ValueError: If it is none that is supported.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type, load_single_file_checkpoint

    kind = str(infer_diffusers_model_type(load_single_file_checkpoint(str(file))))
    for start, name in (
        ("xl_", "StableDiffusionXLPipeline"), ("playground", "StableDiffusionXLPipeline"),
        ("sd3", "StableDiffusion3Pipeline"), ("flux", "FluxPipeline"), ("v", "StableDiffusionPipeline"),
    ):  # fmt: skip
        if kind.startswith(start):
            return name
    raise ValueError(f"{file} must hold Stable Diffusion or FLUX, holds {kind}")


def _quiet(sentence: str) -> None:
    """Say nothing: the scheduler is replaced by the one that was named."""


def load_loras(pipe: Any, loras: Sequence[str]) -> None:
    """Load LoRAs into a pipeline, and use all of them at once.

    Args:
        pipe: Pipeline of diffusers.
        loras: Files, folders or hub ids, each with a weight behind a colon if that is not 1.

    Raises:
        ModelNotFoundError: If one has no weights in safetensors.
        ImportError: If the package peft is missing.
    """
    names: list[str] = []
    weights: list[float] = []
    for number, text in enumerate(loras):
        place, weight = parse_lora(text)
        name = f"{Path(place).stem.replace('.', '-')}-{number}"
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
                pipe.load_lora_weights(place, adapter_name=name, use_safetensors=True)
        except ValueError as error:
            if "PEFT" in str(error):
                raise ImportError("LoRAs need the package peft: pip install pixelsmith[lora]") from error
            raise
        except OSError as error:
            raise ModelNotFoundError(f"no LoRA {place!r} in .safetensors") from error
        names.append(name)
        weights.append(weight)
    if names:
        pipe.set_adapters(names, weights)


def load_control(loading: LoadingConfig, precision: torch.dtype, device: torch.device) -> list[Control]:
    """Load the ControlNet, if there is one.

    Raises:
        ModelNotFoundError: If it does not exist or is a pickle.
        ValueError: If its image is missing, or it is of another architecture.
    """
    if loading.controlnet is None:
        return []
    if loading.control_image is None:
        raise ValueError("controlnet needs a control_image, which is not given")
    import diffusers

    place = Path(find_model(loading.controlnet, download=["config.json", "*.safetensors"]))
    name = str(read_config(place).get("_class_name"))
    if not name.endswith(("ControlNetModel", "ControlNetUnionModel")):
        raise ValueError(f"{loading.controlnet} must be a ControlNet, is a {name}")
    check_weights(place, None)
    net = getattr(diffusers, name).from_pretrained(place, torch_dtype=precision, use_safetensors=True)
    image = read_rgb(loading.control_image)
    return [
        Control(model=net.to(device), image=image, scale=loading.control_scale, mode=loading.control_mode)
    ]


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
    loading: LoadingConfig = _PLAIN,
    announce: Announce = _log.warning,
    **settings: object,
) -> PipelineModel:
    """Load a pipeline and make it the model of a job.

    Args:
        source: Name of a shipped model, a folder, a ``.safetensors`` file, or a hub id.
        prompt: Prompt of the whole image: text, or embeddings.
        device: Device; ``"auto"`` is the accelerator if there is one.
        dtype: Compute dtype; ``"auto"`` is float16 on CUDA and float32 elsewhere.
        loading: Variant, scheduler, LoRAs, ControlNet, upscaler and offloading.
        announce: Called with one sentence if the scheduler has to be another than that of the model.
        settings: Fields of :class:`pixelsmith.adapters.ModelOptions`.

    Raises:
        ModelNotFoundError: If there is no such model, or only pickles of it, which can run code.
        TypeError: If a setting is unknown.
        ValueError: If the model, its scheduler or a setting does not fit.
        ImportError: If a LoRA is given and the package peft is missing, or an upscaler and spandrel.
    """
    with quiet_libraries("diffusers", "transformers"):
        pipe = load_pipeline(source, device=device, dtype=dtype, loading=loading, announce=announce)
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where, cuda_default="float16")
        controls = load_control(loading, precision, where)
        if loading.upscaler is not None:
            settings = {"upscaler": load_upscaler(loading.upscaler, precision, where), **settings}
    pipe.set_progress_bar_config(disable=True)
    if controls:
        settings = {"controls": controls, **settings}
    return from_pipeline(pipe, prompt, **{"name": str(source), **settings})
