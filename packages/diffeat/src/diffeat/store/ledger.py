# SPDX-License-Identifier: Apache-2.0
"""Ledger of a store: its images with their rows, and the finished batches.

Everything is a small JSON file that is written once and never changed: plans say which image has which row
and which rows are computed together, marks say that a batch has been written. Batches are computed and marked
as a whole, and the last bits of features depend on the other images of a batch: so a killed run that resumes
leaves the same values as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
from common_kernels.runtime.files import write_bytes
from PIL import Image
from torch import Tensor

from diffeat.images import ImageLike
from diffeat.store.errors import StoreError

FOLDER = "ledger"


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its prompt.

    Attributes:
        row: Row of its features.
        key: SHA-256 of the image's content: of a file as it is, else of the pixels.
        prompt: Prompt of the image.
        source: File name, or ``""``.
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
class Batch:
    """Rows that are computed together.

    Attributes:
        name: Name of the batch inside its store.
        items: Images of the batch.
    """

    name: str
    items: tuple[Item, ...]


class Ledger:
    """Plans and marks of a store.

    Args:
        url: Address of the store; anything that fsspec opens.
        options: Options of the file system.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        found = cast("Any", fsspec).core.url_to_fs(url, **(options or {}))
        self._files: Any = found[0]
        self._root = f"{str(found[1]).rstrip('/')}/{FOLDER}"
        self.batches: dict[str, Batch] = {}
        self.done: dict[int, set[str]] = {}
        self.names: set[str] = set()
        self.rows: dict[tuple[str, str], Item] = {}
        self.refresh()

    @property
    def num_rows(self) -> int:
        """Rows planned so far."""
        return len(self.rows)

    def refresh(self) -> None:
        """Read all existing plans and marks."""
        self.batches.clear()
        self.rows.clear()
        self.done.clear()
        self.names.clear()
        contents = self._read()
        for name in sorted(contents):
            if name.startswith("plan-"):
                self._enter(name, contents[name])
        for name, mark in contents.items():
            if name.startswith("done-"):
                self._note(mark["rows"], mark["names"])

    def clear(self) -> None:
        """Discard all plans and marks."""
        if self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)
        self.refresh()

    def _read(self) -> dict[str, Any]:
        self._files.invalidate_cache()
        if not self._files.exists(self._root):
            return {}
        paths = [path for path in self._files.ls(self._root, detail=False) if str(path).endswith(".json")]
        contents = cast("dict[str, bytes]", self._files.cat(paths)) if paths else {}
        if isinstance(contents, bytes):
            contents = {str(paths[0]): contents}
        found: dict[str, Any] = {}
        for path, content in contents.items():
            try:
                found[path.rsplit("/", 1)[-1].removesuffix(".json")] = json.loads(content)
            except ValueError as error:
                raise StoreError(f"{path} is damaged: it is not JSON; the store cannot be trusted") from error
        return found

    def _enter(self, plan: str, content: dict[str, Any]) -> None:
        items = [Item(**item) for item in content["items"]]
        size = content["batch_size"]
        for start in range(0, len(items), size):
            name = f"{plan}.{start // size:06d}"
            self.batches[name] = Batch(name, tuple(items[start : start + size]))
        self.rows.update({item.key_and_prompt: item for item in items})

    def plan(self, images: Iterable[tuple[str, str, str]], batch_size: int) -> None:
        """Give rows to the images that have none.

        Args:
            images: Key, prompt and source of each.
            batch_size: Images computed together.
        """
        new: dict[tuple[str, str], Item] = {}
        for key, prompt, source in images:
            if (key, prompt) not in self.rows and (key, prompt) not in new:
                new[key, prompt] = Item(self.num_rows + len(new), key, prompt, source)
        if new:
            name = f"plan-{len({batch.split('.')[0] for batch in self.batches}):06d}"
            content = {"batch_size": batch_size, "items": [asdict(item) for item in new.values()]}
            self._write(name, content)
            self._enter(name, content)

    def mark(self, batch: Batch, names: Sequence[str]) -> None:
        """Note that activations of a batch, or of the images of a part of it, are written."""
        rows = [item.row for item in batch.items]
        digest = hashlib.sha256(f"{rows}{names}".encode()).hexdigest()[:8]
        self._write(f"done-{batch.name}-{digest}", {"rows": rows, "names": list(names)})
        self._note(rows, names)

    def _note(self, rows: Iterable[int], names: Iterable[str]) -> None:
        self.names.update(names)
        for row in rows:
            self.done.setdefault(row, set()).update(names)

    def left(self, batch: Batch, names: Sequence[str]) -> tuple[Batch, list[str]]:
        """Return the missing part of a batch.

        Returns:
            The images that miss one of ``names``, and the names that one of them misses.
        """
        wanted = set(names)
        gaps = {item: wanted - self.done.get(item.row, set()) for item in batch.items}
        items = tuple(item for item, gap in gaps.items() if gap)
        missing = set[str]().union(*gaps.values())
        return Batch(batch.name, items), [name for name in names if name in missing]

    def complete(self, names: Iterable[str]) -> list[Item]:
        """Images for which all of ``names`` are written, by row."""
        wanted = set(names)
        found = (item for item in self.rows.values() if wanted <= self.done.get(item.row, set()))
        return sorted(found, key=lambda item: item.row)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Write a file atomically."""
        text = json.dumps(content, ensure_ascii=False, indent=0).encode()
        self._files.makedirs(self._root, exist_ok=True)
        path = f"{self._root}/{name}.json"
        protocols = self._files.protocol
        if "file" not in ((protocols,) if isinstance(protocols, str) else protocols):
            self._files.pipe_file(path, text)  # object stores write files atomically
            return
        write_bytes(path, text, sync=False)


def content_key(image: ImageLike) -> tuple[str, str]:
    """Key and source of an image.

    Args:
        image: A path, Pillow image, array or tensor.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if isinstance(image, str | Path):
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), Path(image).name
    if isinstance(image, Image.Image):
        head, data = f"{image.mode}{image.size}", image.tobytes()
    else:
        values = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
        head, data = f"{values.dtype}{values.shape}", np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(head.encode() + data).hexdigest(), ""
