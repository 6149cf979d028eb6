# SPDX-License-Identifier: Apache-2.0
"""Registration with the ``Auto`` classes of transformers; neither it nor torch is imported before its use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

__all__ = ["register_auto_classes"]

_AUTO = "transformers.models.auto."
# modules of transformers, and ours that register with them when they are imported
_REGISTERED_BY = {
    f"{_AUTO}configuration_auto": "vitron.model.hf.configuration",
    f"{_AUTO}modeling_auto": "vitron.model.hf.modeling",
}


class _Finder:
    """Imports one of our modules right after the module of transformers that it registers with."""

    def __init__(self) -> None:
        self._searching = set[str]()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that other finders give, whose loader imports our module behind its own."""
        if name not in _REGISTERED_BY or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._searching.discard(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            import_module(_REGISTERED_BY[name])

        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010  # the loader serves this module alone
        return spec


def register_auto_classes() -> None:
    """Let the ``Auto`` classes of transformers know ours, now or as soon as they are imported."""
    for name, ours in _REGISTERED_BY.items():
        if name in sys.modules:
            import_module(ours)
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
