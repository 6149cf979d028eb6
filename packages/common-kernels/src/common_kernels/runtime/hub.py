# SPDX-License-Identifier: Apache-2.0
"""Finding a model by shipped name, folder or hub id, and choosing its device and dtype."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "DType",
    "HubOptions",
    "ModelNotFoundError",
    "ShippedModels",
    "check_hub",
    "find_model",
    "is_hub_id",
    "load_weights",
    "quiet_libraries",
    "read_config",
    "resolve_device",
    "resolve_dtype",
]

DType = Literal["auto", "float32", "bfloat16", "float16"]

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "card.json"
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_HUB_SECONDS = 5.0


class HubOptions(TypedDict, total=False):
    """Keyword arguments of everything that loads from the hub; those of :func:`find_model`."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


class ModelNotFoundError(FileNotFoundError):
    """No model has this name, folder or hub id, or its files cannot be used."""


@dataclass(frozen=True, slots=True)
class ShippedModels:
    """The models inside a package, a folder each.

    Attributes:
        assets: Folder of the folders.
        index_file: File that makes a folder a model.
    """

    assets: Path
    index_file: str = CONFIG_FILE

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(file.parent.name for file in self.assets.glob(f"*/{self.index_file}"))

    def folder(self, name: str) -> Path:
        """Return the folder of a shipped model.

        Raises:
            ModelNotFoundError: If none has this name; the message lists those there are.
        """
        if name not in self.names():
            raise ModelNotFoundError(f"no shipped model {name!r}: there are {', '.join(self.names())}")
        return self.assets / name

    def card(self, name: str) -> dict[str, Any]:
        """Return what is known of a shipped model: task, parameters, figures; empty without a card."""
        file = self.folder(name) / CARD_FILE
        return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form ``owner/name``."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def find_model(
    name_or_path: str | Path,
    *,
    shipped: ShippedModels | None = None,
    download: Sequence[str] | None = None,
    index_file: str = CONFIG_FILE,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path | str:
    """Return the folder of a shipped model, of a local one, or of one on the hub.

    Args:
        name_or_path: Shipped name, folder, or hub id such as ``"owner/name"``.
        shipped: The models inside the package.
        download: Files to fetch from the hub, as patterns; with ``None`` nothing is fetched and the hub id is
            returned once the hub has answered, for libraries that fetch by themselves.
        index_file: File that a local folder must have, and that the hub is asked for.
        revision: Branch, tag or commit on the hub.
        token: Access token of the hub; ``None`` takes the stored one.
        cache_dir: Folder of fetched models.
        local_files_only: Whether to use only what was fetched before.
        force_download: Whether to fetch again.

    Returns:
        A folder, or the hub id if ``download`` is ``None``.

    Raises:
        ModelNotFoundError: If there is none; the message lists the shipped names.
    """
    name, known = str(name_or_path), shipped.names() if shipped else []
    if shipped is not None and name in known:
        return shipped.folder(name)
    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / index_file).is_file():
            raise ModelNotFoundError(f"{folder} has no {index_file}, so it is not the folder of a model")
        return folder
    if folder.is_file():
        raise ModelNotFoundError(f"{folder} is a file; give the folder that holds {index_file}")
    places = f"neither shipped ({', '.join(known)}) nor a folder" if known else "not a folder"
    if not is_hub_id(name):
        raise ModelNotFoundError(f"no model {name!r}: it is {places} nor a hub id (owner/name)")
    if not local_files_only:
        check_hub(name, index_file, revision=revision, token=token, cache_dir=cache_dir)
    if download is None:
        return name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=list(download),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"no model {name!r}: it is {places}, and the hub did not give it ({type(error).__name__})"
        ) from error


