# SPDX-License-Identifier: Apache-2.0
"""The public names are a promise: taking one away fails here until the ``api_surface.json`` is edited too."""

import json
import pkgutil
from importlib import import_module


def public_modules(package):
    """Yield a package, its modules, and those of the runtime, which other packages import from."""
    top = import_module(package.module)
    yield top
    folders = [(top.__path__, package.module)]
    if (package.source / "runtime").is_dir():
        folders.append(([str(package.source / "runtime")], f"{package.module}.runtime"))
    for paths, name in folders:
        for info in pkgutil.iter_modules(paths):
            if not info.name.startswith("_"):
                yield import_module(f"{name}.{info.name}")


def test_public_names_are_the_inventory(package):
    surface = {
        module.__name__: sorted(module.__all__)
        for module in public_modules(package)
        if hasattr(module, "__all__")
    }
    inventory = package.folder / "tests" / "api_surface.json"
    assert surface == json.loads(inventory.read_text("utf-8"))


def test_public_names_exist(package):
    for module in public_modules(package):
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []
