# SPDX-License-Identifier: Apache-2.0
"""Ledger of a store: its images with their rows, which activations are written, and where.

It is one SQLite file, so that every change is whole or not there, whichever process makes it and however that
ends. Features first go to a part, a file of one batch, and later to the arrays; the ledger knows which parts
hold what.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from common_kernels.runtime.files import make_folder
from PIL import Image
from torch import Tensor

from diffeat.images import ImageLike
from diffeat.store.errors import StoreError
from diffeat.store.place import Place

FILE = "ledger.sqlite"
_PATIENCE = 120.0  # seconds for which another process may keep the file locked
_UPLOAD = 30.0  # seconds between copies of the ledger to a file system that has no local files
_TABLES = """
CREATE TABLE items (
    row INTEGER PRIMARY KEY, key TEXT NOT NULL, prompt TEXT NOT NULL, source TEXT NOT NULL,
    have INTEGER NOT NULL DEFAULT 0, UNIQUE (key, prompt)
);
CREATE TABLE name_sets (id INTEGER PRIMARY KEY AUTOINCREMENT, names TEXT NOT NULL UNIQUE);
CREATE TABLE shapes (name TEXT PRIMARY KEY, shape TEXT NOT NULL);
CREATE TABLE parts (id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, names TEXT NOT NULL);
CREATE TABLE part_rows (row INTEGER, part INTEGER, place INTEGER, PRIMARY KEY (row, part)) WITHOUT ROWID;
INSERT INTO name_sets VALUES (0, '[]');
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its prompt.

    Attributes:
        row: Row of its features.
        key: SHA-256 of the image's content: of a file as it is, else of the pixels.
        prompt: Prompt of the image.
        source: File as it was given, or ``""``.
    """

    row: int
    key: str
    prompt: str
    source: str

    @property
    def key_and_prompt(self) -> tuple[str, str]:
        """Identity of the image."""
        return self.key, self.prompt


@dataclass(frozen=True, slots=True)
class Part:
    """A file of features that are not in the arrays yet.

    Attributes:
        number: Number of the part.
        file: Name of the file.
        names: Activations in it.
        places: Place in the file by row.
    """

    number: int
    file: str
    names: frozenset[str]
    places: Mapping[int, int]


class Ledger:
    """Images, rows and finished activations of a store.

    Args:
        place: Folder of the store. In a folder that is not local, the ledger is kept in memory and copied
            there from time to time: a killed run loses what came after the last copy.

    Raises:
        StoreError: If the file is damaged.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._close: Callable[[], object] | None = None
        self._process = os.getpid()
        self._sets: dict[int, frozenset[str]] = {}
        self._copied = 0.0
        self.refresh()

    def refresh(self) -> None:
        """See what other processes have written."""
        with self._lock:
            self._sets.clear()
            self._drop()  # another process may have replaced the file
            self._open()

    def _hold(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Keep a connection until it is dropped, or the ledger is."""
        self._connection, self._close = connection, weakref.finalize(self, connection.close)
        return connection

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        if self._close is not None:
            self._close()
        self._connection = self._close = None

    def _open(self) -> sqlite3.Connection | None:
        """The connection, or ``None`` while there is no file."""
        with self._lock:
            if self._process != os.getpid():  # a connection must not be carried into a forked process
                self._drop()
                self._process = os.getpid()
            if self._connection is None and (connection := self._connect()) is not None:
                self._hold(connection)
            return self._connection

    def _connect(self) -> sqlite3.Connection | None:
        if not self._place.exists(FILE):
            return None
        if self._place.is_local:
            path = Path(self._place.path(FILE)).absolute().as_uri()
            connection = sqlite3.connect(
                f"{path}?mode=rw", uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        else:
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            connection.deserialize(self._place.read(FILE))
        try:
            with self._reading():
                connection.execute("SELECT COUNT(*) FROM name_sets").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> sqlite3.Connection:
        if (found := self._open()) is not None:
            return found
        if not self._place.is_local:
            made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            made.executescript(_TABLES)
            return self._hold(made)
        path = Path(self._place.path(FILE))
        make_folder(path.parent)
        temporary = path.with_name(f".{FILE}.{os.getpid()}")
        with self._place.locked("ledger.lock"):
            if not path.exists():  # another process may be faster
                temporary.unlink(missing_ok=True)
                with closing(sqlite3.connect(temporary)) as made:
                    made.executescript(_TABLES)
                temporary.replace(path)
        opened = self._open()
        assert opened is not None
        return opened

    @contextmanager
    def _reading(self) -> Generator[None]:
        """Raise errors of SQLite as those of a store."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name == "SQLITE_FULL":
                raise OSError(errno.ENOSPC, "No space left on device", self._place.url) from error
            if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR"}:
                raise StoreError(
                    f"{self._place.url}/{FILE} is damaged: the store cannot be trusted"
                ) from error
            raise StoreError(f"{self._place.url}/{FILE} cannot be used: {error}") from error

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        with self._lock, self._reading():
            connection = self._create()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._reading():
            connection = self._open()
            return [] if connection is None else connection.execute(query, values).fetchall()

    def copy(self, *, at_once: bool = True) -> None:
        """Copy the ledger to a file system that is not local.

        Args:
            at_once: Whether to copy even if the last copy is recent.
        """
        with self._lock:
            if self._place.is_local or self._connection is None:
                return
            if at_once or time.monotonic() - self._copied > _UPLOAD:
                self._place.write(FILE, self._connection.serialize())
                self._copied = time.monotonic()

    def clear(self) -> None:
        """Discard all content; processes that still write are refused at their next batch."""
        if self._open() is None:
            return
        with self._writing() as connection:
            for table in ("items", "shapes", "parts", "part_rows"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("DELETE FROM name_sets WHERE id > 0")
        self._sets.clear()
        self.copy()

    def remove(self) -> None:
        """Remove the file of a store that holds nothing."""
        with self._lock:
            self._drop()
            self._place.remove(FILE)

    @property
    def num_rows(self) -> int:
        """Rows planned so far."""
        return next((int(row[0]) for row in self._rows("SELECT COALESCE(MAX(row) + 1, 0) FROM items")), 0)

    @property
    def names(self) -> frozenset[str]:
        """Activations that at least one image has."""
        found = self._rows("SELECT names FROM name_sets")
        return frozenset[str]().union(*(json.loads(text) for (text,) in found))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one image's activation as stored."""
        ((text,),) = self._rows("SELECT shape FROM shapes WHERE name = ?", (name,))
        return tuple(json.loads(text))

    def has(self, row: int) -> frozenset[str]:
        """Activations that the image of a row has; none if there is no such row."""
        found = self._rows("SELECT have FROM items WHERE row = ?", (row,))
        return self._set(int(found[0][0])) if found else frozenset()

    def _set(self, number: int) -> frozenset[str]:
        if number not in self._sets:
            found = self._rows("SELECT names FROM name_sets WHERE id = ?", (number,))
            if not found:
                return frozenset()
            self._sets[number] = frozenset(json.loads(found[0][0]))
        return self._sets[number]

    def item(self, row: int) -> Item | None:
        """The image of a row."""
        found = self._rows("SELECT row, key, prompt, source FROM items WHERE row = ?", (row,))
        return Item(*found[0]) if found else None

    def find(self, key: str, prompt: str) -> Item | None:
        """The row of an image."""
        found = self._rows(
            "SELECT row, key, prompt, source FROM items WHERE key = ? AND prompt = ?", (key, prompt)
        )
        return Item(*found[0]) if found else None

    def complete(self, names: Iterable[str]) -> list[Item]:
        """Images for which all of ``names`` are written, by row."""
        chosen = self._sets_with(names)
        query = f"SELECT row, key, prompt, source FROM items WHERE have IN ({chosen}) ORDER BY row"
        return [Item(*values) for values in self._rows(query)]

    def complete_rows(self, names: Iterable[str]) -> list[int]:
        """Rows for which all of ``names`` are written."""
        chosen = self._sets_with(names)
        return [row for (row,) in self._rows(f"SELECT row FROM items WHERE have IN ({chosen}) ORDER BY row")]

    def _sets_with(self, names: Iterable[str]) -> str:
        wanted = set(names)
        found = self._rows("SELECT id, names FROM name_sets")
        return ", ".join(str(number) for number, text in found if wanted <= set(json.loads(text)))

    def plan(self, images: Iterable[tuple[str, str, str]]) -> list[tuple[Item, frozenset[str]]]:
        """Give rows to the images that have none.

        Args:
            images: Key, prompt and source of each.

        Returns:
            Each image with the activations that it has.
        """
        found: list[tuple[Item, frozenset[str]]] = []
        with self._writing() as connection:
            (following,) = connection.execute("SELECT COALESCE(MAX(row) + 1, 0) FROM items").fetchone()
            for key, prompt, source in images:
                known = connection.execute(
                    "SELECT row, source, have FROM items WHERE key = ? AND prompt = ?", (key, prompt)
                ).fetchone()
                if known is None:
                    known = (following, source, 0)
                    connection.execute(
                        "INSERT INTO items VALUES (?, ?, ?, ?, 0)", (following, key, prompt, source)
                    )
                    following += 1
                found.append((Item(known[0], key, prompt, known[1]), self._set(known[2])))
        return found

    def mark(self, part: str, items: Sequence[Item], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Note that activations of a batch are written to a part.

        Args:
            part: File of the part.
            items: Images of the part, in its order.
            shapes: Shape of one image's activation by name.

        Raises:
            StoreError: If the store was discarded in the meantime, or an activation has another shape in it.
        """
        names = frozenset(shapes)
        with self._writing() as connection:
            for name, shape in shapes.items():
                self._check_shape(connection, name, shape)
            (number,) = connection.execute(
                "INSERT INTO parts (file, names) VALUES (?, ?) RETURNING id",
                (part, json.dumps(sorted(names))),
            ).fetchone()
            for index, item in enumerate(items):
                known = connection.execute(
                    "SELECT key, prompt, have FROM items WHERE row = ?", (item.row,)
                ).fetchone()
                if known is None or known[:2] != item.key_and_prompt:
                    raise StoreError(f"the store at {self._place.url} was discarded by another process")
                have = self._enter_set(connection, self._set(known[2]) | names)
                connection.execute("UPDATE items SET have = ? WHERE row = ?", (have, item.row))
                connection.execute("INSERT INTO part_rows VALUES (?, ?, ?)", (item.row, number, index))
        self.copy(at_once=False)

    def _check_shape(self, connection: sqlite3.Connection, name: str, shape: tuple[int, ...]) -> None:
        known = connection.execute("SELECT shape FROM shapes WHERE name = ?", (name,)).fetchone()
        if known is None:
            connection.execute("INSERT INTO shapes VALUES (?, ?)", (name, json.dumps(shape)))
        elif tuple(json.loads(known[0])) != shape:
            raise StoreError(
                f"{name} is {shape} here and {tuple(json.loads(known[0]))} in the store at "
                f"{self._place.url}; prompts of another length change maps"
            )

    def _enter_set(self, connection: sqlite3.Connection, names: frozenset[str]) -> int:
        text = json.dumps(sorted(names))
        connection.execute("INSERT OR IGNORE INTO name_sets (names) VALUES (?)", (text,))
        return int(connection.execute("SELECT id FROM name_sets WHERE names = ?", (text,)).fetchone()[0])

    def parts_of(self, row: int) -> list[Part]:
        """Parts that hold activations of a row, the latest first."""
        found = self._rows(
            "SELECT id, file, names, place FROM part_rows JOIN parts ON id = part "
            "WHERE row = ? ORDER BY part DESC",
            (row,),
        )
        return [Part(part, file, frozenset(json.loads(names)), {row: at}) for part, file, names, at in found]

    def parts(self, start: int, stop: int) -> list[Part]:
        """Parts that hold rows from ``start`` to before ``stop``, the earliest first."""
        query = (
            "SELECT part, file, names, row, place FROM part_rows JOIN parts ON id = part "
            "WHERE row >= ? AND row < ? ORDER BY part, row"
        )
        places: dict[int, dict[int, int]] = {}
        heads: dict[int, tuple[str, str]] = {}
        for part, file, names, row, at in self._rows(query, (start, stop)):
            heads[part] = (file, names)
            places.setdefault(part, {})[row] = at
        return [
            Part(part, file, frozenset(json.loads(names)), places[part])
            for part, (file, names) in heads.items()
        ]

    def windows(self, size: int) -> list[tuple[int, int, int]]:
        """Windows of ``size`` rows with parts: number, rows in parts, rows that have something."""
        staged = self._rows(
            "SELECT row / ? AS window, COUNT(DISTINCT row) FROM part_rows GROUP BY window", (size,)
        )
        found: list[tuple[int, int, int]] = []
        for window, waiting in staged:
            ((filled,),) = self._rows(
                "SELECT COUNT(*) FROM items WHERE have > 0 AND row >= ? AND row < ?",
                (window * size, (window + 1) * size),
            )
            found.append((window, waiting, filled))
        return found

    def forget(self, parts: Iterable[Part]) -> list[str]:
        """Note that rows of parts are in the arrays now.

        Returns:
            Files that no row needs any more.
        """
        with self._writing() as connection:
            for part in parts:
                rows = [(part.number, row) for row in part.places]
                connection.executemany("DELETE FROM part_rows WHERE part = ? AND row = ?", rows)
            unused = "id NOT IN (SELECT part FROM part_rows)"
            files = [file for (file,) in connection.execute(f"SELECT file FROM parts WHERE {unused}")]
            connection.execute(f"DELETE FROM parts WHERE {unused}")
        self.copy(at_once=False)
        return files

    def part_files(self) -> set[str]:
        """Files of all parts."""
        return {file for (file,) in self._rows("SELECT file FROM parts")}


def content_key(image: ImageLike) -> tuple[str, str]:
    """Key and source of an image.

    Args:
        image: A path, Pillow image, array or tensor.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if isinstance(image, str | Path):
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), str(image)
    if isinstance(image, Image.Image):
        head, data = f"{image.mode}{image.size}", image.tobytes()
    else:
        values = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
        head, data = f"{values.dtype}{values.shape}", np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(head.encode() + data).hexdigest(), ""
