# SPDX-License-Identifier: Apache-2.0
"""Sources of auxiliary texts: files, mappings, functions, and this package."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from common_kernels.runtime.files import write_text

from itaclip.text.classes import DATA, ClassList, shipped_classes
from itaclip.text.files import TREES, TextFileError, read_lines, read_tree, write_tree

MARK = ">="
KINDS = ("definitions", "synonyms")
# kind of texts that the method uses for each benchmark
SHIPPED_KIND = {
    "voc21": "definitions",
    "voc20": "definitions",
    "context60": "definitions",
    "context59": "definitions",
    "coco-stuff": "definitions",
    "coco-object": "synonyms",
    "cityscapes": "synonyms",
}

_log = logging.getLogger(__name__)

Texts = str | Sequence[str]


@runtime_checkable
class TextSource(Protocol):
    """Anything that has texts for class names."""

    def aux(self, names: Sequence[str]) -> Sequence[Texts]:
        """Return one text, or several (or none), for each name, in the order of the names."""
        ...


AuxTexts = TextSource | Mapping[str, Texts] | Callable[[str], Texts] | str | Path | None


class CallableSource:
    """Texts from a function of the name.

    Args:
        function: Function that takes a name and returns its text or texts.

    Example:
        >>> CallableSource(lambda name: f"a kind of {name}").aux(["cat"])
        ['a kind of cat']
    """

    def __init__(self, function: Callable[[str], Texts]) -> None:
        self.function = function

    def aux(self, names: Sequence[str]) -> list[Texts]:
        """Return the function's texts of each name."""
        return [self.function(name) for name in names]


class MappingSource:
    """Texts by name; case and the number of blanks do not count.

    Args:
        texts: One text or several, by name.
        allow_missing: Whether a name may have no text; its class is then not mixed.
        allow_extra: Whether there may be texts for other names.

    Raises:
        ValueError: If two keys are the same name.

    Example:
        >>> MappingSource({"cat": "pet with whiskers", "dog": "tame wolf"}).aux(["dog", "Cat"])
        ['tame wolf', 'pet with whiskers']
    """

    def __init__(
        self, texts: Mapping[str, Texts], *, allow_missing: bool = False, allow_extra: bool = False
    ) -> None:
        self.texts: dict[str, Texts] = {}
        for name, text in texts.items():
            if (key := _key(name)) in self.texts:
                raise ValueError(f"texts for {name!r} are given twice (case and blanks do not count)")
            self.texts[key] = text
        self.allow_missing = allow_missing
        self.allow_extra = allow_extra

    def aux(self, names: Sequence[str]) -> list[Texts]:
        """Return the texts of each name.

        Raises:
            ValueError: If a name has no text, or a text no name, and that is not allowed; if no name has one.
        """
        keys = [_key(name) for name in names]
        missing = [name for name, key in zip(names, keys, strict=True) if key not in self.texts]
        if missing and (not self.allow_missing or len(missing) == len(names)):
            raise ValueError(f"no auxiliary text for {_listed(missing)}: add it, or leave the texts out")
        extra = [name for name in self.texts if name not in set(keys)]
        if extra and not self.allow_extra:
            raise ValueError(f"there are auxiliary texts for {_listed(extra)}, which no class is called")
        return [self.texts.get(key, ()) for key in keys]


