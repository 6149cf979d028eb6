# SPDX-License-Identifier: Apache-2.0
"""Errors of a store."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

_FULL = {errno.ENOSPC, errno.EDQUOT}


class StoreError(RuntimeError):
    """A store does not match a request."""


class StoreFullError(StoreError, OSError):
    """The disk of a store is full."""


@contextmanager
def disk_errors(url: str) -> Generator[None]:
    """Raise one error with one sentence if a disk is full.

    Args:
        url: Address of the store.

    Raises:
        StoreFullError: Instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, StoreFullError):
            raise
        raise StoreFullError(
            f"no space is left at {url}; every finished batch is kept: free some space and run it again"
        ) from error
