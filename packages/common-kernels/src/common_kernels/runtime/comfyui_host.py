# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ComfyUI in tests: loads a node pack as it does, and runs nodes by its rules."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

__all__ = ["Interrupted", "StandIn", "check_node", "load_pack", "run_node"]

_WIDGETS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_SHAPES = {"IMAGE": 4, "MASK": 3}


@contextmanager
def _present(modules: Mapping[str, ModuleType]) -> Generator[None]:
    """Let modules be imported by their names; what else is imported meanwhile stays."""
    former = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in former.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


class Interrupted(Exception):  # noqa: N818 - the host's exception, which is no error
    """What the host raises in a node that a user cancels."""


class StandIn:
    """The modules of ComfyUI that nodes may ask, and what they were told.

    Args:
        models: Folder of models, with folders such as ``checkpoints``.
        interrupt_at: Number of the call of the progress at which a user cancels; never if ``None``.
    """

    def __init__(self, models: Path | None = None, *, interrupt_at: int | None = None) -> None:
        self.models = models
        self.interrupt_at = interrupt_at
        self.asked = 0
        self.steps: list[tuple[int, int]] = []
        self.freed = 0

    @contextmanager
    def installed(self) -> Generator[StandIn]:
        """Stand in for ComfyUI within the context."""
        host = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None) -> None:
                host.steps.append((value, self.total if total is None else total))

        def unload_all_models() -> None:
            host.freed += 1

        contents: dict[str, dict[str, object]] = {
            "comfy": {},
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.model_management": {
                "get_torch_device": lambda: torch.device("cpu"),
                "soft_empty_cache": lambda: None,
                "throw_exception_if_processing_interrupted": self._ask,
                "unload_all_models": unload_all_models,
            },
            "folder_paths": {"get_filename_list": self._names, "get_full_path": self._path},
        }
        modules = {name: ModuleType(name) for name in contents}
        for name, module in modules.items():
            vars(module).update(contents[name])
        with _present(modules):
            yield self

    def _ask(self) -> None:
        self.asked += 1
        if self.interrupt_at is not None and self.asked >= self.interrupt_at:
            raise Interrupted

    def _names(self, kind: str) -> list[str]:
        folder = self.models / kind if self.models else None
        found = sorted(folder.rglob("*")) if folder else []
        return [str(file.relative_to(folder)) for file in found if folder and file.is_file()]

    def _path(self, kind: str, name: str) -> str | None:
        return str(self.models / kind / name) if self.models and name in self._names(kind) else None


def load_pack(folder: Path) -> dict[str, type[Any]]:
    """Load a folder of ``custom_nodes`` as ComfyUI does.

    Returns:
        The classes of its nodes by name.

    Raises:
        ValueError: If a name that is shown belongs to no node.
    """
    name = str(folder).replace(".", "_x_")  # the name under which ComfyUI imports it
    place = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    with _present({name: module}):
        place.loader.exec_module(module)
    nodes: dict[str, type[Any]] = dict(module.NODE_CLASS_MAPPINGS)
    strangers = sorted(set(getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", {})) - set(nodes))
    if strangers:
        raise ValueError(f"names without a node: {', '.join(strangers)}")
    return nodes


def check_node(node: type[Any]) -> None:
    """Check what ComfyUI's page and its execution read of a node.

    Raises:
        TypeError: If an attribute is missing or malformed, a default is none of its choices or out of its
            bounds, or the function does not take the inputs.
    """
    name = node.__name__
    inputs: Mapping[str, Mapping[str, Any]] = node.INPUT_TYPES()
    if "required" not in inputs or set(inputs) - {"required", "optional", "hidden"}:
        raise TypeError(f"{name}.INPUT_TYPES has the groups {', '.join(inputs)}")
    for group in ("required", "optional"):
        for key, entry in inputs.get(group, {}).items():
            if "default" in _options(entry):
                _check_value(name, key, entry, _options(entry)["default"])
    if not isinstance(node.RETURN_TYPES, tuple):
        raise TypeError(f"{name}.RETURN_TYPES must be a tuple, a comma may be missing")
    if len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)) != len(node.RETURN_TYPES):
        raise TypeError(f"{name} has as many RETURN_NAMES as RETURN_TYPES, or none")
    if not (isinstance(node.CATEGORY, str) and node.CATEGORY):
        raise TypeError(f"{name} needs a CATEGORY")
    signature = inspect.signature(getattr(node, node.FUNCTION))
    every = [*inputs["required"], *inputs.get("optional", {}), *inputs.get("hidden", {})]
    signature.bind(None, **dict.fromkeys(every))
    signature.bind(None, **dict.fromkeys(inputs["required"]))  # what is optional may be left out


def run_node(node: type[Any], **given: Any) -> tuple[Any, ...]:
    """Run a node as ComfyUI does: defaults as the page fills them in, values checked and converted.

    Args:
        node: Class of the node.
        given: Values of inputs, widgets or outputs of other nodes.

    Returns:
        The outputs; an ``IMAGE`` and a ``MASK`` were checked.

    Raises:
        TypeError: If an input is unknown, missing, no choice or out of bounds, or an output is not as
            declared.
    """
    inputs = node.INPUT_TYPES()
    required, optional = inputs["required"], inputs.get("optional", {})
    entries = {**optional, **required}
    unknown = sorted(set(given) - set(entries))
    if unknown:
        raise TypeError(f"{node.__name__} has no input {', '.join(unknown)}")
    filled = {
        key: _options(entry)["default"] for key, entry in entries.items() if "default" in _options(entry)
    }
    filled |= given
    missing = sorted(set(required) - set(filled))
    if missing:
        raise TypeError(f"{node.__name__} misses {', '.join(missing)}")
    values = {key: _check_value(node.__name__, key, entries[key], value) for key, value in filled.items()}
    made = getattr(node(), node.FUNCTION)(**values)
    outputs: tuple[Any, ...] = made.get("result", ()) if isinstance(made, dict) else made
    _check_outputs(node, outputs)
    return outputs


def _options(entry: tuple[Any, ...]) -> Mapping[str, Any]:
    return entry[1] if len(entry) > 1 else {}


def _check_value(name: str, key: str, entry: tuple[Any, ...], value: Any) -> Any:
    kind, options = entry[0], _options(entry)
    if isinstance(kind, list):
        if value not in kind:
            raise TypeError(f"{name}.{key} must be one of {kind}, got {value!r}")
        return value
    if kind not in _WIDGETS:
        return value
    value = _WIDGETS[kind](value)
    if not options.get("min", value) <= value <= options.get("max", value):
        raise TypeError(
            f"{name}.{key} must be from {options.get('min')} to {options.get('max')}, got {value}"
        )
    return value


def _check_outputs(node: type[Any], outputs: object) -> None:
    if not isinstance(outputs, tuple) or len(outputs) != len(node.RETURN_TYPES):
        raise TypeError(f"{node.__name__} must return a tuple of {len(node.RETURN_TYPES)}")
    for kind, output in zip(node.RETURN_TYPES, outputs, strict=True):
        if kind not in _SHAPES:
            continue
        good = isinstance(output, Tensor) and output.ndim == _SHAPES[kind] and output.dtype == torch.float32
        if not good or output.device.type != "cpu" or not 0 <= output.min() <= output.max() <= 1:
            raise TypeError(f"{node.__name__} must return a float32 {kind} on the CPU, in [0, 1]")
