# SPDX-License-Identifier: Apache-2.0
"""What the ComfyUI node packs of the packages share: images, masks, widgets, progress, the host's memory.

The interface is that of ComfyUI's custom nodes: an ``IMAGE`` is a tensor ``(B, H, W, C)``, a ``MASK`` one
``(B, H, W)``, both float32 in [0, 1]. Nothing here imports ComfyUI: outside of it, functions that speak to
the host do nothing, so that nodes run in a test or a script.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from docstring_parser import parse
from numpy.typing import NDArray
from torch import Tensor

from common_kernels.runtime.cli import OnProgress

__all__ = [
    "Widget",
    "free_memory",
    "from_images",
    "host_device",
    "model_files",
    "model_path",
    "progress",
    "to_images",
    "to_masks",
    "widgets",
]

Widget = tuple[str | list[str], dict[str, Any]]
"""Type or choices of an input of a node, and its options, as ``INPUT_TYPES`` returns them."""

_KINDS: Mapping[type, str] = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING", Path: "STRING"}
# without bounds the page takes 0 to 2048, and a step of 0.5 for a FLOAT
_BOUNDS: Mapping[str, dict[str, Any]] = {
    "INT": {"min": 0, "max": 2**31 - 1},
    "FLOAT": {"min": 0.0, "max": 1e6, "step": 0.01},
}


def from_images(images: Tensor) -> list[NDArray[np.uint8]]:
    """Return the images of an ``IMAGE`` as 8-bit arrays.

    Args:
        images: Images, ``(B, H, W, C)`` in [0, 1]; what lies beyond is clipped.

    Returns:
        An array ``(H, W, C)`` for each.

    Raises:
        ValueError: If the tensor has another number of dimensions.

    Example:
        >>> from_images(torch.full((2, 4, 5, 3), 0.5))[1][0, 0]
        array([128, 128, 128], dtype=uint8)
    """
    if images.ndim != 4:
        raise ValueError(f"an IMAGE has the shape (B, H, W, C), got {tuple(images.shape)}")
    pixels = images.detach().float().clamp(0, 1).mul(255).add(0.5).to(torch.uint8).cpu()
    return list(pixels.numpy())


def to_images(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """Return images as an ``IMAGE``.

    Args:
        arrays: Images ``(H, W)``, grey, or ``(H, W, C)``, all of one shape: uint8, uint16, or floating in
            [0, 1].

    Returns:
        Float32 tensor ``(B, H, W, C)`` in [0, 1]; grey becomes three equal channels.

    Raises:
        ValueError: If there is no image, or one differs in its shape.
    """
    if not arrays or len({array.shape for array in arrays}) != 1:
        shapes = ", ".join(str(array.shape) for array in arrays) or "none"
        raise ValueError(f"the images of an IMAGE have one shape, got {shapes}")
    values = torch.stack([_unit(array) for array in arrays])
    return values.unsqueeze(-1).repeat(1, 1, 1, 3) if values.ndim == 3 else values


def to_masks(masks: Sequence[NDArray[Any]]) -> Tensor:
    """Return masks ``(H, W)`` of one shape, boolean, uint8 or in [0, 1], as a ``MASK`` ``(B, H, W)``.

    Raises:
        ValueError: If there is no mask, or one differs in its shape.
    """
    if not masks or {mask.ndim for mask in masks} != {2} or len({mask.shape for mask in masks}) != 1:
        shapes = ", ".join(str(mask.shape) for mask in masks) or "none"
        raise ValueError(f"the masks of a MASK have one shape (H, W), got {shapes}")
    return torch.stack([_unit(mask) for mask in masks])


def _unit(array: NDArray[Any]) -> Tensor:
    """Return values in [0, 1] as float32, on the CPU, where ComfyUI keeps images."""
    largest = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
    return torch.from_numpy(np.ascontiguousarray(array).astype(np.float32) / largest).clamp(0, 1)


def widgets(config: type, *names: str, **options: Mapping[str, Any]) -> dict[str, Widget]:
    """Return the widgets of fields of a configuration, so that an option exists once.

    Args:
        config: Dataclass whose fields are texts, paths, numbers, booleans or a ``Literal`` of texts, each or
            ``None``; the entries under "Attributes:" become tooltips.
        names: Names of the fields, in the order in which they are shown.
        options: Further options of a widget by the name of its field, such as ``seed={"max": 2**64 - 1}``.

    Returns:
        Inputs for ``INPUT_TYPES``. A text that is ``None`` by default is shown empty.

    Raises:
        TypeError: If a field is of another type, or has no default.
        ValueError: If the configuration has no field of that name.
    """
    known: dict[str, Field[Any]] = {field.name: field for field in fields(config)}
    unknown = sorted({*names, *options} - set(known))
    if unknown:
        raise ValueError(f"{config.__name__} has no field {', '.join(unknown)}")
    hints, help = get_type_hints(config, include_extras=True), _help(config)
    return {
        name: _widget(known[name], hints[name], {"tooltip": help.get(name, ""), **options.get(name, {})})
        for name in names
    }


def _help(config: type) -> dict[str, str]:
    """Return the documented attributes of a class and of those that it inherits from."""
    pages = [parse(inspect.cleandoc(kind.__doc__ or "")) for kind in reversed(config.__mro__)]
    return {
        entry.arg_name: " ".join((entry.description or "").split()) for page in pages for entry in page.params
    }


def _widget(field: Field[Any], hint: object, options: Mapping[str, Any]) -> Widget:
    if field.default is MISSING and "default" not in options:
        raise TypeError(f"{field.name} needs a default to be a widget")
    default = options.get("default", field.default)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)], {**options, "default": default}
    kind = _KINDS.get(hint) if isinstance(hint, type) else None
    if kind is None:
        raise TypeError(f"{field.name} cannot be a widget: it is {hint}")
    if kind == "STRING":
        default = "" if default is None else str(default)
    return kind, {**_BOUNDS.get(kind, {}), **options, "default": default}


def progress() -> OnProgress:
    """Return a function that moves the bar of the running node, and stops the node once a user cancels it.

    Returns:
        Function of what is done and of all there is. It raises the host's own exception, which ends the run
        there without an error; call it between items, and catch nothing around it.
    """
    utils, management = _host("comfy.utils"), _host("comfy.model_management")
    bar: Any = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if management is not None:
            management.throw_exception_if_processing_interrupted()
        if utils is not None:
            bar = bar or utils.ProgressBar(total)
            bar.update_absolute(done, total)

    return report


def host_device() -> str:
    """Return the device on which ComfyUI computes, ``"auto"`` outside of it."""
    management = _host("comfy.model_management")
    return "auto" if management is None else str(management.get_torch_device())


def free_memory() -> None:
    """Let ComfyUI take its own models off the GPU, to be called before a model of ours is loaded."""
    management = _host("comfy.model_management")
    if management is not None:
        management.unload_all_models()
        management.soft_empty_cache()


def model_files(kind: str) -> list[str]:
    """Return the names of the files in a folder of ComfyUI's models, such as ``"checkpoints"``.

    Returns:
        Names relative to the folder, as a list of choices shows them; empty outside of ComfyUI.
    """
    folders = _host("folder_paths")
    return [] if folders is None else list(folders.get_filename_list(kind))


def model_path(kind: str, name: str) -> Path:
    """Return the path of one of :func:`model_files`.

    Raises:
        FileNotFoundError: If ComfyUI has no such file.
    """
    folders = _host("folder_paths")
    found = None if folders is None else folders.get_full_path(kind, name)
    if found is None:
        raise FileNotFoundError(f"ComfyUI has no file {name!r} among its {kind}")
    return Path(found)


def _host(module: str) -> Any:
    # ComfyUI has imported these before it loads any node; an import of ours could find a stranger
    return sys.modules.get(module)
