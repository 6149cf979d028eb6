# SPDX-License-Identifier: Apache-2.0
"""Class lists: names of each class, the background first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from itaclip.text.files import TREES, TextFileError, read_lines, read_tree

BACKGROUND = "background"
DATA = Path(__file__).parent / "data"
CLASSES_FOLDER = DATA / "classes"


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their ids, each with one or more names.

    The score of a class is the best of its names. With a background, class 0 holds the pixels of no other
    class, and its names are things that may be there.

    Args:
        classes: Names per class; the first is shown to people.
        background: Whether class 0 is the background. Its words may repeat a name of another class, as
            ``bed`` does in COCO-Object; all other names are given once.

    Raises:
        ValueError: If there is no class, a class has no name, a name is empty, holds a comma or a line
            break, or is given twice.
        TypeError: If a name is no string.

    Example:
        >>> things = ClassList((("sky", "wall"), ("cat", "feline"), ("dog",)), background=True)
        >>> things.labels
        ('background', 'cat', 'dog')
        >>> things.names, things.owner
        (('sky', 'wall', 'cat', 'feline', 'dog'), (0, 0, 1, 1, 2))
    """

    classes: tuple[tuple[str, ...], ...]
    background: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(_names(names) for names in self.classes))
        if len(self.classes) <= self.background:
            raise ValueError("classes is empty: name at least one class")
        first = int(self.background)
        _refuse_duplicates(name for names in self.classes[first:] for name in names)
        if self.background:
            _refuse_duplicates(self.classes[0])

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, class after class."""
        return tuple(name for names in self.classes for name in names)

    @cached_property
    def owner(self) -> tuple[int, ...]:
        """Class id of each of :attr:`names`."""
        return tuple(index for index, names in enumerate(self.classes) for _ in names)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Display name of each class: its first name, or ``background``."""
        firsts = tuple(names[0] for names in self.classes)
        return (BACKGROUND, *firsts[1:]) if self.background else firsts

    @property
    def foreground(self) -> tuple[str, ...]:
        """First names of the classes that are not the background; each has its row of auxiliary texts."""
        return self.labels[int(self.background) :]

    @classmethod
    def build(
        cls,
        classes: Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str] | None] | ClassList,
        *,
        background: str | Sequence[str] | None = None,
    ) -> ClassList:
        """Make a class list from names in any form.

        Args:
            classes: A sequence of names (or of sequences of names, for classes with several), a mapping from
                a name to further names of the same class, or a ready list. A first class (in a mapping, any
                class) called ``background`` is the background.
            background: Names of the background, put before the classes; none if ``None``.

        Raises:
            ValueError: As for :class:`ClassList`; also if a background word names a class too, or a
                background is given twice.
            TypeError: If ``classes`` is one string or something else.

        Example:
            >>> ClassList.build({"cat": ["feline"], "dog": []}, background=["sky", "wall"]).classes
            (('sky', 'wall'), ('cat', 'feline'), ('dog',))
        """
        if isinstance(classes, ClassList):
            if background is None:
                return classes
            if classes.background:
                raise ValueError("background is given twice: the class list has one already")
            rows: list[tuple[str, ...]] = list(classes.classes)
        elif isinstance(classes, str):
            raise TypeError(f"classes must be a sequence or a mapping of names, got the string {classes!r}")
        else:
            rows = _rows(classes)
        words = () if background is None else _words(background)
        if rows and rows[0][:1] == (BACKGROUND,):
            if words:
                raise ValueError("background is given twice: as a class and as words; leave one out")
            own, rows = rows[0], rows[1:]
            words = own[1:] or own
        if any(row[:1] == (BACKGROUND,) for row in rows):
            raise ValueError("the class 'background' must come first")
        taken = {_folded(name) for row in rows for name in row}
        for word in words:
            if _folded(word) in taken:
                raise ValueError(f"background word {word!r} is also the name of a class: leave one out")
        return cls((words, *rows), background=True) if words else cls(tuple(rows))

    @classmethod
    def from_file(cls, path: str | Path, *, background: bool = False) -> ClassList:
        """Read a class list from text, YAML or JSON, by the suffix.

        Text (any other suffix) has one class in a line, its names between commas, as the files of SCLIP and
        its relatives have; lines that begin with ``#`` and a space are comments. YAML and JSON hold what
        :meth:`build` takes, or a mapping with ``classes`` and ``background`` words.

        Args:
            path: The file.
            background: Whether the first class of a text file is the background.

        Raises:
            TextFileError: If the file cannot be read or used; the message names it.
        """
        path = Path(path)
        try:
            if path.suffix.lower() not in TREES:
                rows = [tuple(part.strip() for part in line.split(",")) for _, line in read_lines(path)]
                return cls(tuple(rows), background=background)
            tree = read_tree(path)
            if isinstance(tree, dict) and isinstance(tree.get("classes"), list | dict):
                return cls._from_sections(tree)
            if not isinstance(tree, list | dict):
                raise TypeError("a list or a mapping of names is wanted")
            return cls.build(tree)
        except (ValueError, TypeError) as error:
            if isinstance(error, TextFileError):
                raise
            raise TextFileError(f"{path}: {error}") from error

    @classmethod
    def _from_sections(cls, tree: dict[str, object]) -> ClassList:
        unknown = sorted(set(tree) - {"classes", "background"})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; known are 'classes' and 'background'")
        rows = _rows(tree["classes"])  # pyright: ignore[reportArgumentType]  # its type was asked for above
        words = tree.get("background")
        if words is None:
            return cls(tuple(rows))
        return cls((_words(words), *rows), background=True)

    @classmethod
    def shipped(cls, name: str) -> ClassList:
        """Return the classes of a benchmark; :func:`shipped_classes` lists them.

        Raises:
            ValueError: If there is none of this name.

        Example:
            >>> len(ClassList.shipped("voc21")), len(ClassList.shipped("voc21").names)
            (21, 80)
        """
        if name not in shipped_classes():
            raise ValueError(f"no class list {name!r}: choose one of {', '.join(shipped_classes())}")
        return cls.from_file(CLASSES_FOLDER / f"{name}.yaml")


def shipped_classes() -> tuple[str, ...]:
    """Return the names of the class lists inside this package."""
    return tuple(sorted(file.stem for file in CLASSES_FOLDER.glob("*.yaml")))


def _rows(
    classes: Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str] | None],
) -> list[tuple[str, ...]]:
    if not isinstance(classes, Mapping):
        return [_words(row) for row in classes]
    rows: list[tuple[str, ...]] = []
    for name, others in classes.items():
        further = () if others is None else _words(others)
        row = (name, *(word for word in further if word != name))
        rows.insert(0 if name == BACKGROUND else len(rows), row)
    return rows


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise TypeError(f"a name must be a string, or a sequence of strings, got {value!r}")
    return tuple(value)


def _names(names: object) -> tuple[str, ...]:
    row = _words(names)
    if not row:
        raise ValueError("a class has no name: give each at least one")
    for name in row:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # files hold anything
            raise TypeError(f"a class name must be a string, got {name!r}")
        if not name.strip():
            raise ValueError(f"a class name is empty, in {', '.join(map(repr, row))}")
        if "," in name or "\n" in name:
            raise ValueError(f"class name {name!r} holds a comma or a line break: give its names one by one")
    return tuple(" ".join(name.split()) for name in row)


def _refuse_duplicates(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (key := _folded(name)) in seen:
            raise ValueError(f"class name {name!r} is given twice (capitals do not count)")
        seen[key] = name


def _folded(name: str) -> str:
    # the tokenizers of CLIP lower all letters
    return name.casefold() if isinstance(name, str) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
