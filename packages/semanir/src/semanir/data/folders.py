# SPDX-License-Identifier: Apache-2.0
"""Which files belong together; imports no torch."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common_kernels.runtime.files import is_temporary
from common_kernels.runtime.images import ImageError, read_size
from common_kernels.runtime.images.limits import READABLE

_log = logging.getLogger(__name__)

_NAMED = 5  # files that a report names; the others are counted


class Stored(Protocol):
    """An image that is no file of its own, such as one in a shard; its ``str`` names it."""

    def read(self) -> bytes:
        """Return the bytes of the image file."""
        ...


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A clean image, and the degraded one if it is a file too.

    Attributes:
        clean: File of the clean image.
        degraded: File of the degraded image; ``None`` if it is made from the clean one.
        size: Height and width of the degraded image in pixels, or of the clean one if there is no other.
    """

    clean: Path | Stored
    degraded: Path | Stored | None
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedFolders:
    r"""Two folders whose files belong together by name.

    Attributes:
        degraded: Folder, or a pattern such as ``GoPro/train/*/blur``.
        clean: Folder, or a pattern with the same wildcards, such as ``GoPro/train/*/sharp``.
        degraded_suffix: Regular expression of what the names of degraded files end with beside those of the
            clean ones, such as ``x4`` of DIV2K or ``_s\d+_a\d+`` of Outdoor-Rain.
        clean_suffix: The same of the clean files, such as ``_clean`` of RainDrop.
    """

    degraded: str
    clean: str
    degraded_suffix: str = ""
    clean_suffix: str = ""


def find_images(folders: Sequence[str | Path], *, least: int = 1) -> list[ImagePair]:
    """Find the images below folders, in a stable order.

    Args:
        folders: Folders, searched to any depth, or patterns of them.
        least: Least height and width, in pixels. Smaller images, and files that are no images, are left out,
            and a warning names them.

    Raises:
        ValueError: If a folder is missing, or no image is left.
    """
    found: list[ImagePair] = []
    refused: list[str] = []
    for file in (file for folder in folders for _, file in _files(str(folder))):
        try:
            size = read_size(file)
        except ImageError as error:
            refused.append(str(error))
            continue
        if min(size) < least:
            refused.append(f"{file} is {size[1]} x {size[0]} pixels, less than {least}")
        else:
            found.append(ImagePair(file, None, size))
    _report(refused, "left out")
    if not found:
        raise ValueError(f"no usable image in {', '.join(map(str, folders))}")
    return found


def find_pairs(sources: Sequence[PairedFolders], *, scale: int = 1, least: int = 1) -> list[ImagePair]:
    """Find the pairs of folders, and check that their sizes agree.

    Several degraded files may share one clean file.

    Args:
        sources: Folders.
        scale: Side of the clean image over that of the degraded one.
        least: Least height and width of the degraded image, in pixels.

    Returns:
        Pairs in a stable order. What does not match is left out, and one warning names it.

    Raises:
        ValueError: If a folder is missing, a suffix is no regular expression, two clean files have one name,
            or nothing matches.
    """
    found: list[ImagePair] = []
    refused: list[str] = []
    for source in sources:
        clean: dict[tuple[str, ...], Path] = {}
        for key, file in _keys(source.clean, source.clean_suffix):
            if key in clean:
                raise ValueError(f"{clean[key]} and {file} have one name: they cannot be told apart")
            clean[key] = file
        unused = dict(clean)
        for key, file in _keys(source.degraded, source.degraded_suffix):
            if key not in clean:
                refused.append(f"{file} has no clean image")
                continue
            unused.pop(key, None)
            pair = _checked(file, clean[key], scale, least)
            found.append(pair) if isinstance(pair, ImagePair) else refused.append(pair)
        refused += [f"{file} has no degraded image" for file in unused.values()]
    _report(refused, "do not match and are left out")
    if not found:
        names = ", ".join(f"{each.degraded} and {each.clean}" for each in sources)
        reason = f": {refused[0]}" if refused else ""
        raise ValueError(f"no pair matches in {names}{reason}")
    return found


def _checked(degraded: Path, clean: Path, scale: int, least: int) -> ImagePair | str:
    """Return a pair, or what is wrong with it."""
    try:
        size, wanted = read_size(degraded), read_size(clean)
    except ImageError as error:
        return str(error)
    if wanted != (size[0] * scale, size[1] * scale):
        times = f"{scale} times " if scale > 1 else ""
        large, small = (f"{width} x {height}" for height, width in (wanted, size))
        return f"{clean} ({large}) is not {times}as large as {degraded} ({small})"
    if min(size) < least:
        return f"{degraded} is {size[1]} x {size[0]} pixels, less than {least}"
    return ImagePair(clean, degraded, size)


def _report(refused: Sequence[str], what: str) -> None:
    if refused:
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        _log.warning("%d file(s) %s: %s%s", len(refused), what, "; ".join(refused[:_NAMED]), more)


def _keys(pattern: str, suffix: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield what the files of both sides have in common, and the files."""
    try:
        ending = re.compile(f"(?:{suffix})$")
    except re.error as error:
        raise ValueError(f"suffix {suffix!r} is no regular expression: {error}") from error
    for place, file in _files(pattern):
        *folders, name = place
        stem = Path(name).stem
        yield (*folders, ending.sub("", stem) if suffix else stem), file


def _files(pattern: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield the image files of a folder or pattern, with what the wildcards stood for and the path below."""
    if Path(pattern).is_dir() or not glob.has_magic(pattern):
        places: list[tuple[tuple[str, ...], Path]] = [((), Path(pattern))]
    else:
        captures = re.compile(_capturing(pattern))
        matches = [path for path in sorted(map(Path, glob.glob(pattern))) if path.is_dir()]
        places = [
            (match.groups(), path) for path in matches if (match := captures.fullmatch(path.as_posix()))
        ]
    if not places or not all(folder.is_dir() for _, folder in places):
        raise ValueError(f"{pattern} is no folder")
    for captured, folder in places:
        for file in sorted(folder.rglob("*")):
            relative = file.relative_to(folder)
            hidden = any(part.startswith(".") for part in relative.parts)
            if file.suffix.lower() in READABLE and not hidden and not is_temporary(file) and file.is_file():
                yield (*captured, *relative.parts), file


def _capturing(pattern: str) -> str:
    """Return a regular expression that captures what each wildcard stands for."""
    parts = re.split(r"([*?])", Path(pattern).as_posix())
    return "".join({"*": "([^/]*)", "?": "([^/])"}.get(part, re.escape(part)) for part in parts)
