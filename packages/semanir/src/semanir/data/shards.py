# SPDX-License-Identifier: Apache-2.0
"""Images inside tar files, in the layout of WebDataset, read from where they stand.

A shard is indexed once, so that sample ``n`` stays sample ``n``, wherever a run resumes and on however many
processes, which a stream of shards cannot promise.
"""

from __future__ import annotations

import glob
import itertools
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common_kernels.runtime.images import ImageError
from common_kernels.runtime.images.limits import READABLE

from semanir.data.folders import ImagePair

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
CLEAN, DEGRADED = "clean", "degraded"


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image inside a tar file.

    Attributes:
        shard: Tar file.
        name: Name inside it.
        offset: Where its bytes begin.
        num_bytes: How many there are.
    """

    shard: Path
    name: str
    offset: int
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.name}"

    def read(self) -> bytes:
        """Return the bytes of the image file.

        Raises:
            ImageError: If the shard is gone or cut short.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.num_bytes)
        except OSError as error:
            raise ImageError(f"{self} cannot be read: {error.strerror or error}") from error
        if len(content) < self.num_bytes:
            raise ImageError(f"{self} is cut short")
        return content


def find_in_shards(patterns: Sequence[str]) -> list[ImagePair]:
    """List the images of shards, in the order in which they stand.

    A sample is what has one name up to its first dot: ``0001.png`` is a clean image to be degraded on the
    fly, ``0001.clean.png`` and ``0001.degraded.png`` are a pair. Other members, such as ``0001.json``, are
    left out.

    Args:
        patterns: Tar files, not compressed; with ``*``, or a range of numbers as in ``a-{0000..0031}.tar``.

    Returns:
        Images and pairs, their sizes unknown (0 x 0): they are checked when they are read.

    Raises:
        ValueError: If a shard is missing or no tar file, a pair is not whole, or there is no image at all.
    """
    found: list[ImagePair] = []
    for shard in itertools.chain.from_iterable(map(_expand, patterns)):
        samples: dict[str, dict[str, ShardImage]] = {}
        for image in _index(shard):
            folder, _, base = image.name.rpartition("/")
            key, *parts = base.split(".")
            samples.setdefault(f"{folder}/{key}", {})[parts[0] if len(parts) > 1 else CLEAN] = image
        for key, sample in samples.items():
            if CLEAN not in sample or set(sample) - {CLEAN, DEGRADED}:
                held = f"{key.strip('/')} has {', '.join(sorted(sample))}"
                raise ValueError(f"{shard}: a sample is clean, or clean and degraded, but {held}")
            found.append(ImagePair(sample[CLEAN], sample.get(DEGRADED), (0, 0)))
    if not found:
        raise ValueError(f"no image in {', '.join(patterns)}")
    return found


def _expand(pattern: str) -> list[Path]:
    """Return the files of a pattern, in order."""
    match = _RANGE.search(pattern)
    if match:
        first, last = match.groups()
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        return [
            file
            for number in numbers
            for file in _expand(pattern[: match.start()] + number + pattern[match.end() :])
        ]
    names = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    files = list(map(Path, names))
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"{pattern} is no file")
    return files


def _index(shard: Path) -> Iterator[ShardImage]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).suffix.lower() in READABLE:
                    yield ShardImage(shard, member.name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is no tar file without compression: {error}") from error