class FileSource:
    """Texts from a file: lines ``name >=text``, or YAML or JSON (by the suffix).

    YAML and JSON hold a mapping from names to a text or a list of texts, or a plain list in the order of the
    classes. Rows are matched by name. If some names are not found but there is a row for each class, and no
    row that is found by name stands in another's place, rows are taken in their order, which is how the
    authors' files work.

    Args:
        path: The file.
        strict: Whether each class must have its row and each row its class; else rows for other names are
            ignored and classes without row are not mixed.
        strip_stop: Whether to remove a full stop at the end of a text; templates add their own.

    Raises:
        TextFileError: If the file cannot be read or its form is wrong; the message names file and line.
    """

    def __init__(self, path: str | Path, *, strict: bool = True, strip_stop: bool = False) -> None:
        self.path = Path(path)
        self.strict = strict
        self.rows = _read_rows(self.path)
        if strip_stop:
            self.rows = [(name, tuple(strip_full_stop(text) for text in texts)) for name, texts in self.rows]

    def aux(self, names: Sequence[str]) -> list[Texts]:
        """Return the texts of each name.

        Raises:
            TextFileError: If rows and names do not match; the message names the first that does not.
        """
        table = {_key(name): texts for name, texts in self.rows if name is not None}
        keys = [_key(name) for name in names]
        unique = len(table) == len(self.rows)
        if unique and set(keys) == set(table):
            return [table[key] for key in keys]
        if not self.strict and unique:
            try:
                return MappingSource(table, allow_missing=True, allow_extra=True).aux(names)
            except ValueError as error:
                raise TextFileError(f"{self.path}: {error}") from error
        if len(self.rows) != len(names):
            raise TextFileError(self._mismatch(names, keys, table))
        return self._by_order(names, keys)

    def _by_order(self, names: Sequence[str], keys: list[str]) -> list[Texts]:
        unlike: list[tuple[str, str]] = []
        for name, key, (row, _) in zip(names, keys, self.rows, strict=True):
            if row is None or _key(row) == key:
                continue
            if _key(row) in keys:
                raise TextFileError(
                    f"{self.path}: rows match the classes neither by name nor by order: "
                    f"{row!r} stands in the place of {name!r}"
                )
            unlike.append((row, name))
        if unlike:
            row, name = unlike[0]
            _log.warning("%s: rows are taken in their order; %r stands for %r", self.path, row, name)
        return [texts for _, texts in self.rows]

    def _mismatch(self, names: Sequence[str], keys: list[str], table: dict[str, tuple[str, ...]]) -> str:
        counts = f"{self.path} has {len(self.rows)} rows for {len(names)} classes"
        seen: set[str] = set()
        for row, _ in self.rows:
            if row is not None and _key(row) in seen:
                return f"{counts}: {row!r} is given twice with different texts; keep one"
            seen.add("" if row is None else _key(row))
        missing = [name for name, key in zip(names, keys, strict=True) if key not in table]
        extra = [row for row in table if row not in set(keys)]
        if not table or not (missing or extra):
            return counts
        part = f"there is none for {_listed(missing)}" if missing else f"no class is called {_listed(extra)}"
        return f"{counts}: {part}"


def shipped_texts(kind: str) -> dict[str, str]:
    """Return the texts inside this package, by class name.

    Args:
        kind: ``"definitions"`` or ``"synonyms"``, or a class list of :func:`shipped_classes` that has texts:
            those of its classes, of the kind used for it.

    Raises:
        ValueError: If there is none of this name.
    """
    if kind in KINDS:
        return dict(_shipped(kind))
    if kind not in SHIPPED_KIND:
        known = ", ".join((*KINDS, *(name for name in shipped_classes() if name in SHIPPED_KIND)))
        raise ValueError(f"no auxiliary texts {kind!r}: choose one of {known}")
    texts = _shipped(SHIPPED_KIND[kind])
    return {name: texts[name] for name in ClassList.shipped(kind).foreground}


@lru_cache(maxsize=len(KINDS))
def _shipped(kind: str) -> dict[str, str]:
    return read_tree(DATA / f"{kind}.yaml")


def as_source(aux: TextSource | Mapping[str, Texts] | Callable[[str], Texts] | str | Path) -> TextSource:
    """Return a text source for whatever form the texts come in.

    Args:
        aux: A source, a mapping by name (texts for other names are ignored), a function of a name, the path
            of a file, or the name of texts inside this package (see :func:`shipped_texts`; classes unknown to
            ``"definitions"`` and ``"synonyms"`` get no text).

    Raises:
        ValueError: If a name or file is not there or not usable.
        TypeError: If it is something else.
    """
    if isinstance(aux, Mapping):
        return MappingSource(aux, allow_extra=True)
    if isinstance(aux, str) and (aux in KINDS or aux in SHIPPED_KIND):
        return MappingSource(shipped_texts(aux), allow_missing=aux in KINDS, allow_extra=True)
    if isinstance(aux, str | Path):
        if isinstance(aux, str) and not Path(aux).suffix and not Path(aux).exists():
            raise ValueError(
                f"auxiliary texts {aux!r} are neither a file nor one of {', '.join((*KINDS, *SHIPPED_KIND))}"
            )
        return FileSource(aux)
    if isinstance(aux, TextSource):
        return aux
    if callable(aux):
        return CallableSource(aux)
    raise TypeError(f"aux must be a text source, mapping, function or file, got {type(aux).__name__}")


