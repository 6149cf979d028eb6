# SPDX-License-Identifier: Apache-2.0
"""Refusal of weights that are pickles, which can run code when they are opened."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.hub import ModelNotFoundError

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
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


def check_weights(folder: Path, variant: str | None) -> None:
    """Refuse a folder whose parts have their weights as pickles only, or not in the variant.

    Args:
        folder: Folder of a pipeline or of a part; anything else, such as a hub id, is left to the library.
        variant: Variant of the files, such as ``"fp16"``.

    Raises:
        ModelNotFoundError: If a part has no such file in safetensors.
    """
    if not folder.is_dir():
        return
    for part in (folder, *sorted(each for each in folder.iterdir() if each.is_dir())):
        files = [file.name for file in part.iterdir() if file.is_file()]
        safe = [name for name in files if name.endswith(".safetensors")]
        pickles = sorted(name for name in files if name.endswith((".bin", ".ckpt", ".pt", ".pth")))
        if pickles and not safe:
            raise ModelNotFoundError(f"{part / pickles[0]} is {_CURE}")
    if variant is not None and not list(folder.glob(f"**/*.{variant}*.safetensors")):
        raise ModelNotFoundError(f"{folder} has no weights of the variant {variant}")