def check_hub(
    repo_id: str,
    file: str = CONFIG_FILE,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> None:
    """Ask the hub once whether it answers: a download would retry for the better part of a minute.

    A file that was fetched before is not asked for.

    Raises:
        ModelNotFoundError: If the hub does not answer; what an answer means is left to the download.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=revision)
        if isinstance(cached, str):
            return
        url = hf_hub_url(repo_id, file, revision=revision)
        get_hf_file_metadata(url, token=token, timeout=_HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return
    except Exception as error:  # of whichever HTTP library this version of the hub's client has
        raise ModelNotFoundError(
            f"{repo_id} is not a folder here, and the hub does not answer: check the connection, or give "
            "the folder of a model"
        ) from error


def read_config(folder: str | Path, file: str = CONFIG_FILE) -> dict[str, Any]:
    """Read the configuration of a model.

    Raises:
        ModelNotFoundError: If the file is missing or is not a JSON object.
    """
    path = Path(folder) / file
    try:
        stored: object = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{folder} has no {file}, so it is not the folder of a model") from error
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error}") from error
    if not isinstance(stored, dict):
        raise ModelNotFoundError(f"{path} must hold a JSON object, got {type(stored).__name__}")
    return stored


def load_weights(folder: str | Path, file: str = WEIGHTS_FILE) -> dict[str, Tensor]:
    """Read the weights of a model, in their stored dtype, on the CPU.

    Raises:
        ModelNotFoundError: If the file is missing or damaged, or there are only pickles, which can run code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / file
    if not path.is_file():
        pickles = sorted(each.name for each in Path(folder).glob("*") if each.suffix in _PICKLES)
        advice = (
            f"; {pickles[0]} is a pickle, which can run code when it is opened: convert it to safetensors"
            if pickles
            else ""
        )
        raise ModelNotFoundError(f"{folder} has no {file}{advice}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelNotFoundError(f"{path} is damaged or cut short: {error}") from error


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``"auto"`` into the accelerator if there is one, else the CPU; check any other.

    The accelerator is what torch finds: CUDA, which ROCm is called too, XPU or MPS.

    Raises:
        ValueError: If the device is unknown or not present.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        return accelerator or torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        known = "'auto', 'cpu' or 'cuda[:n]' (or 'xpu[:n]', 'mps')"
        raise ValueError(f"device must be {known}, got {device!r}") from error
    is_accelerator = accelerator is not None and accelerator.type == found.type
    count = torch.accelerator.device_count() if is_accelerator else int(found.type in ("cpu", "meta"))
    if (found.index or 0) >= count:
        raise ValueError(f"device {str(device)!r} is not present: {count} {found.type} devices found")
    return found


def resolve_dtype(
    dtype: DType | str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    *,
    cuda_default: DType = "float32",
) -> torch.dtype:
    """Turn the name of a compute dtype into a dtype.

    Args:
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``, or a dtype, which is returned.
        device: Device of the model.
        cuda_default: What ``"auto"`` means on CUDA, ROCm and XPU; elsewhere it is float32.

    Raises:
        ValueError: If the name is unknown.
    """
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return names[cuda_default] if torch.device(device).type in ("cuda", "xpu") else torch.float32
    if dtype not in names:
        raise ValueError(f"dtype must be one of auto, {', '.join(names)}, got {dtype!r}")
    return names[dtype]


@contextmanager
def quiet_libraries(*names: str) -> Generator[None]:
    """Keep diffusers and transformers from drawing progress bars and from logging below errors.

    Args:
        names: ``"diffusers"``, ``"transformers"``; they are imported. Their state is restored at the end.
    """
    # both import bitsandbytes where it is installed, which warns of kernels that nobody asked for
    quantisation = logging.getLogger("bitsandbytes")
    level = quantisation.level
    quantisation.setLevel(logging.ERROR)
    loggings = [import_module(f"{name}.utils.logging") for name in names]
    before = [(each, each.is_progress_bar_enabled(), each.get_verbosity()) for each in loggings]
    try:
        for each in loggings:
            each.disable_progress_bar()
            each.set_verbosity_error()
        yield
    finally:
        quantisation.setLevel(level)
        for each, shown, verbosity in before:
            each.set_verbosity(verbosity)
            if shown:
                each.enable_progress_bar()
