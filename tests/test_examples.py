# SPDX-License-Identifier: Apache-2.0
import ast
import doctest
import re
from importlib import import_module

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def modules_with_examples(package):
    for file in sorted(package.source.rglob("*.py")):
        if ">>> " in file.read_text("utf-8"):
            parts = file.relative_to(package.source.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_docstring_examples_run(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write a file
    names = list(modules_with_examples(package))
    assert names, "no public function shows an example"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert {
        name: doctest.testmod(import_module(name), optionflags=flags).failed for name in names
    } == dict.fromkeys(names, 0)


@pytest.fixture(scope="module")
def pages(tree):
    return [file for file in tree if file.suffix == ".md"]


def test_python_in_the_pages_uses_names_that_exist(pages, packages, root):
    """Every ``from ours import name`` of a README or a page of the docs works."""
    modules, checked = {package.module for package in packages}, 0
    for page in pages:
        for block in BLOCK.findall(page.read_text("utf-8")):
            for node in ast.walk(ast.parse(block, str(page.relative_to(root)))):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in modules:
                    module = import_module(node.module)
                    missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                    assert missing == [], f"{page.relative_to(root)} imports {missing} from {node.module}"
                    checked += 1
    assert checked > 0


def test_links_between_pages_lead_somewhere(pages, root):
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text("utf-8"))
        # the site makes the page of a notebook from the notebook
        if not any((page.parent / name).exists() for name in (target, target.replace(".md", ".ipynb")))
    ]
    assert dead == []
