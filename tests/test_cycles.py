# SPDX-License-Identifier: Apache-2.0
"""No module of a package imports, by whatever way, a module that imports it."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def modules_of(source):
    """Return the files of a package by the name under which each is imported."""
    files = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def import_nodes(node, *, deferred):
    """Yield the imports below a node: those that run with the module, or all of them."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif deferred or not (for_types or isinstance(child, FUNCTIONS)):
            yield from import_nodes(child, deferred=deferred)


def targets(node, folder, modules):
    """Yield the modules of the package that an import names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        above = folder.split(".")[: len(folder.split(".")) - node.level + 1] if node.level else []
        parent = ".".join([*above, *filter(None, [node.module])])
        names = [f"{parent}.{alias.name}" for alias in node.names]
        names = [name if name in modules else parent for name in names]
    return {name for name in names if name in modules}


def import_graph(source, *, deferred):
    modules = modules_of(source)
    graph = {}
    for name, file in modules.items():
        folder = name if file.name == "__init__.py" else name.rpartition(".")[0]
        # names that a package loads lazily are in its stub
        stub = file.with_suffix(".pyi")
        files = [file, stub] if deferred and stub.is_file() else [file]
        trees = [ast.parse(file.read_text("utf-8")) for file in files]
        nodes = [node for tree in trees for node in import_nodes(tree, deferred=deferred)]
        graph[name] = {target for node in nodes for target in targets(node, folder, modules)} - {name}
    return graph


def find_cycle(graph):
    """Return one cycle, each module imported by the next, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_modules_import_each_other_in_one_direction(package):
    graph = import_graph(package.source, deferred=False)
    assert sum(map(len, graph.values())) > 10
    assert find_cycle(graph) == []


def test_deferred_imports_hide_no_cycle(package):
    """Nor are there cycles that only an import inside a function, or for types alone, keeps from failing."""
    assert find_cycle(import_graph(package.source, deferred=True)) == []


def test_a_name_that_is_loaded_when_used_counts(tmp_path):
    source = tmp_path / "package"
    source.mkdir()
    (source / "__init__.py").write_text("import lazy_loader")
    (source / "__init__.pyi").write_text("from package.store import Store as Store")
    (source / "store.py").write_text("from package import Store")
    assert find_cycle(import_graph(source, deferred=False)) == []
    assert set(find_cycle(import_graph(source, deferred=True))) == {"package", "package.store"}


@pytest.mark.parametrize(
    ("line", "deferred"),
    [
        ("import package.store", False),
        ("from package import store", False),
        ("from . import store", False),
        ("from .store import Store", False),
        ("from package.store import Store", False),
        ("def fill():\n    from package.store import Store", True),
        ("if TYPE_CHECKING:\n    from package.store import Store", True),
        ("class Filler:\n    from package import store", False),
    ],
)
def test_the_rule_of_cycles_can_fail(tmp_path, line, deferred):
    source = tmp_path / "package"
    source.mkdir()
    (source / "__init__.py").write_text("from package.store import Store")
    (source / "store.py").write_text("from package.fill import fill")
    (source / "fill.py").write_text("")
    assert find_cycle(import_graph(source, deferred=True)) == []
    (source / "fill.py").write_text(line)
    assert bool(find_cycle(import_graph(source, deferred=False))) is not deferred
    assert {"package.fill", "package.store"} <= set(find_cycle(import_graph(source, deferred=True)))
