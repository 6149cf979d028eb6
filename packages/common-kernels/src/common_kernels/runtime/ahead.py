# SPDX-License-Identifier: Apache-2.0
"""Items made in a thread of their own while others are used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

__all__ = ["read_ahead"]

_Item = TypeVar("_Item")
_PATIENCE = 0.1  # seconds until a waiting thread looks whether it is still wanted


def read_ahead(items: Iterable[_Item], count: int) -> Iterator[_Item]:
    """Yield items that a thread takes from an iterable in advance.

    Args:
        items: Items; only that thread takes from it.
        count: Most items that wait to be used.

    Raises:
        Exception: What the iterable raises, after the items before it.

    Example:
        >>> list(read_ahead(range(3), 2))
        [0, 1, 2]
    """
    waiting: Queue[tuple[bool, _Item | BaseException | None]] = Queue(count)
    stops = threading.Event()

    def put(is_item: bool, value: _Item | BaseException | None) -> None:
        while not stops.is_set():
            try:
                return waiting.put((is_item, value), timeout=_PATIENCE)
            except Full:
                continue

    def fill() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(True, item)
                if stops.is_set():
                    return
        except BaseException as found:  # told to the thread that uses the items
            error = found
        put(False, error)

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                is_item, value = waiting.get(timeout=_PATIENCE)
            except Empty:
                continue
            if is_item:
                yield value  # pyright: ignore[reportReturnType] - an item, as the flag says
            elif isinstance(value, BaseException):
                raise value
            else:
                return
    finally:
        stops.set()
        thread.join()
