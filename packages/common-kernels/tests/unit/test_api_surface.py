# SPDX-License-Identifier: Apache-2.0
"""The public names are a promise: taking one away fails here until ``api_surface.json`` is edited too."""

import json
import pkgutil
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parents[2]
PACKAGE = import_module(FOLDER.name.replace("-", "_"))


def test_public_names_are_the_inventory():
    found = [info.name for info in pkgutil.iter_modules(PACKAGE.__path__) if not info.name.startswith("_")]
    runtime = import_module(f"{PACKAGE.__name__}.runtime")
    found += [f"runtime.{info.name}" for info in pkgutil.iter_modules(runtime.__path__)]
    modules = [PACKAGE, *(import_module(f"{PACKAGE.__name__}.{name}") for name in found)]
    surface = {module.__name__: sorted(module.__all__) for module in modules if hasattr(module, "__all__")}
    assert surface == json.loads((FOLDER / "tests" / "api_surface.json").read_text("utf-8"))


def test_public_names_exist():
    assert [name for name in PACKAGE.__all__ if not hasattr(PACKAGE, name)] == []
