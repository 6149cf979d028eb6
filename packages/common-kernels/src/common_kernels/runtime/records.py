# SPDX-License-Identifier: Apache-2.0
"""Records beside results that say what these were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from common_kernels.runtime.files import make_folder, write_json

__all__ = ["ResultRecord"]

_FOLDER = ".results"


class ResultRecord:
    """The record of one result, which may be several files.

    It is written before the files, so that what a killed run leaves is known as ours, and again when they are
    complete.

    Args:
        outputs: Files of the result; the record lies in ``.results`` beside the first.

    Example:
        >>> import tempfile
        >>> image = Path(tempfile.mkdtemp()) / "a.png"
        >>> record = ResultRecord([image])
        >>> record.begin("digest of input and settings")
        >>> _ = image.write_bytes(b"...")
        >>> record.complete("digest of input and settings")
        >>> record.is_done("digest of input and settings"), record.is_done("digest of others")
        (True, False)
    """

    def __init__(self, outputs: Iterable[Path]) -> None:
        self.outputs = list(outputs)
        first = self.outputs[0]
        self.file = first.parent / _FOLDER / f"{first.name}.json"

    def is_done(self, digest: str) -> bool:
        """Return whether all files are there and were made from what the digest says.

        Raises:
            FileExistsError: If a file is there that no earlier run made.
        """
        there = [path for path in self.outputs if path.exists()]
        try:
            stored: object = json.loads(self.file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            if there:
                raise FileExistsError(
                    f"{there[0]} exists and is not a result of an earlier run: --overwrite replaces it"
                ) from error
            return False
        return len(there) == len(self.outputs) and stored == {"digest": digest, "complete": True}

    def begin(self, digest: str) -> None:
        """Create the folders, and note that the files are about to be written.

        Raises:
            OSError: If a folder or the record cannot be written.
        """
        for path in self.outputs:
            make_folder(path.parent)
        write_json(self.file, {"digest": digest, "complete": False}, sync=False)

    def complete(self, digest: str) -> None:
        """Note that the files are whole.

        Raises:
            OSError: If the record cannot be written.
        """
        write_json(self.file, {"digest": digest, "complete": True})

    def discard_if_empty(self) -> None:
        """Remove the record, and the folders that became empty, if there is no result."""
        if not any(path.exists() for path in self.outputs):
            with suppress(OSError):
                self.file.unlink()
                self.file.parent.rmdir()
                self.file.parent.parent.rmdir()