def aux_texts(aux: AuxTexts, classes: ClassList) -> list[tuple[str, ...]] | None:
    """Return the auxiliary texts of each class that is not the background; ``None`` if there are none.

    Args:
        aux: Texts in any form of :func:`as_source`; ``None`` for none.
        classes: The classes; their first names are looked up.

    Raises:
        ValueError: If texts are missing, too many or empty.
        TypeError: If a text is no string.

    Example:
        >>> aux_texts({"cat": "pet with whiskers"}, ClassList.build(["cat"], background=["sky"]))
        [('pet with whiskers',)]
    """
    if aux is None:
        return None
    rows = check_aux(as_source(aux).aux(classes.foreground), classes)
    return rows if any(rows) else None


def check_aux(aux: Sequence[Texts], classes: ClassList) -> list[tuple[str, ...]]:
    """Return the texts of each class that is not the background, as tuples.

    Raises:
        ValueError: If the number of rows is another than that of the classes, or a text is empty.
        TypeError: If a text is no string.
    """
    names = classes.foreground
    if isinstance(aux, str) or len(aux) != len(names):
        got = f"the string {aux!r}" if isinstance(aux, str) else str(len(aux))
        besides = " (the background has none)" if classes.background else ""
        raise ValueError(f"aux must have one row for each of the {len(names)} classes{besides}, got {got}")
    return [_checked(f"the auxiliary text of {name!r}", row) for name, row in zip(names, aux, strict=True)]


def write_texts(path: str | Path, texts: Mapping[str, Texts]) -> None:
    """Write texts by name, in the form that the suffix names: ``.yaml``, ``.json``, or lines ``name >=text``.

    Raises:
        ValueError: If lines cannot hold them, because a name has several texts, a mark or a line break.
    """
    path = Path(path)
    if path.suffix.lower() in TREES:
        plain = {name: text if isinstance(text, str) else list(text) for name, text in texts.items()}
        write_tree(path, plain)
        return
    rows: list[str] = []
    for name, text in texts.items():
        row = f"{name} {MARK}{text}"
        if not isinstance(text, str) or MARK in name or "\n" in row or not text.strip():
            raise ValueError(f"the texts of {name!r} do not fit on a line {row!r}: write .yaml or .json")
        rows.append(row)
    write_text(path, "\n".join(rows) + "\n")


def strip_full_stop(text: str) -> str:
    """Return a text without a full stop at its end; dots such as those of ``etc...`` stay.

    Example:
        >>> strip_full_stop("A small pet. ")
        'A small pet'
    """
    text = text.strip()
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _checked(what: str, row: object) -> tuple[str, ...]:
    texts = (row,) if isinstance(row, str) else tuple(row) if isinstance(row, Sequence) else (row,)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what} must be a string, got {text!r}")
        if not text.strip():
            raise ValueError(f"{what} is empty")
    return tuple(str(text) for text in texts)


def _read_rows(path: Path) -> list[tuple[str | None, tuple[str, ...]]]:
    """Return names (``None`` in plain lists) with their texts; a row that comes again is taken once."""
    if path.suffix.lower() in TREES:
        tree = read_tree(path)
        if not isinstance(tree, dict | list) or not tree:
            raise TextFileError(f"{path}: a mapping from names to texts is wanted, or a list of texts")
        pairs = list(tree.items()) if isinstance(tree, dict) else [(None, row) for row in tree]
        try:
            return [(name, _checked(f"the text of {name or 'a row'!r}", row)) for name, row in pairs]
        except (TypeError, ValueError) as error:
            raise TextFileError(f"{path}: {error}") from error
    rows: list[tuple[str | None, tuple[str, ...]]] = []
    for number, line in read_lines(path):
        name, mark, text = (part.strip() for part in line.partition(MARK))
        if not mark or not name or not text:
            raise TextFileError(
                f"{path}, line {number}: a row must read 'name {MARK}text', got {line[:60]!r}"
            )
        # the authors' scripts append, so a second run repeats rows
        if (name, (text,)) not in rows:
            rows.append((name, (text,)))
    return rows


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
