# SPDX-License-Identifier: Apache-2.0
import ast
import doctest
import re
import shlex
from importlib import import_module

import pytest
from cyclopts import CycloptsError

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```(\S*).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
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


def commands_of(text, programs, *, is_inline):
    """Yield the calls of our programs in the shell blocks of a page, on request in its sentences too."""
    blocks = [block for kind, block in FENCED.findall(text) if kind in {"", "sh"}]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    if is_inline:  # names of commands are no calls; what has two options can be copied
        lines += [line for line in re.findall(r"`(\w[^`\n]*)`", text) if line.count(" -") > 1]
    for line in filter(re.compile(rf"\b({'|'.join(programs)}) ").search, lines):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|>;")
        lexer.whitespace_split = True
        parts = re.split(r"\n[&|>;]+\n", "\n".join(lexer))
        yield from (part.split("\n") for part in parts if part.partition("\n")[0] in programs)


def test_commands_in_the_pages_can_be_given(pages, packages, root):
    """Programs take every call in a shell block, and in a sentence of the pages where people begin."""
    programs = {name: package for package in packages for name in package.project.get("scripts", {})}
    refused, checked = [], 0
    for page in pages:
        where = page.relative_to(root)
        is_inline = where.parts[:2] in {("docs", "start"), ("docs", "howto")} or page.name == "README.md"
        for program, *tokens in commands_of(page.read_text("utf-8"), programs, is_inline=is_inline):
            app = import_module(f"{programs[program].module}.cli").app
            checked += 1
            try:
                app.parse_args(tokens, exit_on_error=False, print_error=False)
            except CycloptsError as error:
                refused.append(f"{where}: {program} {shlex.join(tokens)}: {error}")
    assert checked > 100
    assert refused == []


def test_links_between_pages_lead_somewhere(pages, root):
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text("utf-8"))
        # the site makes the page of a notebook from the notebook
        if not any((page.parent / name).exists() for name in (target, target.replace(".md", ".ipynb")))
    ]
    assert dead == []
