# SPDX-License-Identifier: Apache-2.0
"""Functions that can be abandoned after a timeout."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vitron.errors import SpecialistTimeoutError

T = TypeVar("T")


class Worker(Generic[T]):
    """A function in a thread of its own.

    A thread cannot be stopped from outside: an abandoned one continues, and its result is dropped. It does
    not keep the process alive.

    Args:
        work: Function to run.
        name: Name for the thread and for error messages.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._name = name
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._target, name=f"vitron-{name}", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the function is still running."""
        return self._thread.is_alive()

    def _target(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # raised in the thread that waits
            self._error = error

    def run(self, timeout: float | None) -> T:
        """Start, wait, and return the result or raise the error of the function.

        Args:
            timeout: Seconds; ``None`` is no limit.

        Raises:
            SpecialistTimeoutError: If it takes longer.
        """
        self._thread.start()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise SpecialistTimeoutError(f"{self._name} was given up after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result[0]
