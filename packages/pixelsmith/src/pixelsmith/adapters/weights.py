# SPDX-License-Identifier: Apache-2.0
"""Refusal of weights that are missing or are pickles, which can run code when they are opened."""

from __future__ import annotations

import re
from pathlib import Path

from common_kernels.runtime.hub import ModelNotFoundError, check_hub, find_model, is_hub_id, load_weights

from pixelsmith.config import LoadingConfig, parse_lora

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LORA_FILE = "pytorch_lora_weights.safetensors"
_WEIGHTS = re.compile(r"(?:model|diffusion_pytorch_model)(?:\.([A-Za-z]\w*))?(?:-\d+-of-\d+)?\.safetensors")
_CURE = "a pickle, which can run code when it is opened: convert it to safetensors"


def refuse_pickle(file: Path) -> None:
    """Refuse a file of weights that is no safetensors file; folders and hub ids are left to the library.

    Raises:
        ModelNotFoundError: If it is another file.
    """
    if file.suffix.lower() in _PICKLES:
        raise ModelNotFoundError(f"{file} is {_CURE}")
    if file.is_file() and file.suffix.lower() != ".safetensors":
        raise ModelNotFoundError(f"{file} must be a .safetensors file or a folder")


def check_beside(loading: LoadingConfig) -> None:
    """Refuse what is loaded beside a model and is damaged or not there, before anything is loaded.

    Args:
        loading: LoRAs, ControlNet, its image, upscaler.

    Raises:
        ModelNotFoundError: If weights are neither in a file nor in a folder nor on the hub, a LoRA is
            damaged, or the hub does not answer.
        FileNotFoundError: If there is no control image.
    """
    for place, _ in map(parse_lora, loading.lora or ()):
        _check_lora(place)
    if loading.control_image is not None and not Path(loading.control_image).is_file():
        raise FileNotFoundError(f"{loading.control_image} does not exist")
    if loading.controlnet is not None:
        find_model(loading.controlnet)
    if loading.upscaler is not None:
        refuse_pickle(Path(loading.upscaler))
        if not Path(loading.upscaler).is_file():
            raise ModelNotFoundError(f"no upscaler {loading.upscaler!r}; name a .safetensors file")


def _check_lora(place: str) -> None:
    file = Path(place)
    refuse_pickle(file)
    if file.is_file():
        load_weights(file.parent, file.name)  # a damaged one ends here
    elif not file.exists():
        if not is_hub_id(place) or place.endswith(".safetensors"):
            raise ModelNotFoundError(
                f"no LoRA {place!r}: it is neither a .safetensors file nor a folder nor a hub id (owner/name)"
            )
        check_hub(place, _LORA_FILE)


def check_weights(folder: Path, variant: str | None) -> None:
    """Refuse a folder whose parts have their weights as pickles only, or not in the variant.

    Args:
        folder: Folder of a pipeline or of a part; anything else, such as a hub id, is left to the library.
        variant: Variant of the files, such as ``"fp16"``.

    Raises:
        ModelNotFoundError: If a part has no such file in safetensors, naming the variant that it has.
    """
    if not folder.is_dir():
        return
    for part in (folder, *sorted(each for each in folder.iterdir() if each.is_dir())):
        files = [file.name for file in part.iterdir() if file.is_file()]
        safe = [name for name in files if name.endswith(".safetensors")]
        pickles = sorted(name for name in files if name.endswith(_PICKLES))
        if pickles and not safe:
            raise ModelNotFoundError(f"{part / pickles[0]} is {_CURE}")
        held = {found[1] for name in safe if (found := _WEIGHTS.fullmatch(name))}
        if variant is None and held and None not in held:
            first = min(map(str, held))
            raise ModelNotFoundError(
                f"{part} has its weights in the variant {first} only: name it (--variant {first})"
            )
    if variant is not None and not list(folder.glob(f"**/*.{variant}*.safetensors")):
        raise ModelNotFoundError(f"{folder} has no weights of the variant {variant}")
