# SPDX-License-Identifier: Apache-2.0
"""Small text files: lines, YAML and JSON; errors are one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from common_kernels.runtime.files import write_text

MAX_BYTES = 16 << 20
# suffixes of files that hold trees; all others hold lines
TREES = (".yaml", ".yml", ".json")


class TextFileError(ValueError):
    """A file of names or texts cannot be read or used; the message names file, fault and cure."""


class _StrictLoader(yaml.SafeLoader):
    """YAML with the rules of JSON: unique keys, and keys such as ``no`` and ``1`` stay text."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs: list[tuple[str, Any]] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is no word", key.start_mark)
        pairs.append((key.value, loader.construct_object(value, deep=True)))
    return _unique(pairs)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise TextFileError(f"{key!r} is given twice")
        tree[key] = value
    return tree


def read_text(path: str | Path) -> str:
    """Return the text of a small UTF-8 file.

    Raises:
        TextFileError: If it is missing, no file, too large or not UTF-8.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TextFileError(f"{path} is larger than {MAX_BYTES >> 20} MiB: not a file of names or texts")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextFileError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise TextFileError(f"{path} cannot be read: {error.strerror or error}") from error


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the lines that are neither blank nor comments, stripped, with their numbers from 1.

    A comment begins with ``#`` and a space, or is nothing but ``#``; no name of the benchmarks does.

    Raises:
        TextFileError: As :func:`read_text`; also if there is none.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and line != "#" and not line.startswith("# ")]
    if not lines:
        raise TextFileError(f"{path} is empty")
    return lines


def read_tree(path: str | Path) -> Any:
    """Return the content of a YAML or JSON file (by its suffix); a key that comes twice is an error.

    Raises:
        TextFileError: As :func:`read_text`; also if the syntax is wrong or the file is empty.
    """
    text = read_text(path)
    try:
        if Path(path).suffix.lower() == ".json":
            tree = json.loads(text, object_pairs_hook=_unique)
        else:
            tree = yaml.load(text, _StrictLoader)  # a subclass of the safe loader
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise TextFileError(f"{path} cannot be parsed: {' '.join(str(error).split())}") from error
    except TextFileError as error:
        raise TextFileError(f"{path}: {error}") from error
    if tree is None:
        raise TextFileError(f"{path} is empty")
    return tree


def write_tree(path: str | Path, tree: Any) -> None:
    """Write a mapping or list as YAML or JSON (by the suffix) that :func:`read_tree` reads."""
    if Path(path).suffix.lower() == ".json":
        text = json.dumps(tree, ensure_ascii=False, indent=1) + "\n"
    else:
        text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=1000)
    write_text(path, text)
